"""The block of text that tells what was read."""

import json

from distil.data.inventory import Inventory, LeftOut, SplitInventory


def image_inventory() -> Inventory:
    train = SplitInventory("train", "photos/Training", 1200, (700, 500), (20, 30), (480, 640))
    test = SplitInventory("test", "photos/Testing", 1, (1, 0), (32, 32), (32, 32))
    heic = LeftOut(
        "files of unknown type (.heic)", 6, "save them as PNG or JPEG", ("a.HEIC", "b.HEIC", "c.HEIC", "d.HEIC")
    )
    return Inventory("photos", "folder of images", ("cat", "dog"), (train, test), (heic,), ("the sun shines",))


def test_images_are_told_by_split_class_and_what_was_left_out() -> None:
    assert str(image_inventory()) == (
        "Read photos (folder of images): 2 classes\n"
        "  train: 1,200 images of 30 x 20 to 640 x 480 pixels, from photos/Training\n"
        "  test: 1 image of 32 x 32 pixels, from photos/Testing\n"
        "  train images by class: cat 700, dog 500\n"
        "  left out: 6 files of unknown type (.heic) (a.HEIC, b.HEIC, c.HEIC, ...): save them as PNG or JPEG\n"
        "  note: the sun shines"
    )


def test_objects_are_told_where_there_are_boxes() -> None:
    train = SplitInventory("train", "", 3, (7,), (32, 32), (32, 32), objects=9, ignored=2, empty=1)
    assert str(Inventory("scenes", "COCO json", ("cell",), (train,))) == (
        "Read scenes (COCO json): 1 class\n"
        "  train: 3 images of 32 x 32 pixels, 9 objects (2 ignored), 1 image without objects\n"
        "  train objects by class: cell 7"
    )


def test_many_classes_are_summed_up() -> None:
    names = tuple(f"class{index}" for index in range(20))
    train = SplitInventory("train", "", 210, tuple(range(1, 21)), (8, 8), (8, 8))
    line = str(Inventory("many", "npz", names, (train,))).splitlines()[-1]
    assert line.startswith("  train images by class: class0 1, class1 2, ")
    assert line.endswith(", class11 12 and 8 more with 13 to 20 each")


def test_the_record_goes_through_json() -> None:
    record = json.loads(json.dumps(image_inventory().to_dict()))
    assert record["splits"][1]["origin"] == "photos/Testing"
    assert record["left_out"][0]["count"] == 6
