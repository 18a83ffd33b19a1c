from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from distil.data.detection.opener import open_detection
from distil.data.detection.voc import VOC_CLASSES, open_voc, voc_source
from distil.errors import DistilError

OBJECTS = {
    "1": [("dog", (1, 2, 12, 16), 0), ("cat", (3, 4, 5, 6), 1)],
    "2": [("dog", (2, 2, 4, 4), 0)],
    "3": [],
}


def object_xml(name: str, box: Sequence[float], difficult: int) -> str:
    corners = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    part = f"<part><name>head</name><bndbox>{corners}</bndbox></part>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>{part}</object>"


def write_voc(
    root: Path,
    *,
    objects: Mapping[str, Sequence[tuple[str, Sequence[float], int]]] = OBJECTS,
    lists: Mapping[str, Sequence[str]] | None = None,
    images: str = "JPEGImages",
    xml: str = "Annotations",
    size: str = "<size><width>12</width><height>16</height><depth>3</depth></size>",
) -> None:
    for name, own in objects.items():
        for folder in (root / images, root / xml):
            folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 16), (int(name), 0, 0)).save(root / images / f"{name}.png")
        text = "".join(object_xml(*one) for one in own)
        (root / xml / f"{name}.xml").write_text(f"<annotation>{size}{text}</annotation>")
    for split, names in (lists or {}).items():
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names) + "\n")


def test_corners_that_count_from_one_become_edges(tmp_path):
    write_voc(tmp_path)
    data = open_voc(tmp_path)
    assert data.classes == ("cat", "dog")
    image, found = data[0]
    assert image[0, 0, 0] == 1
    assert found.boxes.tolist() == [[0, 1, 12, 16], [2, 3, 5, 6]]
    assert (found.labels.tolist(), found.ignored.tolist()) == ([2, 1], [False, True])
    assert found.areas.tolist() == [180, 9]
    assert [data.identifier(index) for index in range(3)] == ["1.png", "2.png", "3.png"]
    assert (len(data.annotations(2)), data.size(2)) == (0, (16, 12))
    assert data.counts == (0, 2)


def test_a_devkit_has_the_twenty_classes_and_its_lists(tmp_path):
    lists = {"trainval": ["1", "2"], "train": ["1"], "val": ["2"], "test": ["3"], "dog_train": ["1 1", "2 -1"]}
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", lists=lists, objects={**OBJECTS, "3": OBJECTS["2"]})
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2007"):
        assert open_voc(root, "train").classes == VOC_CLASSES
        assert len(open_voc(root, "trainval", 2007)) == 2
    data = open_voc(tmp_path, "train")
    assert (data.annotations(0).labels.tolist(), data.name) == ([12, 8], "VOC2007 train")
    assert open_voc(tmp_path, "dog_train").identifier(1) == "2.png"
    source = voc_source(tmp_path)
    assert source.test is not None
    assert (source.train.name, source.val, source.test.name) == ("VOC2007 trainval", None, "VOC2007 test")
    with pytest.raises(
        DistilError, match=r"no list .*/all.txt for the split 'all': the lists are dog_train, test, train"
    ):
        open_voc(tmp_path, "all")
    with pytest.raises(DistilError, match="has no VOC2012: found VOC2007"):
        open_voc(tmp_path, "train", 2012)


def test_without_a_test_list_train_and_val_are_the_splits(tmp_path):
    write_voc(tmp_path / "VOC2012", lists={"trainval": ["1", "2"], "train": ["1"], "val": ["2"]})
    source = voc_source(tmp_path)
    assert source.val is not None
    assert (source.train.name, source.val.name, source.test) == ("VOC2012 train", "VOC2012 val", None)
    (tmp_path / "VOC2012" / "ImageSets" / "Main" / "train.txt").unlink()
    assert voc_source(tmp_path).train.name == "VOC2012 trainval"


def test_several_years_need_a_choice(tmp_path):
    for year in (2007, 2012):
        write_voc(tmp_path / f"VOC{year}")
    with pytest.raises(DistilError, match=r"several years, VOC2007, VOC2012: give one of them, as in voc:.*/VOC2007"):
        open_voc(tmp_path)
    assert len(open_voc(tmp_path, year=2012)) == 3


