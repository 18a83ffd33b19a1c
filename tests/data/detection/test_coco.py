import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distil.data.detection.coco import coco_source, open_coco
from distil.errors import DistilError

CONTENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.png", "width": 30, "height": 20},
        {"id": 3, "file_name": "a.png", "width": 12, "height": 16},
        {"id": 9, "file_name": "empty.png", "width": 8, "height": 8},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 18, "bbox": [1, 2, 5, 6], "area": 17.5, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 30, 20], "area": 600, "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [2.5, 3, 4, 4]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 2, "name": "cat"}],
}


def write_images(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        Image.new("RGB", (entry["width"], entry["height"]), (entry["id"], 1, 2)).save(folder / entry["file_name"])


def write_coco(
    root: Path, *, name: str = "instances_train.json", json_folder: str = ".", images: str = "images", content=CONTENT
) -> Path:
    write_images(root / images, content)
    path = root / json_folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def changed(edit) -> dict[str, Any]:
    content = deepcopy(CONTENT)
    edit(content)
    return content


def open_changed(tmp_path, edit, **options):
    path = write_coco(tmp_path)
    path.write_text(json.dumps(changed(edit)))
    return open_coco(tmp_path / "images", path, **options)


def test_a_json_is_read(tmp_path):
    data = open_coco(tmp_path / "images", write_coco(tmp_path))
    assert (data.classes, data.name, data.note) == (("cat", "dog"), "instances_train.json", "")
    assert [data.identifier(index) for index in range(3)] == ["b.png", "a.png", "empty.png"]
    assert [data.size(index) for index in range(3)] == [(20, 30), (16, 12), (8, 8)]
    image, found = data[1]
    assert image[:, 0, 0].tolist() == [3, 1, 2]
    assert found.boxes.tolist() == [[1, 2, 6, 8], [2.5, 3, 6.5, 7]]
    assert found.boxes.dtype == torch.float32
    assert (found.labels.tolist(), found.labels.dtype) == ([2, 1], torch.int64)
    assert (found.areas.tolist(), found.ignored.tolist()) == ([17.5, 16.0], [False, False])
    assert data.annotations(0).ignored.tolist() == [True]
    assert len(data.annotations(2)) == 0
    assert data.annotations(2).boxes.shape == (0, 4)
    assert data.counts == (1, 1)
    assert data.tags(1) == [frozenset(), frozenset()]


def test_sizes_are_read_from_the_pictures_where_the_json_has_none(tmp_path):
    data = open_changed(tmp_path, lambda content: content["images"][1].pop("width"))
    assert data.size(1) == (16, 12)


def test_a_pixel_outside_is_clipped_without_a_word(tmp_path):
    def edit(content):
        content["annotations"][0]["bbox"] = [-1, 2, 14, 6]

    data = open_changed(tmp_path, edit)
    assert data.annotations(1).boxes[0].tolist() == [0, 2, 12, 8]
    assert data.annotations(1).areas[0] == 72
    assert data.note == ""


def test_boxes_outside_are_named_or_clipped(tmp_path):
    def edit(content):
        content["annotations"][0]["bbox"] = [1, 2, 15, 6]
        content["annotations"][2]["bbox"] = [-9, 3, 4, 4]

    with pytest.raises(DistilError) as caught:
        open_changed(tmp_path, edit)
    assert str(caught.value) == (
        "instances_train.json: the box (1, 2, 16, 8) of annotation 1 on image a.png reaches 4 pixels outside that "
        "image of 12 x 16 pixels (x1, y1, x2, y2; width x height). 2 such boxes in all. Mend the annotations, or: "
        "fix_boxes=True clips boxes to their images and drops those without area."
    )
    data = open_changed(tmp_path, edit, fix_boxes=True)
    assert data.annotations(1).boxes.tolist() == [[1, 2, 12, 8]]
    assert data.note == "instances_train.json: 1 boxes clipped to their images, 1 without area dropped"
    assert data.describe().endswith(data.note)


@pytest.mark.parametrize("bbox", [[1, 2, 0, 6], [1, 2, 5, -1], [12.5, 2, 0.4, 6]])
def test_boxes_without_area_are_named_or_dropped(tmp_path, bbox):
    def edit(content):
        content["annotations"][0]["bbox"] = bbox

    with pytest.raises(DistilError, match=r"of annotation 1 on image a.png has no area inside that image of 12 x 16 "):
        open_changed(tmp_path, edit)
    data = open_changed(tmp_path, edit, fix_boxes=True)
    assert data.annotations(1).labels.tolist() == [1]
    assert data.note.endswith("0 boxes clipped to their images, 1 without area dropped")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308, -1e308, 10**400])
