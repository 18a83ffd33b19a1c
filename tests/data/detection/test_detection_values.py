from pathlib import Path

import pytest

from distil.data.detection.inventory import Findings
from distil.data.detection.splits import split_in, split_of
from distil.data.detection.values import PresentFiles, check_names, class_name, flag, inside
from distil.errors import DistilError


@pytest.mark.parametrize(
    ("name", "split"),
    [(name, "train") for name in ("train", "TRAIN", "Training", "train2017", "train_images", "TrainSet", "trainval")]
    + [(name, "val") for name in ("val", "VALID", "validation", "dev", "Eval", "val-2014")]
    + [(name, "test") for name in ("test", "Testing", "test-dev2017", "test_data")]
    + [(name, None) for name in ("trains", "cat_train", "train_val", "tests", "", "2017", "images", "training_notes")],
)
def test_a_name_that_is_a_split(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_val2017", "val"),
        ("_annotations.coco", None),
        ("my-TrainSet.v2", "train"),
        ("person_keypoints", None),
    ],
)
def test_a_split_in_a_name(name, split):
    assert split_in(name) == split


@pytest.mark.parametrize("value", ["maybe", 2, -1, 0.5, float("nan"), [], {}])
def test_what_is_no_flag(value):
    with pytest.raises(ValueError):  # noqa: PT011
        flag(value)


def test_flags():
    assert [flag(value) for value in (0, "F", "off", "0.000", None, "")] == [False] * 6
    assert [flag(value) for value in (1, "T", "on", "1.", True, " yes\n")] == [True] * 6
    assert [flag(value) for value in ("Unspecified", "unknown", "None", "N/A")] == [None] * 4


def test_names_have_one_form():
    assert class_name(" cafe\u0301\n") == "caf\u00e9"
    with pytest.raises(DistilError, match="f: class name 'caf\u00e9' is given twice"):
        check_names(["caf\u00e9", "cafe\u0301"], Path("f"))


def test_paths_stay_inside_their_root(tmp_path):
    real = tmp_path / "real"
    (real / "images").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(real)
    assert inside(link, "images/a.png") == link / "images" / "a.png"
    assert inside(link, "a.png", link / "images") == link / "images" / "a.png"
    assert inside(link, f"{real}/a.png") == link / "a.png"
    assert inside(link, "../a.png", link / "images") == link / "a.png"
    for text in ("../a.png", "/etc/passwd", "images/../../a.png", f"{tmp_path}/realistic/a.png"):
        assert inside(link, text) is None


def test_a_file_is_found_by_the_one_close_name(tmp_path):
    for name in ("a b.png", "Caf\u00e9.png", "x.png", "X.png"):
        (tmp_path / name).touch()
    findings = Findings()
    present = PresentFiles(findings)
    assert present.find(tmp_path / "x.png") == tmp_path / "x.png"
    assert present.find(tmp_path / "a%20b.PNG") == tmp_path / "a b.png"
    assert present.find(tmp_path / "cafe\u0301.png") == tmp_path / "Caf\u00e9.png"
    (tmp_path / "x.png").unlink()
    (tmp_path / "x.PNG").touch()
    assert PresentFiles(findings).find(tmp_path / "x.png") is None  # two are close
    assert findings.all_notes()[0].startswith("2 file names spelt otherwise than on disk (a%20b.PNG is a b.png, ")
