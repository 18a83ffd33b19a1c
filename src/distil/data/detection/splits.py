"""Which split the names of folders, lists and files of detection data stand for."""

import re
from collections.abc import Iterable
from pathlib import Path

from distil.data import splits
from distil.data.splits import SplitWord
from distil.errors import DistilError

Split = SplitWord

SPLITS: tuple[Split, ...] = ("train", "val", "test")

WORDS: dict[str, Split] = {**splits.WORDS, "trainval": "train", "minival": "val", "testdev": "test"}
"""Those of image sets, and those that VOC and COCO have."""

BESIDE = {"set", "sets", "split", "data", "image", "images", "img", "imgs"}
"""Words that may stand beside the split's in the name of a folder."""


def split_in(name: str) -> Split | None:
    """The first word of a name that names a split: of "instances_val2017" and "TrainSet"; None of "trains"."""
    return next((WORDS[word] for word in _words(name) if word in WORDS), None)


def split_of(name: str) -> Split | None:
    """The split of a name that says nothing else: "Training", "val2017", "test_images"; None of "cat_train",
    and of "train_val", which is VOC's list of trains."""
    words = [word for word in _words(name) if word not in BESIDE]
    if words == ["test", "dev"]:  # COCO's
        return "test"
    return WORDS.get(words[0]) if len(words) == 1 else None


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name, without those whose name begins with a dot.

    Raises: DistilError if it cannot be listed.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DistilError(f"cannot list {folder}: {error.strerror or error}. Make it readable.") from error


def folder_named(parent: Path, *names: str) -> Path | None:
    """The folder in `parent` with one of these names, upper and lower case aside; the first name that is there."""
    if not parent.is_dir():
        return None
    present = folders_in(parent)
    for name in names:
        exact = [folder for folder in present if folder.name == name]
        if found := exact or [folder for folder in present if folder.name.lower() == name.lower()]:
            return found[0]
    return None


def by_split(paths: Iterable[Path], what: str) -> dict[Split, Path]:
    """The paths whose names (without ending) stand for a split, by split.

    Raises: DistilError if two stand for the same one.
    """
    found: dict[Split, Path] = {}
    for path in paths:
        split = split_of(path.name if path.is_dir() else path.stem)
        if split is None:
            continue
        if split in found:
            raise DistilError(
                f"there are two {what} for the {split} split, {found[split]} and {path}: keep one of them there."
            )
        found[split] = path
    return {split: found[split] for split in SPLITS if split in found}