def test_numbers_that_are_no_place_are_named_or_dropped(tmp_path, number):
    def edit(content):
        content["annotations"][0]["bbox"] = [1, 2, number, 6]

    with pytest.raises(
        DistilError, match=r"of annotation 1 on image a.png holds a number that is no place in that image"
    ):
        open_changed(tmp_path, edit)
    data = open_changed(tmp_path, edit, fix_boxes=True)
    assert data.annotations(1).labels.tolist() == [1]
    assert data.note.endswith("0 boxes clipped to their images, 1 without area dropped")


def test_shares_in_place_of_pixels_are_told(tmp_path):
    def edit(content):
        for entry in content["annotations"]:
            entry["bbox"] = [0.1, 0.2, 0.5, 0.5]

    for fix_boxes in (False, True):
        with pytest.raises(DistilError, match=r"these look like shares of the image, and boxes here are in pixels"):
            open_changed(tmp_path, edit, fix_boxes=fix_boxes)


def test_corners_in_place_of_sides_are_told(tmp_path):
    def edit(content):
        for entry, box in zip(content["annotations"], ([6, 8, 12, 15], [10, 10, 30, 20], [2, 9, 10, 14]), strict=True):
            entry["bbox"] = box

    with pytest.raises(DistilError, match=r"All boxes would lie in their images if their four numbers were corners"):
        open_changed(tmp_path, edit)


@pytest.mark.parametrize(
    ("value", "crowd"),
    [
        *((value, False) for value in ("0", "false", " No ", 0.0, None, False, "Unspecified")),
        *((value, True) for value in ("1", "TRUE", "yes", 1.0, True, "1.0")),
    ],
)
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_flags_mean_what_they_say(tmp_path, key, value, crowd):
    data = open_changed(tmp_path, lambda content: content["annotations"][0].update({key: value}))
    assert data.annotations(1).ignored.tolist() == [crowd, False]


@pytest.mark.parametrize("value", ["maybe", 2, -1, [], {}, float("nan")])
def test_flags_that_say_neither_are_refused(tmp_path, value):
    with pytest.raises(DistilError, match=r"iscrowd of annotation 1 must be 0 or 1, not "):
        open_changed(tmp_path, lambda content: content["annotations"][0].update(iscrowd=value))


def test_a_set_or_class_whose_objects_are_all_ignored_is_named(tmp_path):
    with pytest.raises(
        DistilError, match=r"instances_train.json: all 3 objects are ignored \(COCO's iscrowd or ignore"
    ):
        open_changed(tmp_path, lambda content: [entry.update(iscrowd="1") for entry in content["annotations"]])
    path = write_coco(tmp_path)
    path.write_text(json.dumps(changed(lambda content: content["annotations"][0].update(iscrowd=1))))
    inventory = coco_source(tmp_path).inventory
    assert inventory is not None
    assert "all train objects of dog are ignored: nothing there to learn from or to find" in inventory.notes


def test_annotations_that_repeat_are_dropped_and_counted(tmp_path):
    def edit(content):
        content["annotations"] += [{**content["annotations"][0], "id": 9}, {**content["annotations"][0], "id": 10}]
        content["annotations"].append({**content["annotations"][0], "id": 11, "category_id": 2})

    data = open_changed(tmp_path, edit)
    assert data.annotations(1).labels.tolist() == [2, 1, 1]
    assert data.note == "instances_train.json: 2 repeated objects dropped"
    inventory = coco_source(tmp_path).inventory
    assert inventory is not None
    assert str(inventory.left_out[0]) == (
        "2 repeated objects (annotation 9 on a.png, annotation 10 on a.png): the same class and box on the same image "
        "again"
    )


