"""Which folders are splits, which are classes, and what is named as left out."""

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from distil.data.images.opener import Source, open_source
from distil.errors import DistilError


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "photos"


def make(root: Path, *folders: str, count: int = 5) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("L", (4, 4), 10 * index).save(root / folder / f"{index}.png")


def split_of(source: Source) -> tuple[tuple[str, ...], int, int]:
    assert source.test is not None
    return source.train.classes, len(source.train), len(source.test)


def left_out(source: Source) -> list[str]:
    assert source.inventory is not None
    return [str(part) for part in source.inventory.left_out]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("train", "test"), ("Training", "Testing"), ("TRAIN", "TEST"), ("train", "Validation"), ("train", "dev")),
        *(("training", "eval"), ("train2017", "val2017"), ("training_set", "test_set"), ("seg_train", "seg_test")),
    ],
)
def test_split_folders_are_no_classes(root, train, test):
    make(root, f"{train}/cat", f"{train}/dog")
    make(root, f"{test}/cat", f"{test}/dog", count=2)
    source = open_source(root)
    assert split_of(source) == (("cat", "dog"), 10, 4)
    assert source.note == ("" if test == "test" else f"the test split is the folder {test!r}")
    assert source.inventory is not None
    assert [split.origin for split in source.inventory.splits] == [f"photos/{train}", f"photos/{test}"]


def test_a_validation_folder_beside_a_test_folder_is_named(root):
    make(root, "train/a", "train/b", "test/a", "test/b", "val/a", "val/b")
    assert left_out(open_source(root)) == [
        "10 images of the folder val: there is a test split, and images for validation are held out of the training "
        "images"
    ]


def test_other_folders_beside_the_splits_are_named(root):
    make(root, "train/a", "train/b", "test/a", "test/b", "unlabeled", "extra/a")
    (root / "docs").mkdir()
    source = open_source(root)
    assert split_of(source) == (("a", "b"), 10, 10)
    assert left_out(source) == [
        "5 images of the folder extra: neither the training nor the test split",
        "5 images of the folder unlabeled: neither the training nor the test split",
    ]


def test_a_test_folder_without_classes_does_not_hide_the_validation_folder(root):
    make(root, "train/a", "train/b", "val/a", "val/b", "test")
    source = open_source(root)
    assert source.note == "the test split is the folder 'val'"
    assert left_out(source) == ["5 images of the folder test: it has no class folders"]


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("train", "ship"), ("ship", "train")),
        (("train/front", "train/side", "ship", "car"), ("car", "ship", "train")),
        (("train/front", "train/side", "ship/front", "car/side"), ("car", "ship", "train")),
        (("train/front", "test/bench", "ship"), ("ship", "test", "train")),
        (("train", "test", "ship"), ("ship", "test", "train")),
        (("bullet_train/a", "test_tube/b", "ship"), ("bullet_train", "ship", "test_tube")),
    ],
)
def test_classes_that_are_called_like_splits_lose_no_other_class(root, folders, classes):
    make(root, *folders)
    source = open_source(root)
    assert split_of(source) == (classes, 4 * len(folders), len(folders))
    assert source.inventory is not None
    if "train" in classes:
        assert "like the other folders; name splits train and test" in source.inventory.notes[0]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("train/a", "train/b", "Training/a", "Training/b"),
            "more than one folder for one split: 'Training' and 'train'",
        ),
        (("train/a", "train/b", "test/a", "Testing/b"), "more than one folder for one split: 'Testing' and 'test'"),
        (("train/a", "train/b", "valid/a", "dev/b"), "more than one folder for one split: 'dev' and 'valid'"),
        (("test/a", "test/b", "val/a", "val/b"), "has 'test' and 'val' but no folder 'train'"),
        (("val/a", "val/b"), "has 'val' but no folder 'train'"),
        (("train", "test"), "photos/train has no class folders"),
    ],
)
def test_unclear_splits_are_refused(root, folders, message):
    make(root, *folders)
    with pytest.raises(DistilError, match=message):
        open_source(root)


@pytest.mark.parametrize("inner", ["dataset", "data/images"])
def test_folders_around_the_data_are_gone_through(root, inner):
    make(root, f"{inner}/train/a", f"{inner}/train/b", f"{inner}/test/a", f"{inner}/test/b")
    source = open_source(root)
    assert split_of(source) == (("a", "b"), 10, 10)
    assert source.inventory is not None
    assert source.inventory.notes == (f"the class folders were found in {inner}",)


def test_a_test_folder_that_links_to_the_training_folder_is_refused(root):
    make(root, "train/a", "train/b")
    (root / "test").symlink_to("train")
    with pytest.raises(DistilError, match="are one folder: the test images must differ"):
        open_source(root)


def test_a_folder_that_links_to_itself_ends(root):
    root.mkdir()
    (root / "loop").symlink_to(".")
    with pytest.raises(DistilError, match=r"the class folder .* holds no images"):
        open_source(root)


def test_unicode_forms_of_one_name_are_one_class(root):
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    make(root, f"train/{composed}", "train/b", f"test/{decomposed}", "test/b")
    assert split_of(open_source(root)) == (("b", composed), 10, 10)
    make(root, f"train/{decomposed}")
    if len(os.listdir(root / "train")) == 3:  # macOS has one folder for both names
        with pytest.raises(DistilError, match="photos/train has two folders 'caf\u00e9'"):
            open_source(root)
