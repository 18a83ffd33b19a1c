"""NumPy archives that hold images and labels."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from distil.errors import DistilError
from distil.sources.arrays import CHUNK, PUBLISHED_STATISTICS, resize_images
from distil.sources.images import Source, source_from_tensors

IMAGE_NAMES = ("x_{}", "X_{}", "{}_images", "images_{}", "{}_x", "{}_X")
LABEL_NAMES = ("y_{}", "Y_{}", "{}_labels", "labels_{}", "{}_y", "{}_Y")

KNOWN_FILES = {
    "mnist": ("mnist", (1, 28, 28), 10),
    "fashionmnist": ("fashionmnist", (1, 28, 28), 10),
    "svhn": ("svhn", (3, 32, 32), 10),
    "svhn_small": ("svhn", (3, 32, 32), 10),
    "cifar10": ("cifar10", (3, 32, 32), 10),
    "cifar100": ("cifar100", (3, 32, 32), 100),
}
"""Name of a file without .npz: the key, the image shape and the number of classes that make it that dataset."""


def npz_source(path: Path, *, size: int | None = None, seed: int = 0) -> Source:
    """Arrays x_train, y_train and, if there is a test split, x_test, y_test (or train_images, train_labels, ...).

    Images: uint8, or float in [0, 1]; (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3. Labels: integers, (n,) or
    (n, 1); their sorted values become the classes 0 to k - 1. Class names are an optional array `classes`, else the
    lines of a file STEM.classes.txt beside it, else the label values. Without a test split, 20% of each class is held
    out by `seed`. A file named for a known dataset, with its image shape and number of
    classes, has that dataset's key, mean and std. Nothing is unpickled: object arrays are refused.

    size: the central square of each image is resized to size x size.

    Raises: DistilError if the file is missing or corrupt, or an array is missing or not as above.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DistilError(f"no file at {path}: give an .npz file with the arrays x_train, y_train, x_test, y_test.")
    if not zipfile.is_zipfile(path):
        raise DistilError(f"{path} is not an .npz file, or is cut short: write it with numpy.savez_compressed.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            train = _read_split(archive, "train", path)
            test = _read_split(archive, "test", path)
            classes = _read_array(archive, "classes", path) if "classes" in archive.files else None
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise DistilError(f"cannot read {path}: {error}. Copy or write it again.") from error
    if train is None:
        raise DistilError(
            f"{path} has no training split: expected x_train and y_train, "
            f"found {', '.join(archive.files) or 'no arrays'}."
        )
    images = _to_images(train[0], f"{path}: {train[2]}")
    values, labels = np.unique(train[1], return_inverse=True)
    stem = path.stem.lower()
    known = stem in KNOWN_FILES and KNOWN_FILES[stem][1:] == (tuple(images.shape[1:]), len(values))
    key = KNOWN_FILES[stem][0] if known else "custom"
    train_tensors = _resized(images, size), torch.from_numpy(labels.reshape(-1).astype(np.int64))
    test_tensors = None
    if test is not None:
        test_labels = _known_labels(test[1], values, path)
        test_tensors = _resized(_to_images(test[0], f"{path}: {test[2]}"), size), torch.from_numpy(test_labels)
    return source_from_tensors(
        train_tensors,
        test_tensors,
        _class_names(classes, values, path),
        name=path.name,
        key=key,
        statistics=PUBLISHED_STATISTICS.get(key),
        seed=seed,
    )


def _read_split(archive, split: str, path: Path) -> tuple[np.ndarray, np.ndarray, str] | None:
    """(images, labels, name of the images' array), or None where the archive has neither."""
    image_name = next((name.format(split) for name in IMAGE_NAMES if name.format(split) in archive.files), None)
    label_name = next((name.format(split) for name in LABEL_NAMES if name.format(split) in archive.files), None)
    if image_name is None and label_name is None:
        return None
    if image_name is None or label_name is None:
        missing = f"x_{split}" if image_name is None else f"y_{split}"
        raise DistilError(
            f"{path} has {image_name or label_name} but no {missing}: found {', '.join(archive.files)}. "
            "Images and labels come in pairs."
        )
    images, labels = _read_array(archive, image_name, path), _read_array(archive, label_name, path)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise DistilError(
            f"{path}: {label_name} must be one integer an image, not {labels.dtype} of shape {labels.shape}: "
            "use y.astype('int64'), or y.argmax(1) if it is one-hot."
        )
    if images.ndim == 0 or len(images) == 0 or len(images) != len(labels):
        raise DistilError(
            f"{path}: {image_name} has {len(images) if images.ndim else 0} images but {label_name} has {len(labels)} "
            "labels: expected one label an image, and at least one image."
        )
    return images, labels.astype(np.int64), image_name


def _read_array(archive, name: str, path: Path) -> np.ndarray:
    try:
        array = archive[name]
    except Exception as error:  # zip, zlib and header errors share no base class
        if "allow_pickle" in str(error):
            raise DistilError(
                f"{path}: {name} is an object array, which only pickle can read, and distil reads no pickles: "
                "store numbers (images of one size; strings as dtype 'U')."
            ) from error
        raise DistilError(f"{path} is corrupt at {name}: {error}. Copy or write it again.") from error
    if not isinstance(array, np.ndarray):
        raise DistilError(f"{path} is corrupt at {name}: it is not an array. Copy or write it again.")
    return array


def _to_images(array: np.ndarray, what: str) -> UInt8[Tensor, "n c h w"]:
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        raise DistilError(
            f"{what} has shape {array.shape}: expected (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels."
        )
    if 0 in array.shape:
        raise DistilError(f"{what} has shape {array.shape}: images need at least one pixel.")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.dtype.kind != "f":
        raise DistilError(f"{what} is {array.dtype}: expected uint8, or float in [0, 1]. Use x.astype('uint8').")
    images = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), CHUNK):
        chunk = array[start : start + CHUNK]
        if not np.isfinite(chunk).all():
            bad = start + int(np.argmin(np.isfinite(chunk).all(axis=(1, 2, 3))))
            raise DistilError(f"{what} has a pixel that is NaN or infinite in image {bad}: mend or drop that image.")
        if chunk.min() < 0 or chunk.max() > 1:
            raise DistilError(
                f"{what} is {array.dtype} and has values from {chunk.min():g} to {chunk.max():g}: "
                "float images must lie in [0, 1]. Undo any normalisation, divide by 255, or store uint8."
            )
        images[start : start + CHUNK] = np.rint(chunk.astype(np.float64) * 255)
    return torch.from_numpy(images)