@pytest.mark.parametrize(
    "respelt",
    [str, lambda value: f" {value}", lambda value: f"{value:06d}", float],
    ids=["text", "space", "zeros", "1.0"],
)
def test_ids_are_found_in_another_spelling(tmp_path, respelt):
    def edit(content):
        for entry in content["annotations"]:
            entry.update(image_id=respelt(entry["image_id"]), category_id=respelt(entry["category_id"]))

    data = open_changed(tmp_path, edit)
    assert data.counts == (1, 1)


def test_ids_that_two_spellings_share_are_not_guessed(tmp_path):
    def edit(content):
        content["images"][0]["id"] = "03"
        content["annotations"][1]["image_id"] = "003"

    with pytest.raises(DistilError, match=r"annotation 2 is on image_id '003', which no image has"):
        open_changed(tmp_path, edit)


def test_file_names_in_another_spelling_are_read_and_told(tmp_path):
    names = {"b.png": "B.PNG", "a.png": "%61.png", "empty.png": ".\\empty.png"}

    def edit(content):
        for entry in content["images"]:
            entry["file_name"] = names[entry["file_name"]]

    path = write_coco(tmp_path)
    path.write_text(json.dumps(changed(edit)))
    source = coco_source(tmp_path)
    assert source.inventory is not None
    assert [source.train.image(index)[0, 0, 0].item() for index in range(3)] == [7, 3, 9]
    assert any(
        note.startswith("2 file names spelt otherwise than on disk (B.PNG is b.png") for note in source.inventory.notes
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "the file name '/etc/passwd' is absolute"),
        ("C:\\pictures\\a.png", "is absolute"),
        ("https://example.org/a.png", "is absolute"),
        ("../../a.png", "the file name '../../a.png' leads out of the folder of the images"),
        ("x/../../a.png", "leads out of the folder"),
        ("..\\a.png", "leads out of the folder"),
        ("a\0.png", "no file can be called"),
        ("a" * 300 + ".png", "no file can be called 'aaa"),
    ],
)
def test_file_names_outside_the_folder_are_refused(tmp_path, name, message):
    path = write_coco(tmp_path)
    path.write_text(json.dumps(changed(lambda content: content["images"][0].update(file_name=name))))
    for open_it in (lambda: open_coco(tmp_path / "images", path), lambda: coco_source(tmp_path)):
        with pytest.raises(DistilError, match=message) as caught:
            open_it()
        assert "instances_train.json" in str(caught.value)


