import numpy as np
import pytest
from PIL import Image

from distil.errors import DistilError
from distil.sources import open_source

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


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(DistilError, match=f"--size {size}: give the side of the images in pixels"):
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
