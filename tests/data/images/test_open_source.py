from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distil.data.images.opener import open_source
from distil.errors import DistilError

ACCEPTED = (
    "A source is one of digits, mnist, fashionmnist, svhn, cifar10, cifar100, a folder with a folder of images for "
    "each class, a FILE.npz, or hf:NAME."
)


@pytest.mark.parametrize(
    ("spec", "close"),
    [("fashionminst", "fashionmnist"), ("CIFAR-10", "cifar10"), ("digit", "digits"), ("Fashion_MNIST", "fashionmnist")],
)
def test_a_misspelt_name_gets_a_suggestion(spec, close):
    with pytest.raises(DistilError) as caught:
        open_source(spec)
    assert str(caught.value) == f"unknown source {spec!r}. Did you mean {close}? {ACCEPTED}"


@pytest.mark.parametrize("spec", ["", "zebra"])
def test_an_unknown_name_says_what_is_accepted(spec):
    with pytest.raises(DistilError) as caught:
        open_source(spec)
    assert str(caught.value) == f"unknown source {spec!r}. {ACCEPTED}"


def test_a_path_to_nothing_and_a_path_to_another_file(tmp_path):
    with pytest.raises(DistilError) as caught:
        open_source(str(tmp_path / "none"))
    assert str(caught.value) == f"there is nothing at {tmp_path / 'none'}. {ACCEPTED}"
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(DistilError) as caught:
        open_source(str(tmp_path / "images.zip"))
    assert str(caught.value) == f"{tmp_path / 'images.zip'} is a file but not an .npz. {ACCEPTED}"


@pytest.mark.parametrize("spec", ["~nouser/images", "~nouser", "hf:~nouser/images", Path("~nouser/images.npz")])
def test_the_home_of_nobody_is_named(spec):
    if str(spec).startswith("hf:"):
        pytest.importorskip("datasets")
    with pytest.raises(DistilError, match=r"there is no home folder for ~nouser. Write the path in full"):
        open_source(spec)


def test_a_root_in_the_home_of_nobody_is_named(monkeypatch):
    with pytest.raises(DistilError, match="no home folder for ~nouser"):
        open_source("mnist", root="~nouser/data")
    monkeypatch.setenv("DISTIL_DATA", "~nouser/data")
    with pytest.raises(DistilError, match="no home folder for ~nouser"):
        open_source("mnist")


def test_a_root_may_be_text(tmp_path):
    with pytest.raises(DistilError, match=f"mnist is not in {tmp_path}: no file"):
        open_source("mnist", root=str(tmp_path))


@pytest.mark.parametrize("spec", [None, 5, b"digits", ["digits"]])
def test_a_source_is_text_or_a_path(spec):
    with pytest.raises(DistilError, match=r"the source is .*: give its name or path as text or Path"):
        open_source(spec)


def test_a_name_that_is_too_long_is_an_error_of_ours():
    with pytest.raises(DistilError, match=r"cannot look at x+: File name too long"):
        open_source("x" * 300)


def test_a_path_is_no_name_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DistilError, match="there is nothing at digits"):
        open_source(Path("digits"))
    for name in ("digits/a", "digits/b"):
        (tmp_path / name).mkdir(parents=True)
        for index in range(3):
            Image.new("L", (4, 4)).save(tmp_path / name / f"{index}.png")
    assert open_source(Path("digits"), size=np.int64(2)).train.size == (2, 2)  # pyright: ignore
    monkeypatch.chdir(tmp_path / "digits")
    assert open_source(Path()).train.classes == open_source(".").train.classes == ("a", "b")


@pytest.mark.parametrize("size", [8.0, "8", True])
def test_a_size_is_a_whole_number(size):
    with pytest.raises(DistilError, match=f"size is {size!r}: give the side of the images in pixels"):
        open_source("digits", size=size)


def test_a_size_that_does_not_fit_in_memory_is_refused_at_once():
    with pytest.raises(DistilError, match=r"1,797 images of 1000000 x 1000000 pixels need .* TB of memory, and"):
        open_source("digits", size=1_000_000)


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(DistilError, match=f"size is {size!r}: give the side of the images in pixels"):
        open_source("digits", size=size)


def test_a_relative_folder_and_a_folder_named_like_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("digits", "photos.npz"):
        for name in ("a", "b"):
            (tmp_path / folder / name).mkdir(parents=True)
            for index in range(3):
                Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / folder / name / f"{index}.png")
    assert open_source("photos.npz").train.classes == ("a", "b")
    assert open_source("./digits").train.classes == ("a", "b")
    assert open_source("digits").key == "digits"
