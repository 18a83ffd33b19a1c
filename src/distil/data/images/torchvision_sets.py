"""The named sets that torchvision reads, as it lays them out under a root folder."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from jaxtyping import Int, UInt8
from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity

from distil.data.arrays import resize_images
from distil.data.catalog import CATALOG, NamedSet
from distil.data.images.image_set import Found, Source, source_from_tensors
from distil.data.paths import expanded, shown
from distil.errors import DistilError

Split = tuple[UInt8[Tensor, "n c h w"], Int[Tensor, " n"]]


def default_root() -> Path:
    """$DISTIL_DATA, or ~/.cache/distil where that is not set."""
    return expanded(os.environ.get("DISTIL_DATA") or Path.home() / ".cache" / "distil")


def torchvision_source(
    key: str, *, root: Path | None = None, size: int | None = None, download: bool = False
) -> Source:
    """A set of the catalog whose origin is torchvision, both splits, with its published mean and std.

    root: the folder that torchvision calls root; default_root() if None. Layout below it: MNIST/raw and
        FashionMNIST/raw (idx files), cifar-10-batches-py, cifar-100-python; the .mat files of SVHN in SVHN or in root.
    size: resize to size x size; None keeps 28 x 28 or 32 x 32.
    download: fetch what is missing, with torchvision's progress bar. Without it nothing touches the network.

    The CIFAR batches are pickles, read by torchvision. A pickle can run any code, so every file must have the MD5 of
    the official one before it is opened; a modified file is refused. The SVHN files are checked alike. The idx files of
    MNIST hold plain numbers and are read without a checksum.

    Raises: DistilError if the files are missing, are not the official ones, cannot be read or cannot be fetched.
    """
    root = expanded(root or default_root())
    named = CATALOG[key]
    dataset: Any = getattr(torchvision.datasets, named.dataset)
    if issubclass(dataset, torchvision.datasets.MNIST):
        train, test, classes = _read_mnist(named, dataset, root, download)
    elif issubclass(dataset, torchvision.datasets.CIFAR10):
        train, test, classes = _read_cifar(named, dataset, root, download)
    else:
        train, test, classes = _read_svhn(named, dataset, root, download)
    stored = train[0].shape[2], train[0].shape[3]
    found = Found("torchvision", (shown(root), shown(root)), stored)
    if size is not None:
        train, test = (resize_images(train[0], size), train[1]), (resize_images(test[0], size), test[1])
    return source_from_tensors(train, test, classes, name=key, key=key, statistics=named.statistics, found=found)


def _read_mnist(named: NamedSet, dataset: Any, root: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    raw = root / dataset.__name__ / "raw"
    files = [raw / f"{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1")]
    files += [raw / f"{part}-ubyte" for part in ("t10k-images-idx3", "t10k-labels-idx1")]
    if download and not all(file.is_file() for file in files):
        _fetch(named.key, root, lambda: dataset(str(root), download=True))
    _require(named.key, root, files)
    try:
        arrays = [read_label_file(str(file)) if "labels" in file.name else read_image_file(str(file)) for file in files]
    except Exception as error:
        raise _unreadable(named.key, raw, error) from error
    train, test = (arrays[0].unsqueeze(1), arrays[1]), (arrays[2].unsqueeze(1), arrays[3])
    return train, test, named.classes or tuple(dataset.classes)


def _read_cifar(named: NamedSet, dataset: Any, root: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    folder = root / dataset.base_folder
    checksums = {folder / name: md5 for name, md5 in dataset.train_list + dataset.test_list}
    checksums[folder / dataset.meta["filename"]] = dataset.meta["md5"]
    if download and not all(check_integrity(str(file), md5) for file, md5 in checksums.items()):
        _fetch(named.key, root, lambda: dataset(str(root), download=True))
    _require(named.key, root, list(checksums))
    _require_official(named.key, checksums)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of the age of the official pickles
            splits = [dataset(str(root), train=train) for train in (True, False)]
        tensors = [
            (torch.from_numpy(np.ascontiguousarray(split.data.transpose(0, 3, 1, 2))), torch.tensor(split.targets))
            for split in splits
        ]
    except Exception as error:
        raise _unreadable(named.key, folder, error) from error
    return tensors[0], tensors[1], tuple(splits[0].classes)


def _read_svhn(named: NamedSet, dataset: Any, root: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    official = {split: dataset.split_list[split][1:] for split in ("train", "test")}
    here = all((root / name).is_file() for name, _ in official.values())
    folder = root if here else root / named.dataset
    checksums = {folder / name: md5 for name, md5 in official.values()}
    if download and not all(check_integrity(str(file), md5) for file, md5 in checksums.items()):
        for split in official:
            _fetch(named.key, folder, lambda split=split: dataset(str(folder), split, download=True))
    _require(named.key, root, list(checksums))
    _require_official(named.key, checksums)
    try:
        splits = [dataset(str(folder), split) for split in official]
        tensors = [
            (torch.from_numpy(np.ascontiguousarray(split.data)), torch.from_numpy(split.labels)) for split in splits
        ]
    except Exception as error:
        raise _unreadable(named.key, folder, error) from error
    return tensors[0], tensors[1], named.classes


def _fetch(key: str, root: Path, download: Callable[[], object]) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        download()
    except Exception as error:
        raise DistilError(
            f"cannot download {key} to {root}: {error}. Check the connection and the free space, "
            "or copy the files there and leave out {download}.",
            field="download",
        ) from error


def _require(key: str, root: Path, files: list[Path]) -> None:
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DistilError(
            f"{key} is not in {root}: no file {missing[0]}. "
            "{download=True} fetches it there, or {root=DIR} points to the folder that has it.",
            field=("download", "root"),
        )


def _require_official(key: str, checksums: dict[Path, str]) -> None:
    for file, md5 in checksums.items():
        if not check_integrity(str(file), md5):
            raise DistilError(
                f"{file} is not the official file of {key} (its MD5 is not {md5}), so it is not opened. "
                "Delete it and fetch it again with {download=True}.",
                field="download",
            )


def _unreadable(key: str, folder: Path, error: Exception) -> DistilError:
    reason = str(error) or type(error).__name__
    return DistilError(
        f"the files of {key} in {folder} cannot be read: {reason}. Delete them and fetch them again with "
        "{download=True}.",
        field="download",
    )
