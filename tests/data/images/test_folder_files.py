"""What is read of a class folder, and what is counted as left out."""

import os
from pathlib import Path

import pytest
from PIL import Image

from distil.data.images.opener import open_source
from distil.errors import DistilError


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("cat", "dog"):
        draw(tmp_path / "photos" / name, 4)
    return tmp_path / "photos"


def draw(folder: Path, count: int, size: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("L", (size, size), 10 * index).save(folder / f"{index}.png")


def count_and_left_out(root: Path) -> tuple[int, list[str]]:
    source = open_source(root)
    assert source.test is not None
    assert source.inventory is not None
    return len(source.train) + len(source.test), [str(part) for part in source.inventory.left_out]


def test_a_linked_folder_is_read(root, tmp_path):
    draw(tmp_path / "more", 3)
    (root / "cat" / "more").symlink_to("../../more")
    assert count_and_left_out(root) == (11, [])


def test_links_that_lead_round_end_and_are_counted(root):
    (root / "cat" / "up").symlink_to("..")
    (root / "cat" / "here").symlink_to(".")
    draw(root / "cat" / "sub", 2)
    (root / "cat" / "again").symlink_to("sub")
    (root / "cat" / "one.png").symlink_to("0.png")
    assert count_and_left_out(root) == (
        10,
        [
            "4 links to what is read already (cat/again, cat/here, cat/one.png, ...): every picture of a class "
            "counts once"
        ],
    )


def test_broken_links_and_special_files_are_counted(root):
    (root / "cat" / "gone.png").symlink_to("nowhere.png")
    (root / "dog" / "self").symlink_to("self")
    os.mkfifo(root / "dog" / "pipe.png")
    assert count_and_left_out(root) == (
        8,
        [
            "2 broken links (cat/gone.png, dog/self): what they point to is missing",
            "1 special file (dog/pipe.png): only regular files are read",
        ],
    )


def test_files_of_other_types_are_counted_by_their_ending(root):
    for name in ("a.HEIC", "b.heic", "notes.txt", "picture"):
        (root / "cat" / name).write_bytes(b"")
    (root / "dog" / "._0.png").write_bytes(b"")
    Image.new("L", (4, 4)).save(root / "loose.png")
    assert count_and_left_out(root) == (
        8,
        [
            "2 files of unknown type (.heic) (cat/a.HEIC, cat/b.heic): if they are pictures, save them as PNG or JPEG",
            "1 file of unknown type (.txt) (cat/notes.txt): if they are pictures, save them as PNG or JPEG",
            "1 file without an ending (cat/picture): if they are pictures, add the ending",
            "1 picture beside the class folders (loose.png): a picture belongs in the folder of its class",
            "1 hidden picture (dog/._0.png): names that begin with a dot, and folders of the system, are passed over",
        ],
    )


def test_many_types_are_summed_up(root):
    for index in range(9):
        (root / "cat" / f"x.t{index}").write_bytes(b"")
    lines = count_and_left_out(root)[1]
    assert len(lines) == 6
    assert lines[-1].startswith("4 files of 4 other unknown types (cat/x.t5")


def test_a_class_of_other_types_alone_says_so(root):
    (root / "owl").mkdir()
    (root / "owl" / "a.HEIC").write_bytes(b"")
    with pytest.raises(DistilError, match=r"folder .*/owl holds no images .* 1 file of unknown type, such as a.HEIC"):
        open_source(root)


def test_names_that_are_no_text_can_be_shown(root):
    bad = Path(os.fsdecode(b"\xff.heic"))
    try:
        (root / "cat" / bad).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert r"cat/\udcff.heic" in count_and_left_out(root)[1][0]
    (root / os.fsdecode(b"\xff")).mkdir()
    draw(root / os.fsdecode(b"\xff"), 2)
    with pytest.raises(DistilError, match="cannot be written as UTF-8: give it another name"):
        open_source(root)


def test_the_inventory_of_a_folder(root):
    Image.new("L", (40, 30)).save(root / "dog" / "large.png")
    source = open_source(root, size=8)
    assert source.inventory is not None
    first, *splits = str(source.inventory).splitlines()
    assert first == "Read photos (folder of images): 2 classes"
    assert splits[1] == "  test: 2 images of 4 x 4 pixels, from 20% of each class, held out with seed 0"
    assert splits[2:] == [
        "  train images by class: cat 3, dog 4",
        "  note: the central square of each image is resized to 8 x 8 pixels",
    ]
    assert splits[0] in (
        "  train: 7 images of 4 x 4 to 40 x 30 pixels, from photos",
        "  train: 7 images of 4 x 4 pixels, from photos",
    )
    assert source.inventory.to_dict()["splits"][0]["per_class"] == (3, 4)