def test_boxes_that_all_have_to_be_dropped(tmp_path):
    def edit(content):
        for entry in content["annotations"]:
            entry["bbox"] = [50, 50, 5, 5]

    with pytest.raises(DistilError, match="not one box has an area inside its image"):
        open_changed(tmp_path, edit, fix_boxes=True)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("annotations"), "has no 'annotations': found 'images', 'categories'. A detection json has"),
        (lambda c: c.pop("images"), "has no 'images'"),
        (lambda c: c.pop("categories"), "has no 'categories'"),
        (lambda c: c.update(annotations=[]), "has 3 images and not one object"),
        (lambda c: c.update(images=[], annotations=[]), "has no images"),
        (lambda c: c.update(categories=[]), "'categories' is empty"),
        (lambda c: c.update(images={}), "'images' must be a list of objects"),
        (lambda c: c.update(images=[3]), "'images' must be a list of objects"),
        (lambda c: c["images"][0].update(id=3), r"the image id 3 is given twice, by {\"id\": 3, .*b.png.* and .*a.png"),
        (lambda c: c["images"][0].pop("id"), "the image {.*} must have an id, a whole number, not None"),
        (lambda c: c["images"][0].update(id=[1]), r"must have an id, a whole number, not \[1\]"),
        (lambda c: c["images"][0].update(file_name="a.png"), "has the image a.png twice"),
        (lambda c: c["images"][0].update(file_name=4), "'file_name' of {.*} must be a text, not 4"),
        (lambda c: c["images"][0].update(width=0), "width and height of {.*} must be whole numbers of pixels"),
        (lambda c: c["images"][0].update(width=True), "width and height of {.*} must be whole numbers of pixels"),
        (lambda c: c["images"][0].update(width=-30), "width and height of {.*} must be whole numbers of pixels"),
        (lambda c: c["images"][0].update(width=10**400), "width and height of {.* must be whole numbers of pixels"),
        (
            lambda c: c["annotations"][1].update(category_id=True),
            "annotation 2 has category_id True, which no category",
        ),
        (lambda c: c["annotations"][1].update(image_id=10**400), "annotation 2 is on image_id 1000"),
        (lambda c: c["annotations"][1].update(bbox=[True, 1, 2, 3]), "bbox of annotation 2 must be four numbers"),
        (
            lambda c: c["annotations"][1].update(bbox=[], segmentation=[[1, 2, 3, 4, 5, 6]]),
            r"annotation 2 must be four numbers .*, not \[\]. It has a segmentation: the bounding box of that",
        ),
        (lambda c: c["categories"][0].update(name=" "), "the name of category 18 is empty: give it one"),
        (lambda c: c["categories"][0].update(name="cat "), "category name 'cat' is given twice"),
        (
            lambda c: c["images"].append({**c["images"][0], "id": 5, "file_name": "./b.png"}),
            "has the image ./b.png twice",
        ),
        (lambda c: c["images"][0].update(width="wide"), "width and height of {.*} must be whole numbers of pixels"),
        (lambda c: c["images"][0].update(width=float("inf")), "width and height of {.*} must be whole numbers"),
        (lambda c: c["annotations"][1].update(bbox=5), "bbox of annotation 2 must be four numbers .*, not 5"),
        (lambda c: c["annotations"][1].update(bbox=[5]), r"bbox of annotation 2 must be four numbers .*, not \[5\]"),
        (lambda c: c["annotations"][1].update(bbox=[None, 1, 2, 3]), "bbox of annotation 2 must be four numbers"),
        (lambda c: c["images"][0].update(file_name="c.png"), r"the image .*/c.png of .* is missing: put it there"),
        (lambda c: c["annotations"][1].update(id=1), "the annotation id 1 is given twice"),
        (lambda c: c["annotations"][1].update(image_id=4), "annotation 2 is on image_id 4, which no image has"),
        (lambda c: c["annotations"][1].update(image_id=[]), r"annotation 2 is on image_id \[\], which no image has"),
        (lambda c: c["annotations"][1].update(category_id=5), "annotation 2 has category_id 5, which no category has"),
        (lambda c: c["annotations"][1].pop("bbox"), r"bbox of annotation 2 must be four numbers .*, not None"),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, 3]),
            r"bbox of annotation 2 must be four numbers .*\[1, 2, 3\]",
        ),
        (lambda c: c["annotations"][1].update(bbox=["x", 2, 3, 4]), r"bbox of annotation 2 must be four numbers"),
        (lambda c: c["categories"][0].update(id=2), "the category id 2 is given twice"),
        (lambda c: c["categories"][0].update(id="2"), "category ids must be all whole numbers or all texts"),
        (lambda c: c["categories"][0].update(name="cat"), "category name 'cat' is given twice"),
    ],
)
def test_a_json_that_is_wrong_is_named(tmp_path, edit, message):
    with pytest.raises(DistilError, match=message) as caught:
        open_changed(tmp_path, edit)
    assert "instances_train.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100000])
def test_a_file_that_is_no_json(tmp_path, content):
    path = write_coco(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DistilError, match=r"cannot read .*instances_train.json: .* Copy or write it again"):
        open_coco(tmp_path / "images", path)


def test_a_json_of_something_else_and_none(tmp_path):
    path = write_coco(tmp_path)
    path.write_text("[1]")
    with pytest.raises(DistilError, match=r"instances_train.json is a json list, not COCO's object with images"):
        open_coco(tmp_path / "images", path)
    with pytest.raises(DistilError, match=r"no file at .*none.json: give a COCO json"):
        open_coco(tmp_path / "images", tmp_path / "none.json")


