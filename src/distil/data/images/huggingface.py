"""Datasets of the Hugging Face hub, or saved by its `datasets` package, with an image and a label column."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distil.data.catalog import MEMORY
from distil.data.images.folder_layout import NEITHER, VALIDATION_UNUSED
from distil.data.images.image_fields import composed
from distil.data.images.image_set import Found, Source, source_from_tensors
from distil.data.images.lazy_images import Contents
from distil.data.images.reading import read_images
from distil.data.inventory import LeftOut
from distil.data.paths import expanded, shown
from distil.data.splits import SplitWord, split_word
from distil.errors import DistilError

ROWS_AT_ONCE = 256
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")


def huggingface_source(
    name: str, *, size: int | None = None, download: bool = False, seed: int = 0, memory: float = MEMORY
) -> Source:
    """The dataset NAME or NAME:CONFIG of the hub, or a folder written by its save_to_disk.

    The image column is the one of type Image, the label column one of type ClassLabel, or one named label that holds
    integers or strings. The test split is test, unless it has no labels, else validation; else 20% of each class is
    held out by `seed`. Splits may also be called training, val, dev and so on (`splits.split_word`).

    name: a path if it begins with /, . or ~, or is a folder that save_to_disk wrote.
    size: the central square of each image is resized to size x size; None needs images of one size.
    memory: gigabytes; images that would take more when decoded stay where they are (see `reading.read_images`).
    download: allow the network. Without it only what the hub's cache already holds is read. Code from a dataset's
        repository is never run.

    Raises: DistilError if the package or the dataset is missing, no column fits, a label is missing, or as folders do.
    """
    datasets = _import_datasets()
    splits = _load(datasets, name, download)
    train_name = _split_named(splits, "train", name)
    if not train_name:
        raise DistilError(f"hf:{name} has no split 'train': it has {', '.join(map(repr, splits)) or 'none'}.")
    train = splits[train_name]
    image_column, label_column = _image_column(datasets, train, name), _label_column(datasets, train, name)
    values, classes = _classes(datasets, train, label_column)
    held_name, left_out = _held_split(splits, train_name, label_column, name)
    parts = [(split, splits[split]) for split in (train_name, held_name) if split]
    labels = [_labels(part, label_column, values, f"hf:{name} {split}") for split, part in parts]
    count = sum(map(len, labels))
    if not len(labels[0]):
        raise DistilError(f"hf:{name} has no images in its split {train_name!r}.")
    read = read_images(_encoded(datasets, parts, image_column, name), count, len(labels[0]), size, memory)
    note = f"the test split is the split {held_name!r}" if held_name and held_name != "test" else ""
    origins = f"split {train_name!r}", f"split {held_name!r}" if held_name else ""
    found = Found("Hugging Face dataset", origins, read.sizes, left_out, read.notes)
    held = None if read.test is None else (read.test, labels[1])
    return source_from_tensors(
        (read.train, labels[0]), held, classes, name=shown(f"hf:{name}"), seed=seed, note=note, found=found
    )


def _split_named(splits: dict[str, Any], word: SplitWord, name: str) -> str:
    """The one split that a word stands for, the plain word before others; "" if there is none."""
    plain = {"train": "train", "test": "test", "val": "validation"}[word]
    found = [split for split in splits if split_word(split) == word]
    if plain in found or not found:
        return plain if found else ""
    if len(found) > 1:
        raise DistilError(f"hf:{name} has more than one {word} split, {' and '.join(map(repr, found))}: keep one.")
    return found[0]


def _held_split(
    splits: dict[str, Any], train_name: str, label_column: str, name: str
) -> tuple[str, tuple[LeftOut, ...]]:
    """The split to test on, "" if there is none, and those that are not used."""
    test, validation = _split_named(splits, "test", name), _split_named(splits, "val", name)
    unlabeled = test and _has_no_labels(splits[test], label_column)
    held = validation if not test or unlabeled else test
    reasons = {test: "its images have no labels"} if unlabeled else {validation: VALIDATION_UNUSED} if test else {}
    rest = [split for split in splits if split not in (train_name, held)]
    return held, tuple(
        LeftOut(f"images of the split {split!r}", len(splits[split]), reasons.get(split, NEITHER)) for split in rest
    )


def _has_no_labels(part: Any, column: str) -> bool:
    return column not in part.features or all(value is None or value == -1 for value in _column(part, column))


def _import_datasets() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DistilError(
            "hf: sources need the package `datasets`, which is not installed: pip install 'distil[huggingface]'"
        ) from error
    return datasets


def _load(datasets: Any, name: str, download: bool) -> dict[str, Any]:
    path = expanded(name)
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    if not saved and name.startswith(("/", ".", "~")):
        raise DistilError(
            f"{path} is not a dataset on disk: expected a folder written by save_to_disk of the package `datasets`. "
            "For a folder of image files leave out hf:."
        )
    try:
        with warnings.catch_warnings(), contextlib.nullcontext() if download and not saved else _offline(datasets):
            warnings.simplefilter("ignore")
            loaded = datasets.load_from_disk(str(path)) if saved else _load_from_hub(datasets, name, download)
    except Exception as error:
        remedy = "Write the folder again with save_to_disk." if saved else "Check the name and the connection."
        if not saved and not download:
            remedy = "{download=True} fetches it, if it is not in the local cache yet."
        raise DistilError(
            f"cannot load hf:{name}: {str(error) or type(error).__name__}. {remedy}", field="download"
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _load_from_hub(datasets: Any, name: str, download: bool) -> Any:
    repository, _, configuration = name.partition(":")
    options: dict[str, Any] = {"download_config": datasets.DownloadConfig(local_files_only=not download)}
    if "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters:
        options["trust_remote_code"] = False  # before datasets 4 the default may ask, and 4 has no such parameter
    return datasets.load_dataset(repository, configuration or None, **options)


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """What HF_HUB_OFFLINE=1 does, which the packages read at import only, for the time of the block."""
    import huggingface_hub.constants  # pyright: ignore[reportMissingImports]

    places: tuple[Any, ...] = (huggingface_hub.constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _image_column(datasets: Any, dataset: Any, name: str) -> str:
    found = [column for column, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    if len(found) != 1:
        raise DistilError(
            f"hf:{name} needs one column of type Image, and has {len(found)} among {', '.join(dataset.features)}."
        )
    return found[0]


def _label_column(datasets: Any, dataset: Any, name: str) -> str:
    features = dataset.features
    labels = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    named = [column for column in LABEL_COLUMNS if column in features]
    found = labels if len(labels) == 1 else [column for column in named if column in labels or not labels]
    if not found or (found[0] not in labels and not _is_plain(features[found[0]])):
        columns = ", ".join(f"{column} ({feature})" for column, feature in features.items())
        raise DistilError(
            f"hf:{name} needs one column of type ClassLabel, or one named {', '.join(LABEL_COLUMNS)} "
            f"that holds integers or strings; it has {columns}."
        )
    return found[0]


def _is_plain(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).rstrip("0123456789") in ("int", "uint", "bool", "string", "large_string")


def _column(dataset: Any, column: str) -> list[Any]:
    return list(dataset.select_columns([column])[:][column])


def _classes(datasets: Any, train: Any, column: str) -> tuple[list[Any], list[str]]:
    """Label values in the order of their classes, and the names of the classes."""
    feature = train.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(range(feature.num_classes)), list(feature.names)
    values = sorted({_value(value) for value in _column(train, column) if value is not None})
    return values, [str(value) for value in values]


def _value(label: Any) -> Any:
    return composed(label) if isinstance(label, str) else label


def _labels(dataset: Any, column: str, values: list[Any], what: str) -> torch.Tensor:
    index = {value: label for label, value in enumerate(values)}
    labels = np.empty(len(dataset), dtype=np.int64)
    for row, value in enumerate(map(_value, _column(dataset, column))):
        if value not in index:
            raise DistilError(
                f"{what}: row {row} has label {value!r}, which is no class of the training split: "
                "distil needs a known label on every image."
            )
        labels[row] = index[value]
    return torch.from_numpy(labels)


def _encoded(datasets: Any, parts: list[tuple[str, Any]], column: str, name: str) -> Contents:
    """Name and encoded content of the images at some positions, the rows of all parts one after another."""
    undecoded = [part.select_columns([column]).cast_column(column, datasets.Image(decode=False)) for _, part in parts]

    def contents(positions: Sequence[int]) -> Iterator[tuple[str, Path | bytes]]:
        for start in range(0, len(positions), ROWS_AT_ONCE):
            some = positions[start : start + ROWS_AT_ONCE]
            found: dict[int, Any] = {}
            first = 0
            for part in undecoded:
                inside = [position for position in some if first <= position < first + len(part)]
                rows = part[[position - first for position in inside]][column] if inside else []
                found |= dict(zip(inside, rows, strict=True))
                first += len(part)
            for position in some:
                yield encoded(position, found[position])

    def encoded(position: int, picture: Any) -> tuple[str, Path | bytes]:
        split, row = parts[0][0], position
        if position >= len(undecoded[0]):
            split, row = parts[1][0], position - len(undecoded[0])
        if picture is None or (picture["bytes"] is None and not picture["path"]):
            raise DistilError(f"hf:{name} {split}: row {row} has no image. Drop that row.")
        content = picture["bytes"] if picture["bytes"] is not None else Path(picture["path"])
        return f"hf:{name} {split} row {row}", content

    return contents
