import os
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from distil.data.detection.detection_set import Annotations, DetectionSet, match_classes
from distil.data.detection.opener import open_detection
from distil.errors import DistilError
from tests.data.detection.test_coco import write_coco
from tests.data.detection.test_voc import write_voc
from tests.data.detection.test_yolo import write_yolo

SHARED = Path(__file__).parents[4] / "shared" / "data"
"""Real detection data beside the checkout, where a developer has it."""

ACCEPTED = (
    "Data is one of scenes, scenes:COUNT, coco:FOLDER, voc:FOLDER, yolo:FOLDER, or a FOLDER whose format is recognized."
)


class Drawn:
    """Pictures i of i rows of height, with i + 1 boxes of class 1 + i % 2, the first ignored."""

    def __len__(self) -> int:
        return 7

    def image(self, index: int) -> torch.Tensor:
        return torch.full((3, 10 + index, 20), index, dtype=torch.uint8)

    def annotations(self, index: int) -> Annotations:
        boxes = torch.tensor([[0.0, 0.0, 4.0, 9.0]]).repeat(index + 1, 1)
        labels = torch.full((index + 1,), 1 + index % 2)
        return Annotations(boxes, labels, torch.arange(index + 1) == 0, boxes.new_full((index + 1,), 36.0))

    def identifier(self, index: int) -> str:
        return f"{index}.png"

    def size(self, index: int) -> tuple[int, int]:
        return 10 + index, 20

    def tags(self, index: int) -> list[frozenset[str]]:
        return [frozenset({"small"})] * (index + 1)


DRAWN = DetectionSet(Drawn(), ("cat", "dog"), "drawn")


def test_a_set_gives_images_and_objects():
    assert len(DRAWN) == 7
    image, annotations = DRAWN[3]
    assert image.shape == (3, 13, 20)
    assert (len(annotations), annotations.labels.tolist()) == (4, [2, 2, 2, 2])
    assert (DRAWN.identifier(3), DRAWN.size(3), len(DRAWN.tags(3))) == ("3.png", (13, 20), 4)
    assert isinstance(DRAWN, torch.utils.data.Dataset)
    with pytest.raises(IndexError, match="drawn has 7 images: no image 7"):
        DRAWN[7]
    with pytest.raises(IndexError, match="no image -1"):
        DRAWN.image(-1)


def test_counts_leave_the_ignored_objects_out():
    assert DRAWN.counts == (0 + 2 + 4 + 6, 1 + 3 + 5)


def test_a_subset_of_a_subset():
    some = DRAWN.subset([5, 2, 4]).subset(torch.tensor([2, 0]).tolist())
    assert [some.identifier(index) for index in range(len(some))] == ["4.png", "5.png"]
    assert some.counts == (4, 5)
    assert DRAWN.subset([], "nothing").name == "nothing"
    with pytest.raises(IndexError, match="no image 3"):
        DRAWN.subset([0, 1, 2]).subset([3])


def names(data: DetectionSet) -> list[str]:
    return [data.identifier(index) for index in range(len(data))]


def test_a_split_is_addressed_by_its_seed_and_loses_nothing():
    kept, held = DRAWN.split(0.3, 0)
    again = DRAWN.split(0.3, 0)
    assert (names(kept), names(held)) == (names(again[0]), names(again[1]))
    assert (len(kept), len(held)) == (5, 2)
    assert sorted(names(kept) + names(held)) == names(DRAWN)
    assert names(kept) == sorted(names(kept))
    assert (kept.name, held.name) == ("drawn, kept", "drawn, held out")
    assert len({tuple(names(DRAWN.split(0.3, seed)[1])) for seed in range(8)}) > 3


@pytest.mark.parametrize(("fraction", "held"), [(0.01, 1), (0.99, 6)])
def test_a_split_leaves_both_parts_something(fraction, held):
    assert len(DRAWN.split(fraction, 0)[1]) == held


def test_a_split_that_cannot_be():
    with pytest.raises(DistilError, match=r"cannot hold out a fraction 1\.0 of drawn: give a number between 0 and 1"):
        DRAWN.split(1.0, 0)
    with pytest.raises(DistilError, match="drawn has 1 image, and a split needs at least 2"):
        DRAWN.subset([0]).split(0.5, 0)


