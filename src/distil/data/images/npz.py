"""NumPy archives that hold images and labels."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.lib.npyio import NpzFile
from torch import Tensor

from distil.data.arrays import resize_images
from distil.data.catalog import CUSTOM, of_npz
from distil.data.fitting import check_fits, in_bytes
from distil.data.images.folder_layout import VALIDATION_UNUSED
from distil.data.images.image_fields import composed
from distil.data.images.image_set import Found, Source, source_from_tensors
from distil.data.images.npz_files import read_array, read_header
from distil.data.inventory import LeftOut
from distil.data.paths import expanded, shown
from distil.data.splits import SplitWord, split_word
from distil.data.value_ranges import to_bytes
from distil.errors import DistilError

IMAGE_NAMES = ("x_{}", "{}_images", "images_{}", "{}_x")
LABEL_NAMES = ("y_{}", "{}_labels", "labels_{}", "{}_y")

FEWER = "Store fewer images, or uint8; pictures in folders are read one by one, with {size=N}."


def npz_source(path: Path, *, size: int | None = None, seed: int = 0) -> Source:
    """Arrays x_train, y_train and, if there is a test split, x_test, y_test (or train_images, train_labels, ...).

    Images: uint8, or float in [0, 1]; bool and other integers as `value_ranges.to_bytes` says; (n, h, w), (n, h, w, c)
    or (n, c, h, w) with c 1 or 3. Labels: integers or text, (n,) or (n, 1); their sorted values become the classes 0
    to k - 1. Class names are an optional array `classes`, else the lines of a file STEM.classes.txt beside it, else the
    label values. Without a test split, a validation split (x_val, validation_images, ...) is the test split, else 20%
    of each class is held out by `seed`. A file named for a known dataset, with its image shape and number of
    classes, has that dataset's key, mean and std. Nothing is unpickled: object arrays are refused.

    size: the central square of each image is resized to size x size.

    Raises: DistilError if the file is missing, corrupt or does not fit in memory, or an array is missing or not as
        above.
    """
    path = expanded(path)
    where = shown(path)
    if not path.is_file():
        raise DistilError(f"no file at {where}: give an .npz file with the arrays x_train, y_train, x_test, y_test.")
    if not zipfile.is_zipfile(path):
        raise DistilError(f"{where} is not an .npz file, or is cut short: write it with numpy.savez_compressed.")
    arrays, splits, left_out = _read(path)
    images, notes = to_bytes([(f"{where}: {split.images}", _channels_first(arrays, split, where)) for split in splits])
    labels = [_labels(arrays, split, where) for split in splits]
    values, classes = _classes(np.unique(labels[0]), arrays.get("classes"), path)
    indices = [_indices(part, split, values, where) for part, split in zip(labels, splits, strict=True)]
    tensors = [torch.from_numpy(array) for array in images]
    named = of_npz(path.stem.lower())
    if named and (named.shape, named.class_count) != (tuple(tensors[0].shape[1:]), len(values)):
        named = None
    found = Found(
        format="npz",
        origins=(str(splits[0]), str(splits[1]) if len(splits) > 1 else ""),
        sizes=[(part.shape[2], part.shape[3]) for part in tensors for _ in range(len(part))],
        left_out=left_out,
        notes=tuple(note.replace(f"{where}: ", "") for note in notes),
    )
    if size is not None:
        tensors = [resize_images(part, size) for part in tensors]
    return source_from_tensors(
        (tensors[0], indices[0]),
        (tensors[1], indices[1]) if len(splits) > 1 else None,
        classes,
        name=shown(path.name),
        key=named.key if named else CUSTOM,
        statistics=named.statistics if named else None,
        seed=seed,
        note=f"the test split is {splits[1]}" if len(splits) > 1 and splits[1].word == "val" else "",
        found=found,
    )


@dataclass(frozen=True)
class _Split:
    """The names of a split's arrays."""

    word: SplitWord
    images: str
    labels: str

    def __str__(self) -> str:
        return f"{self.images} and {self.labels}"


