"""What single values in annotation files mean: flags, numbers, names of classes and of files."""

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from distil.data.detection.inventory import Findings, printable
from distil.errors import DistilError

FALSE = ("", "0", "false", "no", "n", "f", "off")
TRUE = ("1", "true", "yes", "y", "t", "on")
LONGEST = 255
"""Bytes of a file's name."""

PLAIN = re.compile(r"[^/\\:\0][^\\:\0]*")

UNTOLD = ("unspecified", "unknown", "none", "null", "nan", "n/a")


def flag(value: Any) -> bool | None:
    """Whether a flag is set: of 0, 1, true, "no", "0.0", null, ...; None where it says that nobody knows.

    Raises: ValueError if it says neither.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        word = re.sub(r"^([01])\.0*$", r"\1", word)
        if word in FALSE or word in TRUE:
            return word in TRUE
        if word in UNTOLD:
            return None
    raise ValueError


def number(text: str) -> float:
    """The number that a text is; nan and infinities are numbers here, and found by those who check boxes.

    Raises: ValueError if it is none.
    """
    if "_" in text:  # float takes it, and no format has it
        raise ValueError
    return float(text)


def coordinate(value: Any) -> float | None:
    """A number of a json as float, beyond the range of floats infinite; None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def class_name(text: str) -> str:
    """The name in one Unicode form, without spaces around it."""
    return unicodedata.normalize("NFC", text).strip()


def check_names(names: Sequence[str], file: Path) -> tuple[str, ...]:
    """Names of classes, each in one form.

    Raises: DistilError if there are none, one is empty, or one is given twice.
    """
    found = [class_name(name) for name in names]
    if not found:
        raise DistilError(f"{file} names no class: give one at least.")
    if "" in found:
        raise DistilError(f"{file}: the name of class {found.index('')} is empty: give it one.")
    if repeated := next((name for name in found if found.count(name) > 1), None):
        raise DistilError(f"{file}: class name {repeated!r} is given twice: names must differ.")
    return tuple(found)


def inside(root: Path, text: str, base: Path | None = None) -> Path | None:
    """The path that a text in a file means, seen from `base` (root if None); None if it leads out of `root`.

    Links in the folder itself are the user's and count as what they stand for.

    Raises: DistilError if no file can have this name.
    """
    if "\0" in text or any(len(os.fsencode(part)) > LONGEST for part in text.split("/")):
        raise DistilError(f"no file can be called {text[:60]!r}{'...' if len(text) > 60 else ''}: mend the name.")
    top = Path(os.path.abspath(root))
    path = Path(os.path.normpath(Path(os.path.abspath(base or root)) / text))
    real = Path(os.path.realpath(top))
    if path.is_relative_to(top):
        return path
    return top / path.relative_to(real) if path.is_relative_to(real) else None


def check_file_name(folder: Path, name: str, file: Path) -> None:
    """Raises: DistilError if a name of a picture is absolute or leads out of its folder, or cannot be a name."""
    if PLAIN.fullmatch(name) and ".." not in name and len(name) < LONGEST / 4:
        return  # most names, at once
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match(r"[A-Za-z]:/", plain) or "://" in plain:
        raise DistilError(
            f"{file}: the file name {printable(name)!r} is absolute: write it as seen from the folder of the images, "
            f"{folder}."
        )
    try:
        path = inside(folder, plain)
    except DistilError as error:
        raise DistilError(f"{file}: {error}") from error
    if path is None:
        raise DistilError(
            f"{file}: the file name {printable(name)!r} leads out of the folder of the images, {folder}: put the image "
            "there and write its name as seen from that folder."
        )


class PresentFiles:
    """The files under folders as they are spelt there; a name may differ in case, %20 or Unicode form."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._listed: dict[Path, tuple[set[str], dict[str, list[str]]]] = {}

    def find(self, path: Path) -> Path | None:
        """The file that a path means, or None if it is not there. Another spelling is noted."""
        exact, folded = self._names(path.parent)
        if path.name in exact:
            return path
        close = folded.get(_folded(path.name), [])
        if len(close) != 1:
            return None
        self._findings.tally(
            "file name{s} spelt otherwise than on disk",
            f"{path.name} is {close[0]}",
            "the one file whose name differs in case, %20 or Unicode form alone is read",
        )
        return path.parent / close[0]

    def _names(self, folder: Path) -> tuple[set[str], dict[str, list[str]]]:
        if folder not in self._listed:
            exact = set(os.listdir(folder)) if folder.is_dir() else set()
            folded: dict[str, list[str]] = {}
            for name in exact:
                folded.setdefault(_folded(name), []).append(name)
            self._listed[folder] = exact, folded
        return self._listed[folder]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name)).casefold()
