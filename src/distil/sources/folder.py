"""A folder of pictures with a folder for each class."""

import os
from pathlib import Path

import torch

from distil.errors import DistilError
from distil.sources.images import Source, source_from_tensors
from distil.sources.pictures import read_pictures, stack_pictures

IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".jp2", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
TEST_FOLDERS = ("test", "val", "valid")


def folder_source(root: Path, *, size: int | None = None, seed: int = 0) -> Source:
    """Pictures in ROOT/train/CLASS and ROOT/test/CLASS (or val, valid), or in ROOT/CLASS alone.

    Classes are the folder names in sorted order; pictures may lie deeper. Names that begin with a dot and files that
    are not pictures are passed over. The set is grey if every picture is, else RGB. Without a test folder, 20% of each
    class is held out by `seed`, as the note says.

    size: the central square of each picture is resized to size x size; None needs pictures of one size.

    Raises: DistilError if the folder is missing, has no class folders, a class has no pictures, there is one class
        only, train and test have different classes, a picture cannot be read, or sizes differ.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise DistilError(f"no folder at {root}: give a folder that holds a folder of images for each class.")
    name = root.resolve().name or str(root)
    train_root, test_root = _split_folders(root)
    train = _pictures_by_class(train_root)
    test = _pictures_by_class(test_root) if test_root else {}
    if test_root and train.keys() != test.keys():
        raise DistilError(
            f"{train_root} and {test_root} hold different classes: {_difference(train, test, test_root)}. "
            "Both need the same class folders."
        )
    files = [file for split in (train, test) for members in split.values() for file in members]
    pictures = read_pictures(((str(file), file) for file in files), size)
    grey = all(picture.ndim == 2 for picture in pictures)
    train_count = sum(map(len, train.values()))
    train_tensors = stack_pictures(pictures[:train_count], grey=grey), _labels(train)
    test_tensors = (stack_pictures(pictures[train_count:], grey=grey), _labels(test)) if test_root else None
    note = f"the test split is the folder {test_root.name!r}" if test_root and test_root.name != "test" else ""
    return source_from_tensors(train_tensors, test_tensors, list(train), name=name, seed=seed, note=note)


def _split_folders(root: Path) -> tuple[Path, Path | None]:
    """The folders of the class folders: (root, None) unless root has a folder `train` that is not itself a class."""
    train = root / "train"
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if train.is_dir() and (test is not None or _visible_folders(train)):
        return train, test
    return root, None


def _visible_folders(root: Path) -> list[Path]:
    try:
        return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DistilError(f"cannot list {root}: {error.strerror or error}. Make it readable.") from error


def _pictures_by_class(root: Path) -> dict[str, list[Path]]:
    pictures = {folder.name: _pictures(folder) for folder in _visible_folders(root)}
    if not pictures:
        raise DistilError(
            f"{root} has no class folders: expected ROOT/CLASS/*.png, "
            "or ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png."
        )
    empty = [name for name, files in pictures.items() if not files]
    if empty:
        raise DistilError(
            f"the class folder {root / empty[0]} holds no images ({', '.join(IMAGE_SUFFIXES)}): "
            "add some or remove the folder."
        )
    if len(pictures) == 1:
        raise DistilError(
            f"{root} has only one class folder, {next(iter(pictures))!r}: distil needs at least two classes."
        )
    return pictures


def _pictures(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (name for name in files if not name.startswith("."))
        found += [Path(parent, name) for name in visible if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)


def _labels(pictures: dict[str, list[Path]]) -> torch.Tensor:
    return torch.arange(len(pictures)).repeat_interleave(torch.tensor([len(files) for files in pictures.values()]))


def _difference(train: dict[str, list[Path]], test: dict[str, list[Path]], test_root: Path) -> str:
    parts = []
    if missing := sorted(train.keys() - test.keys()):
        parts.append(f"{', '.join(map(repr, missing))} only in train")
    if extra := sorted(test.keys() - train.keys()):
        parts.append(f"{', '.join(map(repr, extra))} only in {test_root.name}")
    return " and ".join(parts)