@pytest.mark.parametrize(("images", "xml"), [("images", "Annotations"), (".", ".")])
def test_flat_folders(tmp_path, images, xml):
    write_voc(tmp_path, images=images, xml=xml, size="")
    source = voc_source(tmp_path)
    assert (len(source.train), source.val, source.test) == (3, None, None)
    assert source.train.size(0) == (16, 12)
    assert source.train.image(1)[0, 0, 0] == 2


def test_a_folder_for_each_split(tmp_path):
    write_voc(tmp_path / "train", images=".", xml=".")
    write_voc(tmp_path / "valid", images=".", xml=".", objects={"2": OBJECTS["2"]})
    source = voc_source(tmp_path)
    assert source.val is not None
    assert (len(source.train), len(source.val), source.val.classes) == (3, 1, ("cat", "dog"))


def test_listed_classes_and_unknown_ones(tmp_path):
    write_voc(tmp_path, lists={"train": ["1", "2"], "val": ["3"]}, objects={**OBJECTS, "3": [("ox", (2, 2, 4, 4), 0)]})
    with pytest.raises(DistilError) as caught:
        voc_source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/Annotations/3.xml has an object of class 'ox', which is not among the classes cat, dog: mend the "
        f"name, or list all classes in {tmp_path}/classes.txt, one a line."
    )
    (tmp_path / "classes.txt").write_text("ox\ndog\n\ncat\n")
    source = voc_source(tmp_path)
    assert source.val is not None
    assert source.train.classes == source.val.classes == ("ox", "dog", "cat")
    (tmp_path / "classes.txt").write_text("ox\nox\n")
    with pytest.raises(DistilError, match=r"classes.txt must name each class once"):
        voc_source(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DistilError, match=r"cannot read .*classes.txt"):
        voc_source(tmp_path)


def test_a_box_outside_is_named_or_clipped(tmp_path):
    write_voc(tmp_path, objects={"1": [("dog", (0, 1, 13, 16), 0)], "2": [("cat", (1, 1, 20, 16), 0)]})
    with pytest.raises(DistilError, match=r"the box \(0, 0, 20, 16\) of a cat on image 2.png reaches 8 pixels outside"):
        open_voc(tmp_path)
    data = open_voc(tmp_path, fix_boxes=True)
    assert data.annotations(0).boxes.tolist() == [[0, 0, 12, 16]]
    assert data.note == f"{tmp_path.name}: 1 boxes clipped to their images, 0 without area dropped"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot read .*1.xml: .* Copy or write it again"),
        ("<annotation><object>", r"cannot read .*1.xml"),
        ("<annotation><object><bndbox/></object></annotation>", "1.xml: an object has no name"),
        (
            "<annotation><object><name>a</name><bndbox><xmin>x</xmin></bndbox></object></annotation>",
            r"1.xml: bndbox/xmin of <object> must be a number, not 'x'",
        ),
        (
            "<annotation><object><name>a</name></object></annotation>",
            r"1.xml: bndbox/xmin of <object> must be a number, not None",
        ),
        (
            "<annotation><size><width>7</width></size></annotation>",
            r"1.xml: size/height of <annotation> must be a number",
        ),
        ("<annotation><size><width>inf</width><height>9</height></size></annotation>", "has 1 images and not one"),
        ("<annotation/>", "has 1 images and not one object"),
    ],
)
def test_an_xml_that_is_wrong_is_named(tmp_path, text, message):
    write_voc(tmp_path, objects={"1": OBJECTS["1"]})
    (tmp_path / "Annotations" / "1.xml").write_text(text)
    with pytest.raises(DistilError, match=message):
        open_voc(tmp_path)


def one_object(extra: str = "", right: str = "4") -> str:
    box = f"<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>{right}</xmax><ymax>4</ymax></bndbox>"
    return f"<object><name>dog</name>{extra}{box}</object>"


@pytest.mark.parametrize(
    ("word", "difficult"),
    [
        *((word, False) for word in ("no", "False", "0.0", "", " 0 ", "Unspecified")),
        *((word, True) for word in ("yes", "TRUE", "1", " 1.0 ")),
    ],
)
def test_flags_mean_what_they_say(tmp_path, word, difficult):
    write_voc(tmp_path, objects={"1": OBJECTS["1"], "2": []})
    extra = f"<difficult>{word}</difficult><truncated>1</truncated><occluded>yes</occluded>"
    (tmp_path / "Annotations" / "2.xml").write_text(f"<annotation>{one_object(extra)}</annotation>")
    source = voc_source(tmp_path)
    assert source.train.annotations(1).ignored.tolist() == [difficult]
    assert ("1 object with difficult 'Unspecified' (2.xml): taken as not difficult" in str(source.inventory)) == (
        word == "Unspecified"
    )


