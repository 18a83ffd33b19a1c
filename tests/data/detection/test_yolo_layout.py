"""Where YOLO's pictures and labels lie: data.yaml, lists, folders named for splits."""

import os
from pathlib import Path

import pytest
from PIL import Image

from distil.data.detection.detection_set import DetectionSet, DetectionSource
from distil.data.detection.opener import open_detection
from distil.data.detection.yolo import open_yolo, yolo_source
from distil.errors import DistilError
from tests.data.detection.test_yolo import write_yolo

BOX = "0 0.5 0.5 0.5 0.5\n"


def write_splits(root: Path, *splits: str, pattern: str = "{part}/{split}") -> None:
    """One picture in each split, a.png in the first, b.png in the second, ..."""
    for letter, split in zip("abcdef", splits, strict=False):
        places = {part: pattern.format(part=part, split=split) for part in ("images", "labels")}
        write_yolo(root, **places, content={letter: BOX})


def write_yaml(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text + "\nnames: [cat, dog]\n")


def files_of(data: DetectionSet | None) -> list[str]:
    return [] if data is None else [data.identifier(index) for index in range(len(data))]


def splits_of(source: DetectionSource) -> list[list[str]]:
    return [files_of(data) for data in (source.train, source.val, source.test)]


@pytest.mark.parametrize(
    "splits",
    [("train2017", "val2017", "test2017"), ("training", "validation", "testing"), ("TRAIN", "Dev", "Test_images")],
)
@pytest.mark.parametrize("pattern", ["{part}/{split}", "{split}/{part}"])
def test_folders_are_splits_by_many_names(tmp_path, splits, pattern):
    write_splits(tmp_path, *splits, pattern=pattern)
    assert splits_of(yolo_source(tmp_path)) == [["a.png"], ["b.png"], ["c.png"]]
    assert splits_of(open_detection(tmp_path)) == [["a.png"], ["b.png"], ["c.png"]]


def test_two_folders_for_one_split_are_refused(tmp_path):
    write_splits(tmp_path, "train", "val", "valid")
    with pytest.raises(DistilError, match=r"two folders for the val split, .*images/val and .*images/valid: keep one"):
        yolo_source(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "train: images/first\nval: images/second",
        "path: .\ntrain: images/first/\nval: ./images/second",
        "path: images\ntrain: first\nval: second",
        "path: /content/drive/MyDrive/set\ntrain: images/first\nval: images/second",
        "path: ../datasets/set\ntrain: images/first\nvalid: images/second",
        "train: ../images/first\nval: ../images/second\ntest: ../images/none",
        "train: images\\first\nval: [images/second]",
        "train: [images/first]\nvalidation: images/second\ntest:",
        "train: first.txt\nval: lists/second.txt",
        "train: images/first\nval: images/second\ntest: ~",
    ],
)
def test_data_yaml_says_where_the_splits_are(tmp_path, text):
    write_splits(tmp_path, "first", "second")
    (tmp_path / "first.txt").write_text("./images/first/a.png\n\nimages/first/a.png\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "second.txt").write_text("images\\second\\b.png\n")
    write_yaml(tmp_path, text)
    source = yolo_source(tmp_path)
    assert [[Path(name).name for name in names] for names in splits_of(source)] == [["a.png"], ["b.png"], []]
    assert source.val is not None
    assert [data.annotations(0).boxes.tolist() for data in (source.train, source.val)] == [[[5, 2.5, 15, 7.5]]] * 2
    assert files_of(open_yolo(tmp_path, "val")) == files_of(source.val)
    if "drive" in text:
        assert source.inventory is not None
        assert (
            "'path' in data.yaml is /content/drive/MyDrive/set, which leads out of the folder: the splits are looked "
            "up beside data.yaml"
        ) in source.inventory.notes


def test_a_split_may_be_several_folders_and_absolute(tmp_path):
    write_splits(tmp_path, "day", "night", "val")
    write_yaml(tmp_path, f"train:\n  - {tmp_path}/images/day\n  - images/night\nval: images/val")
    source = yolo_source(tmp_path)
    assert splits_of(source) == [["images/day/a.png", "images/night/b.png"], ["b.png".replace("b", "c")], []]
    assert source.inventory is not None
    assert source.inventory.splits[0].origin == "images/day, images/night"


def test_paths_of_another_machine_are_found_by_their_end_and_told(tmp_path):
    write_splits(tmp_path, "train", "val")
    write_yaml(tmp_path, "train: /content/set/images/train\nval: /content/set/images/val")
    source = yolo_source(tmp_path)
    assert splits_of(source) == [["a.png"], ["b.png"], []]
    assert source.inventory is not None
    assert (
        "'train' in data.yaml is /content/set/images/train, which is not there: images/train is read instead"
        in source.inventory.notes
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: images/first\nval: images/none",
            r"data.yaml: 'val' is 'images/none', and there is nothing at .*/images/none",
        ),
        ("train: /etc\nval: images/second", r"data.yaml: 'train' is '/etc', and that leads out of "),
        ("train: ../../other\nval: images/second", r"'train' is '../../other', and there is nothing at .*/other"),
        ("train: https://example.org/x.zip", r"'train' is the address 'https://example.org/x.zip', and distil fetches"),
        ("train: {a: b}", r"'train' must name a folder, a .txt file or a list of these, not a mapping"),
        ("train: [[a]]", r"'train' must name a folder, a .txt file or a list of these"),
        ("train: images/first\nval: images/second\nvalid: images/second", r"'val' and 'valid' both name the val split"),
        ("train: images/first/a.png", r"'train' is the file .*a.png: name a folder of images, or a .txt file"),
        ("path: [a]\ntrain: images/first", r"'path' must be the name of a folder, not a list"),
        ("train: list.txt", r"line 1 of .*list.txt is '/etc/passwd', which leads out of"),
        ("train: climbing.txt", r"line 1 of .*climbing.txt is '../../a.png', which leads out of"),
        ("train: missing.txt", r"line 2 of .*missing.txt is 'images/x.png', and there is no image at .*/images/x.png"),
        ("train: words.txt", r"line 1 of .*words.txt is 'labels/first/a.txt', which is no picture"),
        (f"train: {'x' * 300}", r"no file can be called 'xxx"),
    ],
)
def test_what_data_yaml_names_and_is_not_there_is_an_error(tmp_path, text, message):
    write_splits(tmp_path, "first", "second")
    lists = {"list": "/etc/passwd", "climbing": "../../a.png", "missing": "images/first/a.png\nimages/x.png"}
    for name, lines in {**lists, "words": "labels/first/a.txt"}.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    write_yaml(tmp_path, text)
    with pytest.raises(DistilError, match=message):
        yolo_source(tmp_path)


