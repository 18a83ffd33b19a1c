"""YOLO's data.yaml: the names of classes, the places of the splits, the number of keypoints."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distil.data.detection.inventory import Findings, named
from distil.data.detection.splits import Split, split_of
from distil.data.detection.values import check_names
from distil.errors import DistilError

LARGEST = 2**20
"""Bytes of a data.yaml; one of ten thousand classes has a fifth of it."""

EXPECTED = "expected names: [cat, dog], or names: and below it one line '- cat' or '0: cat' for each class"

DESCRIBING = ("nc", "names", "path", "kpt_shape", "flip_idx", "kpt_names", "roboflow", "license", "author", "version")
DESCRIBING += ("description", "date", "url", "yaml_file")
"""Keys that need no word: those that are read, and those that change nothing about boxes."""


@dataclass(frozen=True)
class DataYaml:
    """What a data.yaml says.

    names: of the classes; () if it has none. base: the key `path`, "" if missing. places: of each split, the key and
    its values. keypoints: numbers that follow the box in each line (kpt_shape), 0 without keypoints.
    """

    file: Path
    names: tuple[str, ...]
    base: str
    places: dict[Split, tuple[str, tuple[str, ...]]]
    keypoints: int


class _TextLoader(yaml.BaseLoader):
    """Every scalar is the text that is written: `names: [yes, no]` are no booleans, 007 is no number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        if repeated is not None:
            raise yaml.YAMLError(f"the key {repeated!r} is given twice")
        return super().construct_mapping(node, deep=deep)


def find_yaml(root: Path, findings: Findings) -> Path | None:
    """The data.yaml of a folder: it, or else the one .yaml there that has names.

    Raises: DistilError if two have.
    """
    files = sorted(file for file in root.iterdir() if file.suffix.lower() in (".yaml", ".yml") and file.is_file())
    files = [file for file in files if not file.name.startswith(".")]
    chosen = next((file for file in files if file.stem.lower() == "data"), None)
    if chosen is None:
        naming = [file for file in files if re.search(r"^['\"]?names['\"]?\s*:", _content(file), re.MULTILINE)]
        if len(naming) > 1:
            raise DistilError(
                f"{root} has several files with names of classes, {named([file.name for file in naming])}: call the "
                "one that counts data.yaml."
            )
        chosen = naming[0] if naming else files[0] if len(files) == 1 else None
    findings.leave_out("yaml files", [file.name for file in files if file != chosen], "only one is read")
    return chosen


def read_yaml(file: Path, findings: Findings) -> DataYaml:
    """Read a data.yaml. No address in it is followed.

    Raises: DistilError if it cannot be read, or a key that counts is not what it should be.
    """
    content = _parsed(file)
    names = _names(content["names"], file) if "names" in content else ()
    count = content.get("nc", "")
    if names and isinstance(count, str) and count.strip().isdigit() and int(count) != len(names):
        raise DistilError(f"{file}: nc is {count}, but there are {len(names)} names: mend the one that is wrong.")
    base = content.get("path", "")
    if not isinstance(base, str):
        raise DistilError(f"{file}: 'path' must be the name of a folder, not a {_kind(base)}.")
    places: dict[Split, tuple[str, tuple[str, ...]]] = {}
    for key, value in content.items():
        split = split_of(key)
        texts = _texts(value, key, file) if split else ()
        if split is None or not texts:
            continue
        if split in places:
            raise DistilError(
                f"{file}: {places[split][0]!r} and {key!r} both name the {split} split: keep one of them."
            )
        places[split] = key, texts
    unused = [key for key in content if split_of(key) is None and key not in DESCRIBING]
    findings.leave_out(f"keys of {file.name}", unused, "not used; distil fetches nothing")
    return DataYaml(file, names, base.strip(), places, _keypoints(content.get("kpt_shape"), file))


def yaml_names(file: Path) -> list[str]:
    """The key `names` of a data.yaml: a list, or a mapping whose keys count from 0.

    Raises: DistilError if there is no such key, or it is written otherwise.
    """
    content = _parsed(file)
    if "names" not in content:
        raise DistilError(f"{file} has no 'names': {EXPECTED}.")
    return list(_names(content["names"], file))


def _content(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise DistilError(f"{file} is larger than a data.yaml can be: name classes and splits in a smaller one.")
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DistilError(f"cannot read {file}: {error}. Copy or write it again.") from error


def _parsed(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(_content(file), Loader=_TextLoader)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise DistilError(f"{file} is no valid yaml: {_reason(error)}. Mend it, or write it again.") from error
    except RecursionError as error:
        raise DistilError(f"{file} is nested too deeply for a data.yaml: write it again.") from error
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DistilError(f"{file} is a yaml {_kind(content)}, not lines 'key: value': {EXPECTED}.")
    return content


def _reason(error: Exception) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    return " ".join(str(error).split())[:200]


def _names(value: Any, file: Path) -> tuple[str, ...]:
    if isinstance(value, dict):
        if not value or not all(isinstance(key, str) and key.isascii() and key.isdigit() for key in value):
            raise DistilError(f"{file}: cannot read 'names': {EXPECTED}.")
        by_number = {int(key): name for key, name in value.items() if len(key) < 9}
        if sorted(by_number) != list(range(len(value))):
            raise DistilError(f"{file}: the numbers of 'names' must run from 0 to {len(value) - 1}, each once.")
        value = [by_number[number] for number in range(len(value))]
    if not isinstance(value, list):
        raise DistilError(f"{file}: cannot read 'names': {EXPECTED}.")
    for place, name in enumerate(value):
        if not isinstance(name, str):
            raise DistilError(f"{file}: name {place} of 'names' is a {_kind(name)}: {EXPECTED}.")
    return check_names(value, file)


def _texts(value: Any, key: str, file: Path) -> tuple[str, ...]:
    """The folders or lists of a split; () where the key is there but empty."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in values):
        raise DistilError(f"{file}: {key!r} must name a folder, a .txt file or a list of these, not a {_kind(value)}.")
    texts = tuple(text.strip() for text in values)
    return () if texts in (("",), ("~",), ("null",)) else texts


def _keypoints(value: Any, file: Path) -> int:
    if value in (None, "", "~", "null"):
        return 0
    whole = isinstance(value, list) and len(value) == 2 and all(isinstance(x, str) and x.isdigit() for x in value)
    points, numbers = (int(x) for x in value) if whole else (0, 0)
    if not (1 <= points <= 10_000 and numbers in (2, 3)):
        raise DistilError(
            f"{file}: kpt_shape must be the number of keypoints and 2 or 3 numbers for each, as in [17, 3]."
        )
    return points * numbers


def _kind(value: Any) -> str:
    return {dict: "mapping", list: "list", str: "text"}.get(type(value), "value")