def test_a_description():
    assert DRAWN.describe().splitlines() == [
        "drawn: 7 images of 20 x 10 to 20 x 16 pixels (width x height), 0 without objects",
        "28 objects, 7 of them ignored; square root of the box's area 6 to 6 pixels, median 6",
        "2 classes: cat 12, dog 9",
    ]
    assert DRAWN.subset([]).describe().splitlines()[0] == "drawn: 0 images, 0 without objects"


def test_a_folder_is_recognized_by_what_it_holds(tmp_path):
    write_coco(tmp_path / "coco")
    write_coco(tmp_path / "nested", json_folder="annotations")
    write_voc(tmp_path / "voc")
    write_voc(tmp_path / "devkit" / "VOCdevkit" / "VOC2012", lists={"train": ["1"], "val": ["2"]})
    write_yolo(tmp_path / "yolo")
    keys = {name: open_detection(str(tmp_path / name)).key for name in ("coco", "nested", "voc", "devkit", "yolo")}
    assert keys == {"coco": "coco", "nested": "coco", "voc": "voc", "devkit": "voc", "yolo": "yolo"}
    for key in ("coco", "voc", "yolo"):
        assert open_detection(f"{key}:{tmp_path / key}").key == key
        assert open_detection(f"{key}:{key}", root=tmp_path).key == key
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilError, match=r"empty holds no detection data that distil knows: expected a COCO .json"):
        open_detection(str(tmp_path / "empty"))
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(DistilError, match=r"one.png is a file but not a COCO .json"):
        open_detection(str(tmp_path / "one.png"))
    with pytest.raises(DistilError, match=r"one.png is a file, but voc: takes a folder"):
        open_detection(f"voc:{tmp_path / 'one.png'}")


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        ("scene", "unknown data 'scene'. Did you mean scenes?"),
        ("Scenes:20", "unknown data 'Scenes:20'. Did you mean scenes?"),
        ("coc:here", "unknown data 'coc:here'. Did you mean coco:FOLDER?"),
        ("YOLO", "unknown data 'YOLO'. Did you mean yolo?"),
        ("zebra", "unknown data 'zebra'."),
        ("", "'' names no folder."),
        ("voc:", "'voc:' names no folder."),
        ("coco:nothing", "there is nothing at nothing."),
        ("./nothing", "there is nothing at nothing."),
    ],
)
def test_a_spec_that_nothing_answers_to(spec, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DistilError) as caught:
        open_detection(spec)
    assert str(caught.value) == f"{start} {ACCEPTED}"


@pytest.mark.parametrize("spec", ["scenes:", "scenes:0", "scenes:many", "scenes:-1"])
def test_a_number_of_scenes_that_is_none(spec):
    with pytest.raises(DistilError, match=f"^{spec}: give the number of training scenes, as in scenes:200"):
        open_detection(spec)


def test_a_path_is_a_spec_and_a_text_is_a_root(tmp_path):
    write_coco(tmp_path / "set")
    assert open_detection(tmp_path / "set").key == "coco"
    assert open_detection(Path("set"), root=str(tmp_path)).key == "coco"
    for spec in ("coco:~nobody-of-this-name/x", "~nobody-of-this-name", "voc:a\0b", "x/" + "a" * 5000):
        with pytest.raises(DistilError, match="Data is one of scenes"):
            open_detection(spec)


def test_the_working_folder_may_be_the_data(tmp_path, monkeypatch):
    write_voc(tmp_path / "voc", images=".", xml=".")
    write_coco(tmp_path / "coco", images=".")
    write_yolo(tmp_path / "yolo")
    for key in ("voc", "coco", "yolo"):
        monkeypatch.chdir(tmp_path / key)
        source = open_detection(".")
        assert (source.key, source.inventory is not None) == (key, True)
        assert source.inventory is not None
        assert source.inventory.name == key
        assert source.inventory.left_out == ()


