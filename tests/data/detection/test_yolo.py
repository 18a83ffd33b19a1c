from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distil.data.detection.yolo import open_yolo, yaml_names, yolo_source
from distil.errors import DistilError

LABELS = {"a": "1 0.5 0.5 1 0.5\n\n0 0.25 0.25 0.5 0.5\n", "b": "", "c": "0 0.1 0.2 0.5 0.2 0.5 0.8\n", "none": None}


def write_yolo(
    root: Path,
    *,
    images: str = "images",
    labels: str = "labels",
    content: Mapping[str, str | None] = LABELS,
    classes: str | None = "cat\ndog\n",
) -> None:
    for folder in (root / images, root / labels):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        Image.new("RGB", (20, 10), (ord(name[0]), 0, 0)).save(root / images / f"{name}.png")
        if text is not None:
            (root / labels / f"{name}.txt").write_text(text)
    if classes is not None:
        (root / "classes.txt").write_text(classes)


def test_shares_become_pixels(tmp_path):
    write_yolo(tmp_path)
    data = open_yolo(tmp_path)
    assert [data.identifier(index) for index in range(4)] == ["a.png", "b.png", "c.png", "none.png"]
    image, found = data[0]
    assert (image.shape, int(image[0, 0, 0])) == ((3, 10, 20), ord("a"))
    assert found.boxes.tolist() == [[0, 2.5, 20, 7.5], [0, 0, 10, 5]]
    assert (found.labels.tolist(), found.ignored.tolist()) == ([2, 1], [False, False])
    assert found.areas.tolist() == [100, 50]
    assert np.allclose(data.annotations(2).boxes, [[2, 2, 10, 8]])
    assert [len(data.annotations(index)) for index in range(4)] == [2, 0, 1, 0]
    assert (data.classes, data.counts) == (("cat", "dog"), (2, 1))


def test_pictures_are_turned_as_their_tag_says(tmp_path):
    write_yolo(tmp_path, content={"a": "0 0.5 0.5 1 1"})
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(20 * 10 * 3, dtype=np.uint8).reshape(10, 20, 3)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=exif)
    data = open_yolo(tmp_path)
    assert data.size(0) == (20, 10)
    assert data.annotations(0).boxes.tolist() == [[0, 0, 10, 20]]
    assert data.image(0).tolist() == np.rot90(pixels, -1).transpose(2, 0, 1).tolist()


@pytest.mark.parametrize("pattern", ["{part}/{split}", "{split}/{part}"])
def test_splits(tmp_path, pattern):
    for split in ("train", "valid" if pattern.startswith("{split}") else "val", "test"):
        places = {part: pattern.format(part=part, split=split) for part in ("images", "labels")}
        write_yolo(tmp_path, **places, content=LABELS if split == "train" else {"a": LABELS["a"]})
    source = yolo_source(tmp_path)
    assert source.val is not None
    assert source.test is not None
    assert [len(split) for split in (source.train, source.val, source.test)] == [4, 1, 1]
    assert (source.train.name, source.key) == (f"{tmp_path.name} train", "yolo")
    assert len(open_yolo(tmp_path, "val")) == len(open_yolo(tmp_path, "valid")) == 1
    with pytest.raises(DistilError, match=r"has no images of the split 'all'"):
        open_yolo(tmp_path, "all")


def test_without_splits_all_is_for_training(tmp_path):
    write_yolo(tmp_path)
    source = yolo_source(tmp_path)
    assert (len(source.train), source.val, source.test) == (4, None, None)


def test_deeper_folders_are_followed(tmp_path):
    write_yolo(tmp_path, images="images/day", labels="labels/day")
    assert open_yolo(tmp_path).identifier(0) == "day/a.png"
    assert len(open_yolo(tmp_path).annotations(0)) == 2


YAML = {
    "train: images/train\nnames: [cat, 'hot dog']  # two\nnc: 2\n": ["cat", "hot dog"],
    'names:\n  - cat\n  # between\n  - "a: b # c"\nval: x\n': ["cat", "a: b # c"],
    "names:\n- cat\n- dog\n": ["cat", "dog"],
    "names:\n  1: dog\n  0: 'cat'\nnc: 2\n": ["cat", "dog"],
    "nc: 3\nnames: ['cat', 'd,g',\n   'fox']\n": ["cat", "d,g", "fox"],
    "names: {0: cat, 1: dog}\n": ["cat", "dog"],
    "names: [cat's eye, dog]\n": ["cat's eye", "dog"],
}