def _read(path: Path) -> tuple[dict[str, np.ndarray], list[_Split], tuple[LeftOut, ...]]:
    """The arrays that are used, by name; the training split and, if there is one, the test split; and the rest."""
    where, needed = shown(path), 0
    try:
        with np.load(path, allow_pickle=False) as archive:
            splits, validation = _splits(archive.files, where)
            used = [name for split in splits for name in (split.images, split.labels)]
            used += ["classes"] if "classes" in archive.files else []
            headers = {name: read_header(archive, name, where) for name in used}
            needed = sum(header.bytes for header in headers.values())
            needed += sum(headers[split.images].count for split in splits)  # as uint8
            check_fits(needed, f"the arrays of {where} need", FEWER, "size")
            arrays = {name: read_array(archive, name, where) for name in used}
            left_out = _left_out(archive, used, validation, where)
    except MemoryError as error:
        raise DistilError(f"{where} does not fit in memory: it needs {in_bytes(needed)}. {FEWER}") from error
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DistilError(f"cannot read {where}: {error}. Copy or write it again.") from error
    return arrays, splits, left_out


def _splits(names: list[str], where: str) -> tuple[list[_Split], _Split | None]:
    """(training and test split, validation split that is not used)."""
    found = {word: _split(names, word, where) for word in ("train", "test")}
    if found["train"] is None:
        raise DistilError(
            f"{where} has no training split: expected x_train and y_train, found {', '.join(names) or 'no arrays'}."
        )
    if found["test"] is None:
        held = _split(names, "val", where)
        return [found["train"]] + ([held] if held else []), None
    paired = all(_arrays_of(names, patterns, "val") for patterns in (IMAGE_NAMES, LABEL_NAMES))
    return [found["train"], found["test"]], _split(names, "val", where) if paired else None


def _split(names: list[str], word: SplitWord, where: str) -> _Split | None:
    images, labels = (_arrays_of(names, patterns, word) for patterns in (IMAGE_NAMES, LABEL_NAMES))
    for several in (images, labels):
        if len(several) > 1:
            raise DistilError(f"{where} has more than one array for one split: {' and '.join(several)}. Keep one.")
    if not images and not labels:
        return None
    if not images or not labels:
        there = (images or labels)[0]
        raise DistilError(
            f"{where} has {there} but no {_counterpart(there, bool(images))}: found {', '.join(names)}. "
            "Images and labels come in pairs."
        )
    return _Split(word, images[0], labels[0])


def _arrays_of(names: list[str], patterns: tuple[str, ...], word: SplitWord) -> list[str]:
    return [name for name in names if any(_split_in(name.lower(), pattern) == word for pattern in patterns)]


def _counterpart(name: str, is_images: bool) -> str:
    """What the labels of these images, or the images of these labels, are to be called."""
    given, asked = (IMAGE_NAMES, LABEL_NAMES) if is_images else (LABEL_NAMES, IMAGE_NAMES)
    index = next(index for index, pattern in enumerate(given) if _split_in(name.lower(), pattern))
    before, after = given[index].split("{}")
    return asked[index].format(name[len(before) : len(name) - len(after)])


def _split_in(name: str, pattern: str) -> SplitWord | None:
    before, after = pattern.split("{}")
    if not (name.startswith(before) and name.endswith(after)):
        return None
    return split_word(name.removeprefix(before).removesuffix(after))


def _left_out(archive: NpzFile, used: list[str], validation: _Split | None, where: str) -> tuple[LeftOut, ...]:
    rest = [name for name in archive.files if name not in used]
    found = []
    if validation:
        rest = [name for name in rest if name not in (validation.images, validation.labels)]
        try:
            shape = read_header(archive, validation.images, where).shape
            found.append(LeftOut(f"images of {validation}", shape[0] if shape else 0, VALIDATION_UNUSED))
        except DistilError:  # what is not used may be broken
            rest += [validation.images, validation.labels]
    if rest:
        why = "not images and labels of a training, test or validation split"
        found.append(LeftOut("arrays", len(rest), why, tuple(map(shown, rest))))
    return tuple(found)


