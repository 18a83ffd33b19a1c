"""Which folders of a data set are its splits, and which are its classes."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distil.data.images.folder_files import Skipped, loose_pictures, pictures_below, visible_folders
from distil.data.inventory import LeftOut
from distil.data.paths import shown
from distil.data.splits import SplitWord, loose_split_word, split_word
from distil.errors import DistilError

ByWord = dict[SplitWord | None, list[Path]]

EXPECTED = "ROOT/CLASS/*.png, or ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png"

NEITHER = "neither the training nor the test split"
VALIDATION_UNUSED = "there is a test split, and images for validation are held out of the training images"


@dataclass(frozen=True)
class Layout:
    """Where the class folders of each split lie.

    test: None if some of the training images are to be held out. test_named: the folder of `root` that the test split
    is. left_out: the other folders of `root` that hold pictures. notes: what was guessed.
    """

    train: Path
    test: Path | None = None
    test_named: str = ""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def find_layout(root: Path) -> Layout:
    """The splits of a folder, or the folder itself where its folders are classes.

    It is split if all its folders are named as splits (train, Testing, val2017, ...); or if it has a training folder
    with class folders, and either a test or validation folder, or no other folder with pictures. Where there are
    other folders with pictures, the class folders of the two splits must share a name, lest a class that is
    called train be taken for a split. Longer names, such as seg_train, count if two class folders are the same.
    A folder that holds one folder of folders only is that folder.

    Raises: DistilError if two folders are for one split, there is no training split, or one has no class folders.
    """
    top, notes = _unwrapped(root)
    folders = visible_folders(top)
    for word_of, are_splits in ((split_word, _are_splits), (loose_split_word, _look_like_splits)):
        by_word = _by_word(folders, word_of)
        if are_splits(by_word):
            return _split_layout(top, by_word, notes)
    named = [folder.name for folder in folders if split_word(folder.name)]
    if named:
        read = "is read as a class" if len(named) == 1 else "are read as classes"
        notes += (f"{' and '.join(map(shown, named))} {read} like the other folders; name splits train and test",)
    return Layout(top, notes=notes)


def class_name(folder: Path) -> str:
    """The name of a class folder in the composed Unicode form (NFC), which is the same on every system."""
    return unicodedata.normalize("NFC", folder.name)


def _unwrapped(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Down to the first folder that holds more than one folder, or pictures, or a split."""
    inner, seen = folder, set[Path]()
    while inner.resolve() not in seen:  # a link may lead back
        seen.add(inner.resolve())
        folders = visible_folders(inner)
        if len(folders) != 1 or loose_pictures(inner) or split_word(folders[0].name):
            break
        if loose_pictures(folders[0]) or not visible_folders(folders[0]):
            break
        inner = folders[0]
    where = shown(inner.relative_to(folder))
    return inner, () if inner == folder else (f"the class folders were found in {where}",)


def _by_word(folders: list[Path], word_of: Callable[[str], SplitWord | None]) -> ByWord:
    found: ByWord = {"train": [], "test": [], "val": [], None: []}
    for folder in folders:
        found[word_of(folder.name)].append(folder)
    return found


def _are_splits(by_word: ByWord) -> bool:
    train, held, others = by_word["train"], by_word["test"] + by_word["val"], by_word[None]
    if not others:
        return bool(train or held)
    if not _class_names(train):
        return False
    held_classes = _class_names(held)
    if held and (not held_classes or _class_names(train) & held_classes):
        return True
    return not any(_pictures(folder) for folder in others)


def _look_like_splits(by_word: ByWord) -> bool:
    return len(_class_names(by_word["train"]) & _class_names(by_word["test"] + by_word["val"])) >= 2


def _split_layout(root: Path, by_word: ByWord, notes: tuple[str, ...]) -> Layout:
    train, test, val = (_only_one(root, by_word[word]) for word in ("train", "test", "val"))
    if train is None:
        names = " and ".join(repr(shown(folder.name)) for folder in (test, val) if folder)
        raise DistilError(
            f"{shown(root)} has {names} but no folder 'train': expected {EXPECTED}. "
            "To take a fifth of the images for testing, give the one folder that holds the class folders."
        )
    held = val if test is None or (val is not None and not _class_names([test]) and _class_names([val])) else test
    reasons = dict.fromkeys(by_word[None], NEITHER)
    if test is not None and held is val:
        reasons[test] = "it has no class folders"
    elif val is not None and held is test:
        reasons[val] = VALIDATION_UNUSED
    unused = [(folder, len(_pictures(folder)), why) for folder, why in reasons.items()]
    left_out = [LeftOut(f"images of the folder {shown(folder.name)}", count, why) for folder, count, why in unused]
    inner_train, inner_notes = _unwrapped(train)
    inner_held = None if held is None else _unwrapped(held)[0]
    if inner_held is not None and inner_held.resolve() == inner_train.resolve():
        raise DistilError(f"{shown(inner_train)} and {shown(inner_held)} are one folder: the test images must differ.")
    return Layout(
        inner_train,
        inner_held,
        "" if held is None else held.name,
        tuple(part for part in left_out if part.count),
        notes + inner_notes,
    )


def _only_one(root: Path, folders: list[Path]) -> Path | None:
    if len(folders) > 1:
        names = " and ".join(repr(shown(folder.name)) for folder in folders)
        raise DistilError(
            f"{shown(root)} has more than one folder for one split: {names}. Put them into one folder, or move the "
            "ones that are not wanted away."
        )
    return folders[0] if folders else None


def _class_names(splits: list[Path]) -> set[str]:
    return {class_name(folder) for split in splits for folder in visible_folders(_unwrapped(split)[0])}


def _pictures(folder: Path) -> list[Path]:
    return pictures_below(folder, Skipped(folder))