def test_scenes_have_an_inventory():
    source = open_detection("scenes:20")
    assert source.inventory is not None
    assert [part.split for part in source.inventory.splits] == ["train", "val", "test"]
    train = source.inventory.splits[0]
    assert (train.images, train.smallest, train.per_class) == (20, (128, 128), source.train.counts)
    assert str(source.inventory).startswith(
        "Read scenes (drawn from handwritten digits): 5 classes\n  train: 20 images of 128 x 128 pixels, "
    )


def test_names_that_are_no_utf8_can_be_printed_and_hashed(tmp_path):
    write_yolo(tmp_path)
    for folder, ending in (("images", "png"), ("labels", "txt")):
        (tmp_path / folder / f"a.{ending}").rename(tmp_path / folder / os.fsdecode(b"\xff." + ending.encode()))
    (tmp_path / "images" / os.fsdecode(b"\xfe.heic")).touch()
    source = open_detection(str(tmp_path))
    assert str(source.inventory).encode()
    assert "\\xfe.heic" in str(source.inventory)
    assert len(source.train.fingerprint) == 64


def test_classes_match_by_name_then_by_spelling_then_by_tradition():
    teacher = ("person", "dining table", "airplane", "TV", "Cat", "cat", "t-shirt", "unused")
    data = ("CAT", "cat", "diningtable", "aeroplane", "tv_monitor", "T Shirt", "tshirt", "zebra")
    match = match_classes(teacher, data)
    assert match.labels == (5, 6, 2, 3, 4, 7, None, None)
    assert not match.complete
    assert match.describe().splitlines() == [
        "the teacher knows 6 of the data's 8 classes",
        "spelt otherwise: CAT = Cat, diningtable = dining table, aeroplane = airplane, tv_monitor = TV, "
        "T Shirt = t-shirt",
        "unknown to the teacher: tshirt, zebra",
        "2 classes of the teacher not in the data",
    ]


def test_equal_classes_match_completely():
    match = match_classes(["a", "b"], ["b", "a"])
    assert (match.labels, match.complete) == ((2, 1), True)
    assert match.describe() == "the teacher knows 2 of the data's 2 classes"


def test_classes_without_overlap_are_refused():
    with pytest.raises(DistilError) as caught:
        match_classes([f"c{index}" for index in range(15)], ["cat"])
    assert str(caught.value) == (
        "the teacher knows none of the data's classes: it finds c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 and 3 "
        "more; the data has cat. Use a teacher for these classes, or rename the data's classes to the teacher's."
    )


SETS = {
    "bccd": ("coco", (205, 87, 72), 3, 4888),
    "pennfudan": ("coco", (136, 34), 1, 423),
    "coco_sample": ("coco", (12,), 80, 120),
    "voc_sample": ("voc", (10, 4), 20, 31),
}


@pytest.mark.parametrize("name", SETS)
def test_real_data_opens(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {SHARED / name} here")
    key, lengths, classes, objects = SETS[name]
    source = open_detection(str(SHARED / name))
    splits = [split for split in (source.train, source.val, source.test) if split is not None]
    assert (source.key, tuple(map(len, splits))) == (key, lengths)
    assert {len(split.classes) for split in splits} == {classes}
    assert sum(len(split.annotations(index)) for split in splits for index in range(len(split))) == objects
    for split in splits:
        assert len(set(names(split))) == len(split)
        for index in (0, len(split) - 1):
            image, annotations = pickle.loads(pickle.dumps(split))[index]
            height, width = split.size(index)
            assert (image.shape, image.dtype) == ((3, height, width), torch.uint8)
            assert (annotations.boxes[:, :2] >= 0).all()
            assert (annotations.boxes[:, 2:] <= torch.tensor([width, height])).all()
            assert (annotations.boxes[:, 2:] > annotations.boxes[:, :2]).all()


def test_the_crowds_of_the_coco_sample_are_ignored():
    if not (SHARED / "coco_sample").is_dir():
        pytest.skip("no coco_sample here")
    data = open_detection(f"coco:{SHARED / 'coco_sample/annotations/instances_val2017.json'}").train
    assert sum(int(data.annotations(index).ignored.sum()) for index in range(len(data))) == 2
    assert sum(data.counts) == 118
    assert (data.classes[0], data.classes[-1]) == ("person", "toothbrush")