def _channels_first(arrays: dict[str, np.ndarray], split: _Split, where: str) -> np.ndarray:
    """The images of a split as (n, c, h, w), of any number type."""
    array, what = arrays[split.images], f"{where}: {split.images}"
    count = len(array) if array.ndim else 0
    labels = arrays[split.labels]
    if count == 0 or count != (len(labels) if labels.ndim else 0):
        raise DistilError(
            f"{what} has {count} images but {split.labels} has {len(labels) if labels.ndim else 0} labels: "
            "expected one label an image, and at least one image."
        )
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
    return array


def _labels(arrays: dict[str, np.ndarray], split: _Split, where: str) -> np.ndarray:
    """The labels of a split as integers or composed text, (n,)."""
    labels, what = arrays[split.labels], f"{where}: {split.labels}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind in "US":
        return _text(labels, what)
    if labels.ndim == 1 and labels.dtype.kind in "iub" and (labels.dtype != np.uint64 or labels.max() < 1 << 63):
        return labels.astype(np.int64)
    remedy = "Store class numbers or names."
    if labels.ndim == 2 and labels.dtype.kind in "iubf":
        remedy = "Use y.argmax(1) if it is one-hot."
    elif labels.ndim == 1 and labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
        remedy = "Use y.astype('int64')."
    raise DistilError(
        f"{what} must be one integer or one name an image, not {labels.dtype} of shape {labels.shape}. {remedy}"
    )


def _text(array: np.ndarray, what: str) -> np.ndarray:
    try:
        decoded = [name.decode() if isinstance(name, bytes) else name for name in array.tolist()]
    except UnicodeDecodeError as error:
        raise DistilError(f"{what} holds bytes that are no UTF-8 text: {error}. Store strings, dtype 'U'.") from error
    return np.array([composed(name) for name in decoded], dtype=np.str_)


def _indices(labels: np.ndarray, split: _Split, values: np.ndarray, where: str) -> Int[Tensor, " n"]:
    """The place of each label among the values of the classes."""
    if (labels.dtype.kind == "U") != (values.dtype.kind == "U"):
        raise DistilError(f"{where}: the labels of one split are text, those of the other numbers ({split.labels}).")
    unknown = np.setdiff1d(labels, values)
    if len(unknown):
        raise DistilError(
            f"{where}: the test split has label {unknown[0]}, which no training image has: "
            "both splits need the same classes."
        )
    order = np.argsort(values)
    return torch.from_numpy(order[np.searchsorted(values, labels, sorter=order)].astype(np.int64))


def _classes(values: np.ndarray, classes: np.ndarray | None, path: Path) -> tuple[np.ndarray, list[str]]:
    """The label values in the order of their classes, and the names of the classes."""
    given = _given_names(classes, path)
    if given is None:
        return values, [str(value) for value in values]
    names, what = given
    if len(names) != len(values):
        raise DistilError(
            f"{shown(path)}: {what} names {len(names)} classes, but the training labels have {len(values)} values "
            f"({values[0]} to {values[-1]}): give one name a value, in ascending order."
        )
    if values.dtype.kind == "U" and set(names) & set(values.tolist()):
        if set(names) != set(values.tolist()):
            odd = sorted(set(names) - set(values.tolist()))[0]
            raise DistilError(f"{shown(path)}: {what} names {odd!r}, which no training label is. Use the same names.")
        return np.array(names), names
    return values, names


def _given_names(classes: np.ndarray | None, path: Path) -> tuple[list[str], str] | None:
    """Class names and where they are from: the array classes or a file beside the archive; None if there are none."""
    if classes is not None:
        if classes.ndim != 1 or classes.dtype.kind not in "US":
            raise DistilError(
                f"{shown(path)}: the array classes must be a list of strings, not {classes.dtype} of shape "
                f"{classes.shape}."
            )
        return _text(classes, f"{shown(path)}: classes").tolist(), "the array classes"
    beside = path.with_name(f"{path.stem}.classes.txt")
    if not beside.is_file():
        return None
    try:
        lines = beside.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DistilError(
            f"cannot read the class names in {shown(beside)}: {error}. Mend or remove the file."
        ) from error
    return [composed(line.strip()) for line in lines if line.strip()], shown(beside)
