"""Settings as nested frozen dataclasses: constraints that stand on the fields, one check, one (de)serializer.

A field's annotation says what it may hold: `Annotated[int, Range(1, 31)]`, a Literal, a tuple of numbers, a nested
dataclass, or a union of dataclasses that each have a `kind`. Any object that is no dataclass of the union may stand in
a union's place too: it is then a part that the user wrote.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from distil.checks import check_seed, check_text, is_finite, is_integer, shown
from distil.errors import DistilError
from distil.lookup import chosen

LARGEST = 10**9
"""The largest whole number that a field takes where its range does not say less."""


@dataclass(frozen=True)
class Range:
    """What a number may be: from `low` to `high`, both included unless `above` or `below` exclude them."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    what: str = ""
    """What the number is, where that explains the range: "it is a share"."""


@dataclass(frozen=True)
class Seed:
    """A whole number of at most 63 bits."""


Count = Annotated[int, Range(1)]
"""A whole number of at least 1."""
Positive = Annotated[float, Range(above=0)]
"""A number above 0."""
NonNegative = Annotated[float, Range(0)]
"""A number of at least 0."""
Share = Annotated[float, Range(0, 1, what="it is a share, between 0 and 1")]
"""A share, between 0 and 1."""


@dataclass(frozen=True)
class Leaf:
    """One value of nested settings: where it is, what it is called, and what it may be."""

    path: tuple[str, ...]
    """Names of the fields that lead to it."""
    name: str
    """Its name for users: that of its field, after the `prefix` of its dataclass."""
    kind: Any
    """Its type, with the constraints."""
    value: Any
    doc: str
    """The text below the field in the source."""


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def _docs(kind: type) -> dict[str, str]:
    """The texts below the fields of a dataclass, by field; those of its bases where it has none."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):  # made without a source, as in a console
            continue
        lines = body.body if isinstance(body, ast.ClassDef) else []
        for line, below in pairwise(lines):
            told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and told:
                docs[line.target.id] = " ".join(inspect.cleandoc(str(below.value.value)).split())  # pyright: ignore
    return docs


def refused(name: str, text: str) -> DistilError:
    """The error that a field cannot be what it is; text: what follows its name."""
    return DistilError(f"{{{name}}} {text}", field=name)


def members(kind: Any) -> dict[str, type]:
    """The dataclasses that a field of this type chooses between, by their `kind`; NoneType as "none". Empty if the
    field holds a plain value, or one dataclass without a kind."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    named: dict[str, type] = {getattr(x, "kind", ""): x for x in options if isinstance(x, type) and is_dataclass(x)}
    if "" in named or not named:
        return {}
    return named | ({"none": NoneType} if NoneType in options else {})


def slots(settings: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, type], Any]]:
    """(path, members by kind, what is there) of every field that chooses between dataclasses, outer ones first."""
    for field in fields(settings):
        kind, value = _hints(type(settings))[field.name], getattr(settings, field.name)
        here = (*path, field.name)
        if options := members(kind):
            yield here, options, value
        if is_dataclass(value):
            yield from slots(value, here)


