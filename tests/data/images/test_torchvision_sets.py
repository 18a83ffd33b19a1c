import hashlib
import os
import pickle
import struct

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets

from distil.data.images.opener import open_source
from distil.data.images.torchvision_sets import default_root
from distil.errors import DistilError

RANDOM = np.random.default_rng(0)
TRAIN_LABELS, TEST_LABELS = np.arange(30) % 10, np.arange(20) % 10


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def write_idx(path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root, name: str = "MNIST") -> tuple[np.ndarray, np.ndarray]:
    train, test = pixels(30, 28, 28), pixels(20, 28, 28)
    write_idx(root / name / "raw" / "train-images-idx3-ubyte", train)
    write_idx(root / name / "raw" / "train-labels-idx1-ubyte", TRAIN_LABELS)
    write_idx(root / name / "raw" / "t10k-images-idx3-ubyte", test)
    write_idx(root / name / "raw" / "t10k-labels-idx1-ubyte", TEST_LABELS)
    return train, test


def md5(path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar10(root, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Two small training batches and a test batch, declared official."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    train, test = pixels(30, 3, 32, 32), pixels(20, 3, 32, 32)
    batches = {
        "data_batch_1": (train[:15], TRAIN_LABELS[:15]),
        "data_batch_2": (train[15:], TRAIN_LABELS[15:]),
        "test_batch": (test, TEST_LABELS),
    }
    for name, (images, labels) in batches.items():
        (folder / name).write_bytes(pickle.dumps({"data": images.reshape(len(images), -1), "labels": labels.tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"name {label}" for label in range(10)]}))
    official = torchvision.datasets.CIFAR10
    monkeypatch.setattr(official, "train_list", [[name, md5(folder / name)] for name in list(batches)[:2]])
    monkeypatch.setattr(official, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(official, "meta", official.meta | {"md5": md5(folder / "batches.meta")})
    return train, test


def write_svhn(folder, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays, official = [], {}
    for split, labels in (("train", TRAIN_LABELS), ("test", TEST_LABELS)):
        images = pixels(len(labels), 3, 32, 32)
        path = folder / f"{split}_32x32.mat"
        ten_for_zero = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": ten_for_zero})
        official[split] = ["http://nowhere.invalid/", path.name, md5(path)]
        arrays.append(images)
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", official)
    return arrays[0], arrays[1]


def check(source, train, test) -> None:
    assert np.array_equal(source.train.images.numpy(), train)
    assert np.array_equal(source.test.images.numpy(), test)
    assert source.train.labels.tolist() == TRAIN_LABELS.tolist()
    assert source.test.labels.tolist() == TEST_LABELS.tolist()
    assert source.train.images.is_contiguous()


def test_mnist_is_read_from_its_raw_files(tmp_path):
    train, test = write_mnist(tmp_path)
    source = open_source("mnist", root=tmp_path)
    check(source, train[:, None], test[:, None])
    assert (source.key, source.name, source.note) == ("mnist", "mnist", "")
    assert source.train.classes == tuple("0123456789")
    assert (source.train.mean, source.train.std) == ((0.1307,), (0.3081,))


def test_the_inventory_of_mnist(tmp_path):
    write_mnist(tmp_path)
    assert str(open_source("mnist", root=tmp_path).inventory).splitlines()[:3] == [
        "Read mnist (torchvision): 10 classes",
        f"  train: 30 images of 28 x 28 pixels, from {tmp_path}",
        f"  test: 20 images of 28 x 28 pixels, from {tmp_path}",
    ]


def test_fashionmnist_has_its_own_names_and_statistics(tmp_path):
    train, test = write_mnist(tmp_path, "FashionMNIST")
    source = open_source("fashionmnist", root=tmp_path)
    check(source, train[:, None], test[:, None])
    assert source.train.classes[:2] == ("T-shirt/top", "Trouser")
    assert (source.train.mean, source.train.std) == ((0.2861,), (0.3530,))


def test_cifar10_is_read_from_its_batches(tmp_path, monkeypatch):
    train, test = write_cifar10(tmp_path, monkeypatch)
    source = open_source("cifar10", root=tmp_path)
    check(source, train, test)
    assert source.train.classes[3] == "name 3"
    assert (source.train.mean, source.train.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_cifar100_takes_the_fine_labels(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    images = pixels(200, 3, 32, 32)
    for name, part in (("train", images), ("test", images[:100])):
        fine = (np.arange(len(part)) % 100).tolist()
        batch = {"data": part.reshape(len(part), -1), "fine_labels": fine, "coarse_labels": [0] * len(part)}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"fine {label}" for label in range(100)]}))
    official = torchvision.datasets.CIFAR100
    monkeypatch.setattr(official, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(official, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(official, "meta", official.meta | {"md5": md5(folder / "meta")})
    source = open_source("cifar100", root=tmp_path)
    assert source.train.counts == (2,) * 100
    assert source.train.classes[99] == "fine 99"
    assert (source.train.mean, source.train.std) == ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))


@pytest.mark.parametrize("folder", ["", "SVHN"])
def test_svhn_is_read_from_the_root_or_its_own_folder(tmp_path, monkeypatch, folder):
    train, test = write_svhn(tmp_path / folder, monkeypatch)
    source = open_source("svhn", root=tmp_path)
    check(source, train, test)
    assert (source.train.mean, source.train.std) == ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def test_size_resizes_and_keeps_the_statistics(tmp_path):
    write_mnist(tmp_path)
    source = open_source("mnist", root=tmp_path, size=14)
    assert source.test is not None
    assert (source.train.size, source.test.size, source.train.mean) == ((14, 14), (14, 14), (0.1307,))


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashionmnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
        ("svhn", "SVHN/train_32x32.mat"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
    ],
)
def test_a_missing_dataset_says_where_it_was_looked_for(tmp_path, key, file):
    with pytest.raises(DistilError) as caught:
        open_source(key, root=tmp_path)
    assert str(caught.value) == (
        f"{key} is not in {tmp_path}: no file {tmp_path / file}. "
        "download=True fetches it there, or root=DIR points to the folder that has it."
    )
    assert not list(tmp_path.iterdir())