def test_a_corrupt_or_another_picture_is_named_when_it_is_read(tmp_path):
    data = open_coco(tmp_path / "images", write_coco(tmp_path))
    picture = tmp_path / "images" / "a.png"
    Image.new("RGB", (16, 12)).save(picture)
    with pytest.raises(
        DistilError, match=r"a.png has 16 x 12 pixels \(width x height\), but its annotations are for 12"
    ):
        data.image(1)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)).save(picture)
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(DistilError, match=r"cannot read the image .*a.png: .* Replace it or leave it out"):
        data.image(1)
    picture.unlink()
    with pytest.raises(DistilError, match=r"the image .*a.png is missing"):
        data.image(1)


def test_pictures_of_every_mode_become_rgb(tmp_path):
    data = open_coco(tmp_path / "images", write_coco(tmp_path))
    for mode, color in (("L", 9), ("P", 0), ("RGBA", (9, 9, 9, 255)), ("I;16", 9 * 257)):
        Image.new(mode, (12, 16), color).save(tmp_path / "images" / "a.png")
        image = data.image(1)
        assert (image.shape, image.dtype, image.is_contiguous()) == ((3, 16, 12), torch.uint8, True)
        assert image.unique().tolist() == [0 if mode == "P" else 9]


def test_a_picture_is_turned_only_where_that_gives_the_annotated_size(tmp_path):
    data = open_coco(tmp_path / "images", write_coco(tmp_path))
    pixels = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(16, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=exif)
    assert data.image(1).tolist() == pixels.transpose(2, 0, 1).tolist()
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "images" / "a.png", exif=exif)
    assert data.image(1).tolist() == pixels.transpose(2, 0, 1).tolist()


def test_the_splits_of_a_folder(tmp_path):
    for split in ("train", "val", "test"):
        write_coco(tmp_path, name=f"instances_{split}.json")
    source = coco_source(tmp_path)
    assert source.val is not None
    assert source.test is not None
    assert [split.name for split in (source.train, source.val, source.test)] == [
        f"{tmp_path.name} instances_{split}" for split in ("train", "val", "test")
    ]
    assert (source.key, source.note) == ("coco", "")


def test_the_official_layout(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco(tmp_path, name=f"instances_{split}.json", json_folder="annotations", images=split)
    write_coco(tmp_path, name="person_keypoints_train2017.json", json_folder="annotations", images="train2017")
    write_coco(tmp_path, name="image_info_test2017.json", json_folder="annotations", images="test2017")
    source = coco_source(tmp_path)
    assert source.val is not None
    assert source.test is None
    assert (len(source.train), len(source.val)) == (3, 3)
    write_coco(tmp_path, name="instances_train2014.json", json_folder="annotations", images="train2014")
    with pytest.raises(DistilError, match=r"two files for the train split, .*2014.json and .*2017.json: keep one"):
        coco_source(tmp_path)
    one = coco_source(tmp_path / "annotations" / "instances_train2014.json")
    assert (len(one.train), one.val, one.test, one.note) == (3, None, None, "")


def test_a_folder_for_each_split(tmp_path):
    for split in ("train", "valid"):
        write_coco(tmp_path, name="_annotations.coco.json", json_folder=split, images=split)
    source = coco_source(tmp_path)
    assert source.val is not None
    assert len(source.val) == 3


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("training", "validation", "testing"), ("TRAIN", "Dev", "TEST"), ("TrainSet", "eval", "tests")],
)
def test_splits_are_known_by_many_words(tmp_path, train, val, test):
    for word in (train, val, test):
        write_coco(tmp_path, name=f"{word}.json", images=f"images/{word}")
        write_coco(tmp_path / "folders", name="_annotations.coco.json", json_folder=word, images=word)
    for source in (coco_source(tmp_path), coco_source(tmp_path / "folders")):
        assert source.val is not None
        assert (source.test is None) == (test == "tests")
        assert "Read" in str(source.inventory)


@pytest.mark.parametrize("lists", [("images",), ("images", "categories"), ("images", "annotations", "categories")])
def test_a_test_split_without_annotations_is_told_and_not_offered(tmp_path, lists):
    write_coco(tmp_path)
    content = {"annotations": [], **{key: CONTENT[key] for key in lists if key != "annotations"}}
    (tmp_path / "instances_test.json").write_text(json.dumps({key: content[key] for key in lists}))
    source = coco_source(tmp_path)
    assert source.test is None
    assert source.inventory is not None
    assert [str(part) for part in source.inventory.left_out] == [
        "1 test split (instances_test.json with 3 images): no annotations"
    ]


