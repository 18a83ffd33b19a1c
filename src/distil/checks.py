"""What every stored file and every Python object must hold to: names that can be shown, sensible means and spreads."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

from distil.errors import DistilError

LARGEST_MEAN = 10.0
"""Largest mean of a channel; pixels lie in [0, 1]."""
STD_RANGE = (1e-4, 10.0)
"""Range of a channel's standard deviation; 1/255 is the least that distil measures."""
LONGEST_NAME = 1000
"""Characters of a class's name."""
SEEDS = 2**63
"""Seeds lie between minus this and this."""
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of what a terminal shows after them."""


def shown(value: object, longest: int = 200) -> str:
    """A value as an error message can show it: on one line, printable, shortened."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python converts
        return "a number of thousands of digits"
    except RecursionError:
        return "a value that is nested too deeply"
    text = text.encode(errors="backslashreplace").decode().replace("\n", " ")
    return text if len(text) <= longest else f"{text[:longest]}..."


def unprintable(text: str) -> str:
    """The first character that cannot be stored or would disturb a terminal: controls, halves of pairs; or ""."""
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in TURNING:
            return letter
    return ""


def check_text(value: object, what: str) -> str:
    """The value, if it is text that can be printed.

    what: how the message calls it: a field, or words such as "the name of a network".
    Raises: DistilError that names `what`.
    """
    name, field = _reference(what)
    if not isinstance(value, str):
        raise DistilError(f"{name} is {shown(value)}: it must be text.", field=field)
    if letter := unprintable(value):
        told = f"{name} is {shown(value)}: it holds {letter!r}, which cannot be printed. Take it out."
        raise DistilError(told, field=field)
    return value


def check_class_names(classes: Sequence[Any], *, repeatable: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of classes, in order, as a tuple.

    repeatable: names that several classes may have.
    Raises: DistilError if there is none, one is not text, empty, longer than LONGEST_NAME, given twice, or holds a
        character that cannot be printed.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise DistilError(f"classes are {shown(classes)}: give a list of names.")
    if not classes or not all(isinstance(name, str) for name in classes):
        raise DistilError(f"classes are {shown(classes)}: give at least one name, as text.")
    for index, name in enumerate(classes):
        if not name.strip():
            raise DistilError(f"class {index} has the name {shown(name)}: give every class a name.")
        if len(name) > LONGEST_NAME:
            raise DistilError(
                f"class {index} has a name of {len(name)} characters ({shown(name, 40)}): give at most {LONGEST_NAME}."
            )
        if letter := unprintable(name):
            raise DistilError(
                f"class {index} has the name {shown(name)}: it holds {letter!r}, which cannot be printed. Rename it."
            )
    repeated = [name for name, count in Counter(classes).items() if count > 1 and name not in repeatable]
    if repeated:
        raise DistilError(f"the class name {shown(repeated[0])} is given twice: names must differ.")
    return tuple(classes)


def check_statistics(mean: Any, std: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, as floats.

    mean, std: a number for each channel, as a list, a tuple, an array or a tensor.
    Raises: DistilError if there are more or fewer, one is no finite number, or one lies beyond LARGEST_MEAN, STD_RANGE.
    """
    found = []
    for name, values in (("mean", mean), ("std", std)):
        numbers = values.tolist() if hasattr(values, "tolist") else values
        numbers = tuple(numbers) if isinstance(numbers, Sequence) and not isinstance(numbers, str) else (numbers,)
        if len(numbers) != channels or not all(is_finite(number) for number in numbers):
            raise DistilError(
                f"{name} is {shown(numbers)}: expected one finite number for each of {channels} channels."
            )
        found.append(tuple(float(number) for number in numbers))
    if any(abs(number) > LARGEST_MEAN for number in found[0]):
        raise DistilError(
            f"mean is {shown(found[0])}: expected that of images in [0, 1], at least -{LARGEST_MEAN:g} and at most "
            f"{LARGEST_MEAN:g}."
        )
    low, high = STD_RANGE
    if any(not low <= number <= high for number in found[1]):
        raise DistilError(
            f"std is {shown(found[1])}: every channel's must be above 0, at least {low:g} and at most {high:g}, as of "
            "images in [0, 1]."
        )
    return found[0], found[1]


def check_seed(seed: object, what: str = "seed") -> int:
    """The seed. Raises: DistilError that names `what` if it is no whole number, or one of more than 63 bits."""
    name, field = _reference(what)
    if not is_integer(seed):
        raise DistilError(f"{name} is {shown(seed)}: it must be a whole number.", field=field)
    if not -SEEDS <= int(seed) < SEEDS:
        raise DistilError(f"{name} is {shown(seed)}: give a number of at most 63 bits.", field=field)
    return int(seed)


def _reference(what: str) -> tuple[str, str | tuple[()]]:
    """How a message refers to `what`, and the field that the error carries: none where `what` is words."""
    return (f"{{{what}}}", what) if what.isidentifier() else (what, ())


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, and neither True nor False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number that a float can hold, and neither True nor False."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return float(value) - float(value) == 0
    except (OverflowError, ValueError):
        return False