def test_a_set_or_class_whose_objects_are_all_difficult_is_named(tmp_path):
    write_voc(tmp_path)
    assert "note: all train objects of cat are ignored: nothing there to learn" in str(voc_source(tmp_path).inventory)
    write_voc(tmp_path, objects={"1": [("dog", (2, 2, 4, 4), 1)], "2": [("dog", (2, 2, 4, 4), 1)]})
    with pytest.raises(DistilError, match=r"all 2 objects are ignored \(COCO's iscrowd or ignore, VOC's difficult\)"):
        voc_source(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html><body/></html>", "1.xml is an xml <html>, not VOC's <annotation>"),
        ("<annotations/>", "1.xml is an xml <annotations>, not VOC's <annotation>"),
        (f"<annotation>{one_object('<difficult>maybe</difficult>')}</annotation>", "difficult of a dog must be 0 or 1"),
        (f"<annotation>{one_object(right='1_0')}</annotation>", "bndbox/xmax of <object> must be a number, not '1_0'"),
        (
            f"<annotation>{one_object(right='nan')}</annotation>",
            r"box \(1, 1, nan, 4\) of a dog on image 1.png holds a",
        ),
        (f"<annotation>{one_object(right='1e308')}</annotation>", "holds a number that is no place in that image of"),
        (
            '<!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>',
            "1.xml declares entities, which annotations do not need",
        ),
        ('<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>', "declares entities"),
        (
            "<annotation><size><width>13</width><height>16</height></size></annotation>",
            "but its annotations are for 13 x",
        ),
    ],
)
def test_an_xml_of_something_else_is_named(tmp_path, text, message):
    write_voc(tmp_path, objects={"1": OBJECTS["1"], "2": OBJECTS["2"]})
    (tmp_path / "Annotations" / "1.xml").write_text(text)
    with pytest.raises(DistilError, match=message):
        voc_source(tmp_path)


def test_objects_that_repeat_are_dropped_and_counted(tmp_path):
    write_voc(tmp_path, objects={"1": [("dog", (2, 2, 4, 4), 0)] * 3 + [("cat", (2, 2, 4, 4), 0)]})
    source = voc_source(tmp_path)
    assert source.train.counts == (1, 1)
    assert "left out: 2 repeated objects (a dog on 1.png, a dog on 1.png): the same class" in str(source.inventory)


def test_names_in_lists_may_hold_spaces_flags_and_endings(tmp_path):
    write_voc(tmp_path)
    for folder, ending in (("JPEGImages", "png"), ("Annotations", "xml")):
        for old, new in (("1", "my pic (1)"), ("2", "a 1"), ("3", "a")):
            (tmp_path / folder / f"{old}.{ending}").rename(tmp_path / folder / f"{new}.{ending}")
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("my pic (1)\n a 1 \n")
    (main / "val.txt").write_text("a  0\n")
    (main / "cat_train.txt").write_text("my pic (1)  1\na 1 -1\na.png\n")
    assert [open_voc(tmp_path, "train").identifier(index) for index in range(2)] == ["my pic (1).png", "a 1.png"]
    assert [open_voc(tmp_path, "cat_train").identifier(index) for index in range(3)] == [
        "my pic (1).png",
        "a 1.png",
        "a.png",
    ]
    with pytest.raises(DistilError, match=r" val has 1 images and not one object"):
        open_voc(tmp_path, "val")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "x/../../1"])
def test_names_in_lists_stay_in_the_folder(tmp_path, name):
    write_voc(tmp_path, lists={"train": [name]})
    with pytest.raises(DistilError, match=r"line 1 of .*train.txt is '.*', which leads out of"):
        voc_source(tmp_path)


@pytest.mark.parametrize("place", ["ImageSets/Main", "ImageSets", "."])
@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Training", "VALIDATION"), ("train2012", "dev")])
def test_lists_are_known_by_many_names_and_places(tmp_path, place, train, val):
    write_voc(tmp_path)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / f"{train}.txt").write_text("1\n")
    (tmp_path / place / f"{val}.txt").write_text("2\n")
    (tmp_path / place / "train_val.txt").write_text("3  1\n")  # VOC's list for the class train
    source = voc_source(tmp_path)
    assert source.val is not None
    assert [source.train.identifier(0), len(source.train), source.val.identifier(0)] == ["1.png", 1, "2.png"]
    told = str(source.inventory)
    assert "left out: 1 xml file (Annotations/3.xml): no list names them" in told
    assert "left out: 1 picture (JPEGImages/3.png): no list names them" in told
    assert ("list of ImageSets" in told) == (place != ".")


