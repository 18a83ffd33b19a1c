"""One of several names, or an error that suggests the nearest."""

from collections.abc import Iterable
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