def test_what_is_left_out_is_told(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, name="captions_train.json")
    (tmp_path / "notes.json").write_text("{}")
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "more.png")
    (tmp_path / "images" / "IMG_1.HEIC").write_bytes(b"")
    (tmp_path / "test2017").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "test2017" / "1.png")
    (tmp_path / "val.json").write_text((tmp_path / "instances_train.json").read_text())
    source = coco_source(tmp_path)
    assert source.inventory is not None
    assert str(source.inventory).splitlines() == [
        f"Read {tmp_path.name} (COCO json): 2 classes",
        "  train: 3 images of 8 x 8 to 30 x 20 pixels, 3 objects (1 ignored), 1 image without objects, from "
        "instances_train.json",
        "  val: 3 images of 8 x 8 to 30 x 20 pixels, 3 objects (1 ignored), 1 image without objects, from val.json",
        "  train objects by class: cat 1, dog 1",
        "  left out: 1 json file (captions_train.json): named as those of COCO's other tasks",
        "  left out: 1 json file (notes.json): no word such as train, val or test in the name",
        "  left out: 1 picture (images/more.png): no json names them",
        "  left out: 1 folder (test2017 with 1 picture): no split uses it",
        "  left out: 1 file of unknown type (.heic) (images/IMG_1.HEIC): save pictures as PNG or JPEG to have them "
        "read",
        "  note: the train and the val split share 3 pictures, such as a.png: scores on val images will be too high",
    ]


def test_one_json_is_the_training_split_and_says_so(tmp_path):
    write_coco(tmp_path, name="instances_val2017.json", json_folder="annotations", images="val2017")
    source = coco_source(tmp_path)
    assert (source.val, source.test) == (None, None)
    assert source.note == "the only annotations, instances_val2017.json, are taken as the training split"


def test_notes_of_the_splits_are_joined(tmp_path):
    def edit(content):
        content["annotations"][0]["bbox"] = [1, 2, 15, 6]

    for split in ("train", "val"):
        write_coco(tmp_path, name=f"{split}.json", content=changed(edit))
    note = coco_source(tmp_path, fix_boxes=True).note
    assert note == "; ".join(
        f"{tmp_path.name} {split}: 1 boxes clipped to their images, 0 without area dropped"
        for split in ("train", "val")
    )


def test_splits_with_different_categories(tmp_path):
    write_coco(tmp_path)
    edit = changed(lambda c: c["categories"][0].update(name="wolf"))
    write_coco(tmp_path, name="instances_val.json", content=edit)
    with pytest.raises(
        DistilError, match=r"different categories: 'dog' only in the first, 'wolf' only in the second\."
    ):
        coco_source(tmp_path)
    swapped = changed(lambda c: [entry.update(id=20 - entry["id"]) for entry in c["categories"]])
    for entry in swapped["annotations"]:
        entry["category_id"] = 20 - entry["category_id"]
    write_coco(tmp_path, name="instances_val.json", content=swapped)
    with pytest.raises(DistilError, match=r"only in the second, but in another order of ids\. Give both the same list"):
        coco_source(tmp_path)


def test_a_folder_without_its_parts(tmp_path):
    with pytest.raises(DistilError, match=r"holds no COCO json. Expected FOLDER/instances_train.json"):
        coco_source(tmp_path)
    write_coco(tmp_path, name="instances_val.json")
    write_coco(tmp_path, name="instances_test.json")
    with pytest.raises(DistilError, match=r"has no json for training among instances_test.json, instances_val.json"):
        coco_source(tmp_path)
    path = write_coco(tmp_path, name="instances_train.json")
    for picture in (tmp_path / "images").iterdir():
        picture.unlink()
    with pytest.raises(DistilError, match=rf"the image b.png of {path} is in none of .*/images/train.*, .*/images"):
        coco_source(tmp_path)
