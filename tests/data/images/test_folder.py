from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distil.data.images.opener import open_source
from distil.errors import DistilError


def write(root: Path, name: str, value: int | tuple[int, int, int] = 0, size: tuple[int, int] = (4, 4)) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(path)
    return path


def write_class(root: Path, name: str, count: int, first_value: int = 0) -> None:
    for index in range(count):
        write(root, f"{name}/{index}.png", first_value + index)


def values(images) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def test_train_and_test_folders(tmp_path):
    write_class(tmp_path / "train", "dog", 3, 10)
    write_class(tmp_path / "train", "cat", 2, 20)
    write_class(tmp_path / "test", "dog", 1, 30)
    write_class(tmp_path / "test", "cat", 2, 40)
    write_class(tmp_path / "val", "cat", 2, 90)
    source = open_source(str(tmp_path))
    assert source.test is not None
    assert source.train.classes == ("cat", "dog")
    assert (values(source.train), source.train.labels.tolist()) == ([20, 21, 10, 11, 12], [0, 0, 1, 1, 1])
    assert (values(source.test), source.test.labels.tolist()) == ([40, 41, 30], [0, 0, 1])
    assert (source.key, source.name, source.note) == ("custom", tmp_path.name, "")
    assert (source.train.channels, source.train.size) == (1, (4, 4))
    mean = np.mean([20, 21, 10, 11, 12]) / 255
    assert source.train.mean == pytest.approx((mean,))
    assert source.test.mean == source.train.mean


@pytest.mark.parametrize("name", ["val", "valid"])
def test_a_validation_folder_stands_in_for_test(tmp_path, name):
    for split in ("train", name):
        write_class(tmp_path / split, "a", 2)
        write_class(tmp_path / split, "b", 2)
    source = open_source(str(tmp_path))
    assert source.test is not None
    assert len(source.test) == 4
    assert source.note == f"the test split is the folder {name!r}"


@pytest.mark.parametrize("below", ["", "train"])
def test_without_a_test_folder_a_fifth_is_held_out_by_the_seed(tmp_path, below):
    write_class(tmp_path / below, "a", 10)
    write_class(tmp_path / below, "b", 20, 100)
    source, again, other = (open_source(str(tmp_path), seed=seed) for seed in (0, 0, 1))
    assert source.test is not None
    assert (source.train.counts, source.test.counts) == ((8, 16), (2, 4))
    assert sorted(values(source.train) + values(source.test)) == [*range(10), *range(100, 120)]
    assert source.note == "no test split given: 20% of each class (6 images) held out with seed 0"
    assert source.train.fingerprint() == again.train.fingerprint() != other.train.fingerprint()


def test_classes_may_be_called_train_and_test(tmp_path):
    write_class(tmp_path, "train", 5)
    write_class(tmp_path, "ship", 5)
    assert open_source(str(tmp_path)).train.classes == ("ship", "train")


def test_hidden_and_other_files_are_passed_over_and_deeper_pictures_found(tmp_path):
    for name in ("a", "b"):
        write_class(tmp_path, name, 4)
        write(tmp_path, f"{name}/deeper/still/9.PNG")
        write(tmp_path, f"{name}/.hidden/1.png")
        write(tmp_path, f"{name}/._1.png")
        (tmp_path / name / "notes.txt").write_text("no picture")
    write_class(tmp_path, ".thumbnails", 3)
    (tmp_path / "readme.md").write_text("no class")
    source = open_source(str(tmp_path))
    assert source.test is not None
    assert source.train.classes == ("a", "b")
    assert len(source.train) + len(source.test) == 10


def test_one_picture_in_color_makes_the_set_color(tmp_path):
    for split in ("train", "test"):
        write_class(tmp_path / split, "a", 2)
        write_class(tmp_path / split, "b", 2)
    assert open_source(str(tmp_path)).train.channels == 1
    write(tmp_path, "test/b/color.png", (255, 0, 7))
    source = open_source(str(tmp_path))
    assert source.test is not None
    assert source.train.channels == source.test.channels == len(source.train.mean) == 3
    assert source.test.images[-1, :, 0, 0].tolist() == [255, 0, 7]


def test_size_takes_pictures_of_any_size(tmp_path):
    for index, size in enumerate([(4, 9), (30, 5), (8, 8), (1, 1)]):
        for name in ("a", "b"):
            write(tmp_path, f"{name}/{index}.png", 50 + index, size)
    source = open_source(str(tmp_path), size=6)
    assert source.test is not None
    assert source.train.size == (6, 6)
    every = torch.cat([source.train.images, source.test.images]).flatten(1)
    assert every.min(1).values.tolist() == every.max(1).values.tolist()
    with pytest.raises(DistilError, match=r"a/0.png is 4 x 9 and .*a/1.png is 30 x 5 pixels .* size=N resizes all"):
        open_source(str(tmp_path))


def test_pictures_of_one_size_need_no_square(tmp_path):
    for name in ("a", "b"):
        for index in range(2):
            write(tmp_path, f"{name}/{index}.png", size=(7, 5))
    assert open_source(str(tmp_path)).train.size == (5, 7)


def test_a_corrupt_picture_is_named(tmp_path):
    write_class(tmp_path, "a", 3)
    write_class(tmp_path, "b", 3)
    (tmp_path / "b" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DistilError, match=r"cannot read the image .*/b/1.png: .* Replace it or leave it out"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("other_file", [None, "notes.txt", ".hidden.png"])
def test_an_empty_class_folder_is_named(tmp_path, other_file):
    write_class(tmp_path, "a", 3)
    (tmp_path / "b").mkdir()
    if other_file:
        (tmp_path / "b" / other_file).write_bytes(b"")
    with pytest.raises(DistilError, match=r"the class folder .*/b holds no images \(.png.*add some or remove"):
        open_source(str(tmp_path))


def test_one_class_is_too_few(tmp_path):
    write_class(tmp_path, "a", 3)
    with pytest.raises(DistilError, match="has only one class folder, 'a': distil needs at least two"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("folders", [[], [".hidden"]])
def test_a_folder_without_class_folders_says_what_is_expected(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir()
    write(tmp_path, "loose.png")
    with pytest.raises(DistilError, match=r"has no class folders: expected ROOT/CLASS/\*.png, or ROOT/train/CLASS"):
        open_source(str(tmp_path))


def test_a_test_folder_without_class_folders_is_named(tmp_path):
    write_class(tmp_path / "train", "a", 3)
    write_class(tmp_path / "train", "b", 3)
    write(tmp_path, "test/loose.png")
    with pytest.raises(DistilError, match=r"/test has no class folders"):
        open_source(str(tmp_path))


def test_train_and_test_must_have_the_same_classes(tmp_path):
    for split, classes in (("train", "abc"), ("test", "bcde")):
        for name in classes:
            write_class(tmp_path / split, name, 2)
    with pytest.raises(DistilError, match="hold different classes: 'a' only in train and 'd', 'e' only in test"):
        open_source(str(tmp_path))


def test_a_class_with_one_picture_cannot_be_split(tmp_path):
    write_class(tmp_path, "a", 3)
    write_class(tmp_path, "b", 1)
    with pytest.raises(DistilError, match="class 'b' has 1 image, and a split needs at least 2"):
        open_source(str(tmp_path))