def test_data_yaml_wins_over_folders_and_the_difference_is_told(tmp_path):
    write_splits(tmp_path, "train", "val", "mine", "test")
    write_yaml(tmp_path, "train: images/mine\nval: images/train")
    source = yolo_source(tmp_path)
    assert splits_of(source) == [["c.png"], ["a.png"], ["d.png"]]
    assert source.inventory is not None
    told = str(source.inventory)
    assert "1 folder named for a split (images/val): data.yaml says that the val split is images/train" in told
    assert "note: the test split is the folder images/test, which data.yaml does not name" in told


def test_one_folder_for_training_and_validation_is_told(tmp_path):
    write_splits(tmp_path, "train2017")
    write_yaml(tmp_path, "train: images/train2017\nval: images/train2017\ndownload: https://example.org/x.zip")
    told = str(yolo_source(tmp_path).inventory)
    assert (
        "note: the train and the val split share 1 picture, such as a.png: scores on val images will be too high"
        in told
    )
    assert "left out: 1 key of data.yaml (download): not used; distil fetches nothing" in told


@pytest.mark.parametrize("labels", ["missing", "empty", "of nothing"])
def test_a_test_split_without_labels_is_told_and_not_offered(tmp_path, labels):
    write_splits(tmp_path, "train", "val", "test")
    (tmp_path / "labels" / "test" / "c.txt").unlink()
    if labels == "missing":
        (tmp_path / "labels" / "test").rmdir()
    if labels == "of nothing":
        (tmp_path / "labels" / "test" / "c.txt").write_text("\n")
    for text in ("nc: 2", "train: images/train\nval: images/val\ntest: images/test"):
        write_yaml(tmp_path, text)
        source = yolo_source(tmp_path)
        assert splits_of(source) == [["a.png"], ["b.png"], []]
        assert source.inventory is not None
        assert [str(part) for part in source.inventory.left_out] == [
            "1 test split (images/test with 1 image): no labels"
        ]


def test_a_test_split_that_is_not_there_is_told(tmp_path):
    write_splits(tmp_path, "train", "val")
    write_yaml(tmp_path, "train: ../images/train\nval: ../images/val\ntest: ../test/images")
    source = yolo_source(tmp_path)
    assert splits_of(source) == [["a.png"], ["b.png"], []]
    assert "left out: 1 test split: " in str(source.inventory)
    assert "'test' is '../test/images', and there is nothing at" in str(source.inventory)


def test_lists_beside_the_folders_are_splits(tmp_path):
    write_yolo(tmp_path, content={"a": BOX, "b": BOX, "c": BOX})
    (tmp_path / "train.txt").write_text("images/a.png\n./images/a.png\n")
    (tmp_path / "val.txt").write_text("data/images/b.png\n")
    source = yolo_source(tmp_path)
    assert splits_of(source) == [["images/a.png"], ["images/b.png"], []]
    told = str(source.inventory)
    assert "1 repeated line of lists (line 2 of train.txt): the same image again" in told
    assert "1 picture (images/c.png): no split names them" in told