@pytest.mark.parametrize("text", YAML)
def test_names_of_a_yaml(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert yaml_names(tmp_path / "data.yaml") == YAML[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2\n", r"data.yaml has no 'names': expected names: \[cat, dog\]"),
        ("names: cat\n", "cannot read 'names': expected"),
        ("names:\n", "cannot read 'names': expected"),
        ("names:\n  zero: cat\n", "cannot read 'names': expected"),
        ("names:\n  0: cat\n  2: dog\n", "the numbers of 'names' must run from 0 to 1, each once"),
        ("names: []\n", "data.yaml names no class"),
        ("names: [cat, cat]\n", "class name 'cat' is given twice"),
    ],
)
def test_names_that_cannot_be_read(tmp_path, text, message):
    write_yolo(tmp_path, classes=None)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DistilError, match=message):
        open_yolo(tmp_path)


def test_where_the_names_may_be(tmp_path):
    write_yolo(tmp_path, classes=None)
    with pytest.raises(DistilError, match=r"does not name its classes: add classes.txt, one name a line, or data.yaml"):
        open_yolo(tmp_path)
    (tmp_path / "labels" / "classes.txt").write_text("x\ny\n")
    assert open_yolo(tmp_path).classes == ("x", "y")
    (tmp_path / "my set.yaml").write_text("names: [u, v]")
    assert open_yolo(tmp_path).classes == ("u", "v")
    assert open_yolo(tmp_path, classes=("s", "t")).classes == ("s", "t")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 1", r"line 2 of .*a.txt is '0 0.5 0.5 1': expected 'class cx cy w h'"),
        ("0 0.5 0.5 1 1 0.9", "expected 'class cx cy w h'"),
        ("cat 0.5 0.5 1 1", "expected 'class cx cy w h'"),
        ("0.5 0.5 0.5 1 1", "expected 'class cx cy w h'"),
        ("nan 0.5 0.5 1 1", "expected 'class cx cy w h'"),
        ("2 0.5 0.5 1 1", r"line 2 of .*a.txt has class 2, and there are 2 classes, 0 to 1"),
        ("-1 0.5 0.5 1 1", "has class -1, and there are 2 classes"),
        ("0 0.5 0.5 0 1", r"box \(10, 0, 10, 10\) of line 2 of a.txt on image a.png has no area"),
        ("0 0.5 0.5 1.2 1", r"box \(-2, 0, 22, 10\) of line 2 of a.txt on image a.png reaches 2 pixels outside"),
        ("0 5 5 4 4", r"line 2 of .*a.txt holds 5 \(1 of 2 lines hold such numbers\): YOLO's are shares of the image"),
        (
            "0 nan 0.5 1 1",
            r"box \(nan, 0, nan, 10\) of line 2 of a.txt on image a.png holds a number that is no place in",
        ),
        ("0 0.1 0.1 0.4 nan 0.4 0.5", r"box \(nan, nan, nan, nan\)|box \(2, nan, 8, nan\) of line 2 of a.txt on image"),
        (
            "0 1e400 0.5 1 1",
            r"box \(inf, 0, inf, 10\) of line 2 of a.txt on image a.png holds a number that is no place",
        ),
        ("0 0.5_0 0.5 1 1", "expected 'class cx cy w h'"),
        ("0 0.5 0.5 1 1 0.9", "A sixth number is the confidence in a file of predictions: use the true labels"),
        ("0 0.5 0.5 1 1 0.2 0.2 2", r"If a box and 1 keypoints are meant, add kpt_shape: \[1, 3\] to data.yaml"),
    ],
)
def test_lines_that_are_wrong_are_named(tmp_path, line, message):
    write_yolo(tmp_path, content={"a": f"0 0.5 0.5 1 1\n{line}\n"})
    with pytest.raises(DistilError, match=message):
        open_yolo(tmp_path)


def test_pixels_are_refused_even_where_boxes_are_to_be_mended(tmp_path):
    write_yolo(tmp_path, content={"a": "0 10 8 40 30\n0 1 2 3 4\n"})
    with pytest.raises(DistilError, match=r"a.txt holds 40 \(2 of 2 lines .*fix_boxes cannot mend this"):
        open_yolo(tmp_path, fix_boxes=True)


def test_lines_that_repeat_are_dropped_and_counted(tmp_path):
    write_yolo(tmp_path, content={"a": "0 0.5 0.5 1 1\n1 0.5 0.5 1 1\n0 0.5 0.5 1 1\n", "b": "0 0.5 0.5 1 1\n"})
    source = yolo_source(tmp_path)
    assert source.train.counts == (2, 1)
    assert source.train.note == f"{tmp_path.name}: 1 repeated object dropped"
    assert source.inventory is not None
    assert [(part.count, part.examples) for part in source.inventory.left_out] == [(1, ("line 3 of a.txt on a.png",))]


