"""One of several names, or an error that suggests the nearest."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from distil.checks import shown
from distil.errors import DistilError

LONGEST_WORD = 100
"""Characters of a word that is compared with names: the time grows with the square."""


def chosen(what: str, word: str, known: Iterable[str], *, wanted: str = "", field: str = "") -> str:
    """The word, if it is one of the known names.

    what: what the names are of, as in "unknown network". wanted: a sentence in the place of the list of all names.
    field: the argument that the word was given for.
    Raises: DistilError with the nearest name.
    """
    names = tuple(known)
    if word in names:
        return word
    raise unknown(what, word, names, wanted=wanted, field=field)


def unknown(what: str, word: object, known: Iterable[str], *, wanted: str = "", field: str = "") -> DistilError:
    """The error of `chosen`, for a caller that looks the word up in another way."""
    names = tuple(known)
    near = nearest(word, names)
    suggestion = f" Did you mean {near}?" if near else ""
    wanted = wanted or f"Choose from {', '.join(names)}."
    return DistilError(f"unknown {what} {shown(word)}.{suggestion} {wanted}", field=field or ())


SHOWN = 20
"""Class names that a message lists."""


def indices_of(classes: Sequence[str], known: Sequence[str], what: str) -> list[int]:
    """The index of each class among the known ones. what: whose they are.

    Raises: DistilError on none, one that is not known, and one given twice.
    """
    if not classes or isinstance(classes, str):
        raise DistilError(f"{{classes}} is {shown(classes)}: give a list of class names.", field="classes")
    places = {name: index for index, name in enumerate(known)}
    for place, name in enumerate(classes):
        if name not in places:
            wanted = f"The classes of {what} are {', '.join(known[:SHOWN])}{', ...' if len(known) > SHOWN else ''}."
            raise unknown("class", name, known, wanted=wanted, field="classes")
        if name in classes[:place]:
            raise DistilError(f"{{classes}} names {shown(name)} twice: name every class once.", field="classes")
    return [places[name] for name in classes]


def nearest(word: object, known: Iterable[str]) -> str:
    """The known name that a word is most like, whatever its case, hyphens and underscores; "" if none is near.

    Of names that are near, one with the same letters comes first.
    """
    if not isinstance(word, str) or len(word) > LONGEST_WORD:
        return ""
    names = {_plain(name): name for name in reversed(tuple(known))}
    near = get_close_matches(_plain(word), names, n=3)
    near.sort(key=lambda name: sorted(name) != sorted(_plain(word)))
    return names[near[0]] if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