def _resized(images: UInt8[Tensor, "n c h w"], size: int | None) -> UInt8[Tensor, "n c h2 w2"]:
    return images if size is None else resize_images(images, size)


def _known_labels(labels: np.ndarray, values: np.ndarray, path: Path) -> np.ndarray:
    unknown = np.setdiff1d(labels, values)
    if len(unknown):
        raise DistilError(
            f"{path}: the test split has label {unknown[0]}, which no training image has: "
            "both splits need the same classes."
        )
    return np.searchsorted(values, labels).astype(np.int64)


def _class_names(classes: np.ndarray | None, values: np.ndarray, path: Path) -> list[str]:
    beside = path.with_name(f"{path.stem}.classes.txt")
    if classes is not None:
        if classes.ndim != 1 or classes.dtype.kind != "U":
            raise DistilError(
                f"{path}: the array classes must be a list of strings, not {classes.dtype} of shape {classes.shape}."
            )
        names, where = [str(name) for name in classes], "the array classes"
    elif beside.is_file():
        try:
            lines = beside.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DistilError(f"cannot read the class names in {beside}: {error}. Mend or remove the file.") from error
        names, where = [line.strip() for line in lines if line.strip()], str(beside)
    else:
        return [str(value) for value in values]
    if len(names) != len(values):
        raise DistilError(
            f"{path}: {where} names {len(names)} classes, but the training labels have {len(values)} values "
            f"({values[0]} to {values[-1]}): give one name a value, in ascending order."
        )
    return names