POSE = "0 0.5 0.5 0.4 0.4 "


@pytest.mark.parametrize(
    ("shape", "rest"),
    [("[2, 2]", "0.4 0.4 0.9 0.9"), ("[2, 3]", "0.4 0.4 2 0 0 0"), ("[1, 3]", "0.4 0.4 1"), ("[17, 2]", "")],
)
def test_keypoints_follow_the_box(tmp_path, shape, rest):
    write_yolo(tmp_path, content={"a": POSE + rest}, classes=None)
    (tmp_path / "data.yaml").write_text(f"names: [person]\nkpt_shape: {shape}\n")
    assert np.allclose(open_yolo(tmp_path).annotations(0).boxes, [[6, 3, 14, 7]])


def test_keypoints_need_their_number(tmp_path):
    write_yolo(tmp_path, content={"a": POSE + "0.4 0.4 0.9 0.9"}, classes=None)
    yaml = tmp_path / "data.yaml"
    yaml.write_text("names: [person]\nkpt_shape: [3, 2]\n")
    with pytest.raises(DistilError, match=r"and after it the 6 numbers of the keypoints \(kpt_shape in data.yaml\)"):
        open_yolo(tmp_path)
    for shape in ("[3]", "[3, 4]", "[0, 2]", "[a, 2]", "17"):
        yaml.write_text(f"names: [person]\nkpt_shape: {shape}\n")
        with pytest.raises(DistilError, match=r"kpt_shape must be the number of keypoints and 2 or 3 numbers for each"):
            open_yolo(tmp_path)
    yaml.write_text("names: [person]\n")
    for rest in ("0.4 0.4 2 0.6 0.6 1", "0.4 0.4 1 0.6 0.6 0"):
        (tmp_path / "labels" / "a.txt").write_text(POSE + rest)
        with pytest.raises(DistilError, match=r"a box and 2 keypoints. Add kpt_shape: \[2, 3\] to data.yaml"):
            open_yolo(tmp_path)


def test_polygons_that_may_be_keypoints_are_told(tmp_path):
    write_yolo(tmp_path, content={"a": POSE + "0.4 0.4 0.6 0.6"})
    inventory = yolo_source(tmp_path).inventory
    assert inventory is not None
    assert f"{tmp_path.name}: 1 line of more than five numbers are polygons: their bounding boxes are taken" in str(
        inventory
    )
    assert "if so, add kpt_shape: [2, 2] to data.yaml" in str(inventory)
    (tmp_path / "labels" / "a.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9")
    inventory = yolo_source(tmp_path).inventory
    assert "kpt_shape" not in str(inventory)


def test_boxes_are_mended_when_asked(tmp_path):
    write_yolo(tmp_path, content={"a": "0 0.5 0.5 1.2 1\n0 0.5 0.5 0 1\n"})
    data = open_yolo(tmp_path, fix_boxes=True)
    assert data.annotations(0).boxes.tolist() == [[0, 0, 20, 10]]
    assert data.note == f"{tmp_path.name}: 1 boxes clipped to their images, 1 without area dropped"


def test_files_that_are_missing_or_corrupt(tmp_path):
    with pytest.raises(DistilError, match=r"has no images. Expected ROOT/images/train"):
        open_yolo(tmp_path)
    write_yolo(tmp_path)
    (tmp_path / "labels" / "orphan.txt").write_text("0 0.5 0.5 1 1")
    with pytest.raises(DistilError, match=r"orphan.txt has no image in .*/images: put the image there, or remove"):
        open_yolo(tmp_path)
    (tmp_path / "labels" / "orphan.txt").unlink()
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DistilError, match=r"cannot read .*a.txt"):
        open_yolo(tmp_path)
    (tmp_path / "labels" / "a.txt").write_text("")
    (tmp_path / "labels" / "c.txt").write_text("")
    with pytest.raises(DistilError, match="has 4 images and not one object: a detector needs boxes to learn from"):
        open_yolo(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DistilError, match=r"cannot read the image .*a.png: .* Replace it or leave it out"):
        open_yolo(tmp_path)


def test_layouts_that_are_none(tmp_path):
    write_yolo(tmp_path, images="images/val", labels="labels/val")
    with pytest.raises(DistilError, match="has no train split, only val"):
        yolo_source(tmp_path)
    (tmp_path / "images" / "train").mkdir()
    with pytest.raises(DistilError, match=r"images/train has images, but there is no .*labels/train"):
        yolo_source(tmp_path)
    (tmp_path / "labels" / "train").mkdir()
    with pytest.raises(DistilError, match=r"images/train has no images"):
        yolo_source(tmp_path)
