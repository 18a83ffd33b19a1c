"""A folder of pictures with a folder for each class."""

import os
from pathlib import Path

import torch

from distil.data.catalog import MEMORY
from distil.data.images.folder_files import (
    IMAGE_SUFFIXES,
    Skipped,
    loose_pictures,
    pictures_below,
    visible_folders,
)
from distil.data.images.folder_layout import EXPECTED, class_name, find_layout
from distil.data.images.image_set import Found, Source, source_from_tensors
from distil.data.images.reading import read_images
from distil.data.paths import expanded, shown
from distil.errors import DistilError


def folder_source(root: Path, *, size: int | None = None, seed: int = 0, memory: float = MEMORY) -> Source:
    """Pictures in ROOT/train/CLASS and ROOT/test/CLASS, or in ROOT/CLASS alone.

    The splits may also be called training, testing, val, validation, dev, train2017 and so on, in any case
    (`folder_layout.find_layout`); a validation folder is the test split where there is no test folder. Classes are the
    folder names, composed (Unicode NFC), in sorted order; pictures may lie deeper, links are followed. Names that
    begin with a dot and files that are not pictures are passed over; the inventory counts them. The set is grey if
    every picture is, else RGB. Without a test split, 20% of each class is held out by `seed`, as the note says.

    size: the central square of each picture is resized to size x size; None needs pictures of one size.
    memory: gigabytes; pictures that would take more stay in their files (see `reading.read_images`).

    Raises: DistilError if the folder is missing, has no class folders, a class has no pictures, there is one class
        only, train and test have different classes, a picture cannot be read, sizes differ, or the splits are unclear.
    """
    root = expanded(root)
    if not root.is_dir():
        raise DistilError(f"no folder at {shown(root)}: give a folder that holds a folder of images for each class.")
    name = shown(root.resolve().name or root)
    layout = find_layout(root)
    skipped = Skipped(root)
    train = _pictures_by_class(layout.train, skipped)
    test = _pictures_by_class(layout.test, skipped) if layout.test else {}
    if layout.test and train.keys() != test.keys():
        raise DistilError(
            f"{shown(layout.train)} and {shown(layout.test)} hold different classes: "
            f"{_difference(train, test, layout.test)}. Both need the same class folders."
        )
    files = [file for split in (train, test) for members in split.values() for file in members]
    train_count = sum(map(len, train.values()))
    read = read_images(lambda rows: ((shown(files[i]), files[i]) for i in rows), len(files), train_count, size, memory)
    found = Found(
        format="folder of images",
        origins=(_below(layout.train, root), _below(layout.test, root) if layout.test else ""),
        sizes=read.sizes,
        left_out=(*skipped.left_out(), *layout.left_out),
        notes=(*layout.notes, *read.notes),
    )
    usual = not layout.test_named or layout.test_named == "test"
    note = "" if usual else f"the test split is the folder {shown(layout.test_named)!r}"
    held = None if read.test is None else (read.test, _labels(test))
    train_split = read.train, _labels(train)
    return source_from_tensors(train_split, held, list(train), name=name, seed=seed, note=note, found=found)


def _below(folder: Path, root: Path) -> str:
    """A folder as seen from the one that holds the root."""
    return shown(os.path.normpath(Path(root.resolve().name, folder.relative_to(root))))


def _pictures_by_class(root: Path, skipped: Skipped) -> dict[str, list[Path]]:
    folders = visible_folders(root)
    if not folders:
        raise DistilError(f"{shown(root)} has no class folders: expected {EXPECTED}.")
    skipped.loose += loose_pictures(root)
    pictures: dict[str, list[Path]] = {}
    for folder in sorted(folders, key=class_name):
        name, unknown = class_name(folder), len(skipped.unknown)
        if name in pictures:
            raise DistilError(
                f"{shown(root)} has two folders {name!r}, whose names are the same text in two Unicode forms: "
                "put their pictures into one."
            )
        pictures[name] = pictures_below(folder, skipped)
        if not pictures[name]:
            other = skipped.unknown[unknown:]
            files = "1 file" if len(other) == 1 else f"{len(other)} files"
            hint = f" It holds {files} of unknown type, such as {shown(other[0].name)}." if other else ""
            raise DistilError(
                f"the class folder {shown(folder)} holds no images ({', '.join(IMAGE_SUFFIXES)}): "
                f"add some or remove the folder.{hint}"
            )
    if len(pictures) == 1:
        raise DistilError(
            f"{shown(root)} has only one class folder, {next(iter(pictures))!r}: distil needs at least two classes."
        )
    return pictures


def _labels(pictures: dict[str, list[Path]]) -> torch.Tensor:
    return torch.arange(len(pictures)).repeat_interleave(torch.tensor([len(files) for files in pictures.values()]))


def _difference(train: dict[str, list[Path]], test: dict[str, list[Path]], test_root: Path) -> str:
    parts = []
    if missing := sorted(train.keys() - test.keys()):
        parts.append(f"{', '.join(map(repr, missing))} only in train")
    if extra := sorted(test.keys() - train.keys()):
        parts.append(f"{', '.join(map(repr, extra))} only in {test_root.name}")
    return " and ".join(parts)