def leaves(settings: Any, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every plain value of nested settings, in the order of the fields."""
    kind = type(settings)
    prefix = getattr(kind, "prefix", "")
    for field in fields(settings):
        value, hint = getattr(settings, field.name), _hints(kind)[field.name]
        if is_dataclass(value) and not isinstance(value, type):
            yield from leaves(value, (*path, field.name))
        elif not members(hint):
            name = prefix + field.name
            yield Leaf((*path, field.name), name, hint, value, _docs(kind).get(field.name, ""))


Settings = TypeVar("Settings")


def with_value(settings: Settings, path: tuple[str, ...], value: Any) -> Settings:
    """The settings with another value at a path. Raises: DistilError as the dataclasses do."""
    first, *rest = path
    if rest:
        value = with_value(getattr(settings, first), tuple(rest), value)
    return replace(settings, **{first: value})  # pyright: ignore[reportArgumentType]


def with_values(settings: Settings, **values: Any) -> Settings:
    """The settings with other values, by the names of their leaves, as in with_values(settings, epochs=3).

    Raises: DistilError with the nearest name where the settings have no such leaf, and as the dataclasses do.
    """
    for name, value in values.items():
        paths = {leaf.name: leaf.path for leaf in leaves(settings)}
        settings = with_value(settings, paths[chosen("setting", name, paths)], value)
    return settings


def check(settings: Any) -> None:
    """Refuse values that their fields do not take.

    Raises: DistilError that names the field, its value and what is accepted.
    """
    for path, options, value in slots(settings):
        name = path[-1]
        if isinstance(value, (str, int, float, dict, list, tuple)) or (value is None and "none" not in options):
            raise refused(name, f"is {shown(value)}: give one of {_named(options)}, or a part of your making.")
    for leaf in leaves(settings):
        check_value(leaf.kind, leaf.value, leaf.name)


def _named(options: dict[str, type]) -> str:
    return ", ".join("None" if option is NoneType else option.__name__ for option in options.values())


def check_value(kind: Any, value: Any, name: str) -> None:
    """Refuse a value that a field of this type does not take. Raises: DistilError that names the field."""
    constraints: list[Any] = []
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        constraints += more
    if get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
        if value is None:
            return
        kind = next(option for option in get_args(kind) if option is not NoneType)
    _check_type(kind, value, name)
    for constraint in constraints:
        if isinstance(constraint, Seed):
            check_seed(value, name)
        elif isinstance(constraint, Range):
            _check_range(constraint, value, name)
    limited = any(isinstance(constraint, (Seed, Range)) for constraint in constraints)
    if is_integer(value) and kind is int and value > LARGEST and not any(isinstance(c, Seed) for c in constraints):
        raise refused(name, f"is {shown(value)}: give at most {LARGEST}.")
    if is_finite(value) and not isinstance(value, bool) and kind in (int, float) and not limited and value < 0:
        raise refused(name, f"is {value}: it cannot be negative.")


def _check_range(constraint: Range, value: Any, name: str) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        inside = (
            (constraint.low is None or number >= constraint.low)
            and (constraint.high is None or number <= constraint.high)
            and (constraint.above is None or number > constraint.above)
            and (constraint.below is None or number < constraint.below)
        )
        if not inside:
            raise refused(name, f"is {shown(number)}: {_wanted(constraint, number)}.")


def _wanted(constraint: Range, number: float) -> str:
    if constraint.what:
        return constraint.what
    low, high = constraint.low, constraint.high
    if constraint.above == 0 or (low == 1 and number <= 0):
        return "it must be above 0"
    if low == 0 and number < 0:
        return "it cannot be negative"
    if high is not None and number > high:
        return f"give at most {high:g}" if isinstance(high, float) else f"give at most {high}"
    if low is not None and number < low:
        return f"give at least {low:g}"
    return f"it must be {'above' if constraint.above is not None and number <= constraint.above else 'below'} " + (
        f"{constraint.above if constraint.above is not None and number <= constraint.above else constraint.below:g}"
    )


def _check_type(kind: Any, value: Any, name: str) -> None:
    """Refuse a value of another type than its field has, and numbers that are not finite."""
    problem = ""
    if get_origin(kind) is Literal:
        known = get_args(kind)
        if type(value) not in {type(word) for word in known} or value not in known:
            problem = f"choose from {', '.join(str(word) for word in known)}"
    elif get_origin(kind) is tuple:
        count = None if Ellipsis in get_args(kind) else len(get_args(kind))
        words = str in get_args(kind)
        fitting = isinstance(value, tuple) and all(isinstance(x, str) if words else is_finite(x) for x in value)
        if not fitting or count not in (None, len(value)):
            problem = f"give {'' if count is None else f'{count} '}{'words' if words else 'finite numbers'}"
    elif kind is int and not is_integer(value):
        problem = "give a whole number"
    elif kind is float and not is_finite(value):
        problem = "give a finite number"
    elif kind is bool and not isinstance(value, bool):
        problem = "it must be true or false"
    elif kind is str:
        check_text(value, name)
    if problem:
        raise refused(name, f"is {shown(value)}: {problem}.")


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as JSON can hold them: nested objects, those of a union with their "kind".

    A part of the user's making is named by its module and class; of a dataclass the fields are kept as well.
    """
    made: dict[str, Any] = {}
    for field in fields(settings):
        made[field.name] = _plain(getattr(settings, field.name), _hints(type(settings)).get(field.name))
    return made


def _plain(value: Any, kind: Any = None) -> Any:
    options = members(kind)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    inner = to_dict(value) if is_dataclass(value) and not isinstance(value, type) else {}
    known = type(value) in options.values()
    if options and known:
        return {"kind": getattr(value, "kind", ""), **inner}
    if options or not is_dataclass(value):
        return {"kind": f"{type(value).__module__}.{type(value).__qualname__}", **inner}
    return inner


def from_dict(kind: type[Settings], values: Any) -> Settings:
    """The settings that `to_dict` turned into plain values; fields that are missing have their defaults.

    Raises: DistilError that names the field if this version does not know it, or it cannot have its value.
    """
    if not isinstance(values, dict):
        raise DistilError(
            f"the settings in the saved run are {shown(values)}: expected a value for each name. Copy the run again, "
            "or start another."
        )
    try:
        settings = _made(kind, values)
        check(settings)
    except DistilError as error:
        if str(error).startswith("unknown setting"):
            raise
        raise DistilError(f"the settings in the saved run cannot be used: {error}") from error
    return settings


def _made(kind: Any, values: dict[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(map(str, set(values) - known - {"kind"})):
        raise DistilError(
            f"unknown setting {shown(unknown[0])} in the saved run: it was made by another version of distil."
        )
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name == "kind":
            continue
        hint = _hints(kind)[name]
        options = members(hint)
        if options:
            made[name] = _member(name, options, value)
        elif is_dataclass(hint):
            if not isinstance(value, dict):
                raise refused(name, f"is {shown(value)}: expected its settings.")
            made[name] = _made(hint, value)
        else:
            made[name] = tuple(value) if isinstance(value, list) else value
            check_value(hint, made[name], getattr(kind, "prefix", "") + name)
    return kind(**made)


def _member(name: str, options: dict[str, type], value: Any) -> Any:
    if value is None and "none" in options and options["none"] is NoneType:
        return None
    word = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(word, str):
        raise refused(name, f"is {shown(value)}: expected its settings, with a kind.")
    if word not in options:
        if "." in word:
            raise refused(name, f"is {shown(word)}, a part that only the program which made it knows: resume it there.")
        raise refused(name, f"is {shown(word)}: choose from {', '.join(options)}.")
    return _made(options[word], value)