def test_labels_lie_beside_pictures_without_a_folder_of_images(tmp_path):
    write_yolo(tmp_path, images="obj_train_data", labels="obj_train_data", content={"a": BOX}, classes=None)
    (tmp_path / "obj.names").write_text("cat\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    source = open_detection(str(tmp_path))
    assert (source.key, splits_of(source)[0], len(source.train.annotations(0))) == ("yolo", ["obj_train_data/a.png"], 1)


def test_pictures_of_unknown_type_links_and_loops_are_told(tmp_path):
    write_yolo(tmp_path, content={"a": BOX})
    (tmp_path / "images" / "IMG_1.HEIC").write_bytes(b"")
    os.symlink(tmp_path / "images", tmp_path / "images" / "loop")
    told = str(yolo_source(tmp_path).inventory)
    assert "1 file of unknown type (.heic) (images/IMG_1.HEIC): save pictures as PNG or JPEG to have them read" in told
    assert "1 folder (images/loop, a link): no split uses it" in told
    (tmp_path / "labels" / "IMG_1.txt").write_text(BOX)
    with pytest.raises(
        DistilError, match=r"IMG_1.txt has no image in .*\(IMG_1.HEIC there is of a type that distil does"
    ):
        yolo_source(tmp_path)


def test_linked_folders_of_pictures_are_read(tmp_path):
    write_yolo(tmp_path / "elsewhere", content={"a": BOX})
    write_yolo(tmp_path / "set", content={"b": BOX})
    for part in ("images", "labels"):
        os.symlink(tmp_path / "elsewhere" / part, tmp_path / "set" / part / "more")
    assert splits_of(yolo_source(tmp_path / "set"))[0] == ["b.png", "more/a.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\nnc: 3", r"data.yaml is no valid yaml: line 2, column 3: expected"),
        ("[" * 5000, r"data.yaml is nested too deeply"),
        ("- a\n- b", r"data.yaml is a yaml list, not lines 'key: value'"),
        ("names: [a, b]\nnc: 5", r"data.yaml: nc is 5, but there are 2 names: mend the one that is wrong"),
        ("names: [[a], b]", r"data.yaml: name 0 of 'names' is a list"),
        ("names: [a]\nnames: [b]", r"no valid yaml: the key 'names' is given twice"),
        ("names: {0: a, 0: b}", r"no valid yaml: the key '0' is given twice"),
        ("names: ['', b]", r"data.yaml: the name of class 0 is empty"),
        ("names: [a, 'a ']", r"class name 'a' is given twice"),
        ("names: {" + "9" * 500 + ": a}", r"the numbers of 'names' must run from 0 to 0, each once"),
        ("x" * 2_000_000, r"data.yaml is larger than a data.yaml can be"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: *b", r"name 0 of 'names' is a list"),
    ],
)
def test_a_yaml_that_is_wrong_is_named(tmp_path, text, message):
    write_yolo(tmp_path, content={"a": BOX})
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DistilError, match=message):
        yolo_source(tmp_path)


def test_names_are_taken_as_they_are_written(tmp_path):
    write_yolo(tmp_path, content={"a": BOX}, classes=None)
    (tmp_path / "data.yaml").write_text("names: [yes, no, 1, 2.50, null, 007, 2001-01-01]\n")
    assert open_yolo(tmp_path).classes == ("yes", "no", "1", "2.50", "null", "007", "2001-01-01")
    (tmp_path / "data.yaml").write_text("names: !!python/object/apply:os.system [echo]\n")
    assert open_yolo(tmp_path).classes == ("echo",)


def test_the_one_yaml_with_names_counts(tmp_path):
    write_yolo(tmp_path, content={"a": BOX}, classes=None)
    (tmp_path / "my.yaml").write_text("names: [cat]\n")
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01\n")
    source = yolo_source(tmp_path)
    assert source.train.classes == ("cat",)
    assert "1 yaml file (hyp.yaml): only one is read" in str(source.inventory)
    (tmp_path / "other.yaml").write_text("names: [dog]\n")
    with pytest.raises(DistilError, match=r"several files with names of classes, my.yaml, other.yaml: call the one"):
        yolo_source(tmp_path)


def test_images_without_labels(tmp_path):
    write_yolo(tmp_path, content={"a": BOX, "b": None})
    assert "1 image of the train split without a label file: taken as without objects" in str(
        yolo_source(tmp_path).inventory
    )
    (tmp_path / "labels" / "a.txt").unlink()
    with pytest.raises(DistilError, match=r"has 2 images and no label file: looked for .*labels/a.txt and the like"):
        yolo_source(tmp_path)


def test_turned_pictures_are_told(tmp_path):
    write_yolo(tmp_path, content={"a": BOX})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "a.png", exif=exif)
    told = str(yolo_source(tmp_path).inventory)
    assert "note: 1 picture with an EXIF rotation tag: turned as it says, as YOLO's readers do" in told
    assert "train: 1 image of 10 x 20 pixels" in told