def test_the_root_defaults_to_the_environment_and_then_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTIL_DATA", str(tmp_path))
    assert default_root() == tmp_path
    train, test = write_mnist(tmp_path)
    check(open_source("mnist"), train[:, None], test[:, None])
    monkeypatch.delenv("DISTIL_DATA")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(default_root()) == "/home/somebody/.cache/distil"


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("content", [b"", b"not an idx file", struct.pack(">BBBB3I", 0, 0, 8, 3, 9, 28, 28) + b"cut"])
def test_a_corrupt_mnist_file_is_refused(tmp_path, file, content):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / file).write_bytes(content)
    with pytest.raises(
        DistilError,
        match=r"the files of mnist in .*raw cannot be read: .+ Delete them and fetch them again with download=True",
    ):
        open_source("mnist", root=tmp_path)


def test_a_legacy_pickle_of_mnist_is_not_opened(tmp_path):
    train, test = write_mnist(tmp_path)
    (tmp_path / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        (tmp_path / "MNIST" / "processed" / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    check(open_source("mnist", root=tmp_path), train[:, None], test[:, None])
    assert not (tmp_path / "sprung").exists()


class Trap:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_modified_cifar_file_is_never_unpickled(tmp_path, monkeypatch, file):
    write_cifar10(tmp_path, monkeypatch)
    trap = tmp_path / "cifar-10-batches-py" / file
    trap.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DistilError, match=f"{file} is not the official file of cifar10 .*MD5.* is not opened"):
        open_source("cifar10", root=tmp_path)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap.read_bytes())
    assert (tmp_path / "sprung").exists(), "the trap itself works"


def test_an_official_file_with_wrong_content_is_refused(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.write_bytes(pickle.dumps({"nothing": 0}))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [["test_batch", md5(batch)]])
    with pytest.raises(DistilError, match=r"the files of cifar10 in .* cannot be read: 'data'"):
        open_source("cifar10", root=tmp_path)


def test_a_modified_svhn_file_is_refused(tmp_path, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    with open(tmp_path / "test_32x32.mat", "ab") as file:
        file.write(b"more")
    with pytest.raises(DistilError, match=r"test_32x32.mat is not the official file of svhn"):
        open_source("svhn", root=tmp_path)


@pytest.mark.parametrize("key", ["mnist", "fashionmnist", "svhn", "cifar10", "cifar100"])
def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch, key):
    def refuse(*arguments, **options):
        raise OSError("no route to host")

    for name in ("urllib.request.urlopen", "torchvision.datasets.utils._urlretrieve"):
        monkeypatch.setattr(name, refuse)
    with pytest.raises(DistilError, match=f"cannot download {key} to .*: (.|\n)*no route to host(.|\n)*Check the conn"):
        open_source(key, root=tmp_path, download=True)


def test_what_is_there_is_not_downloaded_again(tmp_path, monkeypatch):
    train, test = write_mnist(tmp_path)
    check(open_source("mnist", root=tmp_path, download=True), train[:, None], test[:, None])
    train, test = write_cifar10(tmp_path, monkeypatch)
    check(open_source("cifar10", root=tmp_path, download=True), train, test)
    train, test = write_svhn(tmp_path, monkeypatch)
    check(open_source("svhn", root=tmp_path, download=True), train, test)


def test_a_download_puts_the_files_in_place(tmp_path, monkeypatch):
    write_mnist(tmp_path / "elsewhere")

    def copy(self):
        os.rename(tmp_path / "elsewhere" / "MNIST", tmp_path / "MNIST")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", copy)
    assert torch.is_tensor(open_source("mnist", root=tmp_path, download=True).train.images)