@pytest.mark.parametrize("words", [("TRAIN", "Validation"), ("training", "dev")])
@pytest.mark.parametrize("below", [True, False])
def test_folders_are_splits_by_many_names(tmp_path, words, below):
    for word, names in zip(words, ("1", "2"), strict=True):
        part = {name: OBJECTS[name] for name in names}
        if below:
            write_voc(tmp_path, images=f"JPEGImages/{word}", xml=f"Annotations/{word}", objects=part)
        else:
            write_voc(tmp_path / word, objects=part)
    source = open_detection(str(tmp_path))
    assert source.val is not None
    assert (source.key, source.train.identifier(0), source.val.identifier(0)) == ("voc", "1.png", "2.png")


def test_two_folders_for_one_split_and_none_for_training_are_refused(tmp_path):
    write_voc(tmp_path / "val")
    with pytest.raises(DistilError, match=r"has no train split, only val"):
        voc_source(tmp_path)
    write_voc(tmp_path / "valid")
    with pytest.raises(DistilError, match=r"two folders for the val split, .*/val and .*/valid: keep one"):
        voc_source(tmp_path)


def test_a_test_list_without_annotations_is_told_and_not_offered(tmp_path):
    write_voc(tmp_path, lists={"train": ["1"], "val": ["2"], "test": ["3"]}, objects={**OBJECTS, "3": OBJECTS["2"]})
    (tmp_path / "Annotations" / "3.xml").unlink()
    source = voc_source(tmp_path)
    assert source.test is None
    assert source.inventory is not None
    assert [str(part) for part in source.inventory.left_out] == [
        "1 test split (ImageSets/Main/test.txt with 1 image): no annotations"
    ]


def test_one_class_in_two_unicode_forms_is_one(tmp_path):
    write_voc(tmp_path, objects={"1": [("caf\u00e9", (2, 2, 4, 4), 0)], "2": [("cafe\u0301 ", (2, 2, 4, 4), 0)]})
    assert open_voc(tmp_path).classes == ("caf\u00e9",)


def test_a_list_that_names_an_image_twice_is_refused_before_any_xml_is_read(tmp_path):
    write_voc(tmp_path / "VOC2007", lists={"trainval": ["1", "2", *["1"] * 1000]})
    for path in tmp_path.rglob("*.xml"):
        path.write_text("no xml")
    with pytest.raises(DistilError, match=r"VOC2007 trainval has the image 1 twice: keep one entry"):
        open_voc(tmp_path, "trainval", 2007)


def test_missing_files_are_named(tmp_path):
    write_voc(tmp_path, lists={"train": ["1", "2"], "empty": [], "odd": ["9"]})
    with pytest.raises(DistilError, match=r"empty.txt is empty: list one image a line"):
        open_voc(tmp_path, "empty")
    Image.new("RGB", (12, 16)).save(tmp_path / "JPEGImages" / "9.png")
    with pytest.raises(DistilError, match=r"the annotations .*9.xml are missing"):
        open_voc(tmp_path, "odd")
    (tmp_path / "JPEGImages" / "2.png").unlink()
    with pytest.raises(DistilError, match=r"the image 2 of .*2.xml is missing: put it into JPEGImages"):
        open_voc(tmp_path, "train")
    Image.new("RGB", (12, 16)).save(tmp_path / "JPEGImages" / "1.jpg")
    with pytest.raises(DistilError, match=r"1.jpg and .*1.png would share their annotations"):
        open_voc(tmp_path, "train")


def test_layouts_that_are_none(tmp_path):
    with pytest.raises(DistilError, match=r"no folder at .*none. Expected ROOT/VOCdevkit/VOC2007"):
        open_voc(tmp_path / "none")
    with pytest.raises(DistilError, match="has no Annotations"):
        open_voc(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(DistilError, match="Annotations has no xml"):
        open_voc(tmp_path)
    write_voc(tmp_path, lists={"test": ["1"]})
    with pytest.raises(DistilError, match=r"has no train.txt and no trainval.txt: found test"):
        voc_source(tmp_path)
