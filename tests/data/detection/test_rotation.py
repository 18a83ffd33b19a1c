"""Pictures with a rotation tag: pixels and boxes stay in one frame, whatever the mode."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from distil.data.detection.coco import coco_source, open_coco
from distil.data.detection.rotation import Header, orientation_of, read_headers
from distil.data.detection.yolo import open_yolo
from distil.errors import DistilError

MODES = ("RGB", "L", "CMYK", "RGBA", "LA", "P", "I;16", "1")


def picture(mode: str, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """Dark, with a bright upper left quarter."""
    pixels = np.full((size[1], size[0]), 10, dtype=np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 240
    grey = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16) * 257)
    return grey.convert("RGB").convert(mode) if mode in ("CMYK", "P") else grey.convert(mode)


def save(path: Path, image: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))  # pyright: ignore


def write_coco(root: Path, size: tuple[int, int] | None, box: list[float], name: str) -> Path:
    sides = {} if size is None else {"width": size[0], "height": size[1]}
    content = {
        "images": [{"id": 1, "file_name": name, **sides}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = root / "instances_train.json"
    path.write_text(json.dumps(content))
    return path


def ending(mode: str) -> str:
    return {"CMYK": "jpg"}.get(mode, "png")


def assert_bright_in_the_box(image: torch.Tensor, box: list[float]) -> None:
    left, top, right, bottom = (int(value) for value in box)
    bright = image[0] > 128
    assert bright[top:bottom, left:right].float().mean() > 0.9
    assert bright.sum() <= 1.1 * (right - left) * (bottom - top)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_coco_pictures_are_read_as_stored_where_the_json_is_for_that(tmp_path, mode, orientation):
    name = f"a.{ending(mode)}"
    save(tmp_path / name, picture(mode), orientation)
    image, found = open_coco(tmp_path, write_coco(tmp_path, (24, 16), [0, 0, 12, 8], name))[0]
    assert image.shape == (3, 16, 24)
    assert_bright_in_the_box(image, found.boxes[0].tolist())


@pytest.mark.parametrize("mode", MODES)
def test_coco_pictures_are_turned_where_the_json_is_for_that(tmp_path, mode):
    name = f"a.{ending(mode)}"
    save(tmp_path / name, picture(mode), 6)  # the upper left quarter moves to the upper right
    image, found = open_coco(tmp_path, write_coco(tmp_path, (16, 24), [8, 0, 8, 12], name))[0]
    assert image.shape == (3, 24, 16)
    assert_bright_in_the_box(image, found.boxes[0].tolist())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_yolo_pictures_are_turned(tmp_path, mode, orientation):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    path = tmp_path / "images" / f"a.{ending(mode)}"
    save(path, picture(mode), orientation)
    upright = np.asarray(ImageOps.exif_transpose(picture("L")) if orientation == 1 else turned(orientation))
    rows, columns = np.nonzero(upright > 128)
    height, width = upright.shape
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    center = f"{(left + right) / 2 / width} {(top + bottom) / 2 / height}"
    (tmp_path / "labels" / "a.txt").write_text(f"0 {center} {(right - left) / width} {(bottom - top) / height}")
    image, found = open_yolo(tmp_path)[0]
    assert image.shape == (3, height, width)
    assert_bright_in_the_box(image, found.boxes[0].tolist())


def turned(orientation: int) -> Image.Image:
    """What Pillow makes of the tag."""
    image = picture("L")
    image.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(image)


@pytest.mark.parametrize(
    ("stored", "size", "orientation", "told"),
    [
        ((24, 16), (24, 16), 6, "1 as stored, because the annotated width and height are those of the stored picture"),
        ((24, 16), (16, 24), 6, "1 turned as it says, because the annotated width and height are those of the turned"),
        ((24, 16), (24, 16), 3, "1 as stored (a.png), because nothing in the annotations tells on which way up"),
        ((16, 16), (16, 16), 6, "1 as stored (a.png), because nothing in the annotations tells on which way up"),
        ((24, 16), None, 6, "1 as stored (a.png), because nothing in the annotations tells on which way up"),
    ],
)
def test_how_turned_pictures_are_read_is_told(tmp_path, stored, size, orientation, told):
    save(tmp_path / "a.png", picture("RGB", stored), orientation)
    write_coco(tmp_path, size, [0, 0, 12, 8], "a.png")
    assert f"note: 1 picture with an EXIF rotation tag: {told}" in str(coco_source(tmp_path).inventory)


def test_boxes_for_the_turned_picture_are_told_and_never_cut(tmp_path):
    save(tmp_path / "a.png", picture("RGB"), 6)
    path = write_coco(tmp_path, None, [2, 3, 10, 20], "a.png")
    for fix_boxes in (False, True):
        with pytest.raises(DistilError) as caught:
            open_coco(tmp_path, path, fix_boxes=fix_boxes)
        assert str(caught.value) == (
            "instances_train.json: the box (2, 3, 12, 23) of annotation 1 is for the turned picture a.png: as stored "
            "it has 24 x 16 pixels (width x height), and its EXIF rotation tag (6) makes that 16 x 24. Write width and "
            "height of the turned picture into the annotations, or save the pictures upright. fix_boxes would cut "
            "the boxes at wrong places."
        )
    save(tmp_path / "a.png", picture("RGB"), 1)
    assert open_coco(tmp_path, path, fix_boxes=True).annotations(0).boxes.tolist() == [[2, 3, 12, 16]]


def test_another_size_is_told_before_anything_is_read(tmp_path):
    save(tmp_path / "a.png", picture("RGB"), 1)
    with pytest.raises(
        DistilError, match=r"a.png has 24 x 16 pixels .*for 16 x 24: .* Its width and height are swapped"
    ):
        open_coco(tmp_path, write_coco(tmp_path, (16, 24), [0, 0, 4, 4], "a.png"))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_broken_exif_is_no_exif(tmp_path, exif):
    for name in ("a.jpg", "a.png", "a.webp"):
        picture("RGB").save(tmp_path / name, exif=exif)
        assert read_headers([tmp_path / name]) == [Header((16, 24), 1)]
        data = open_coco(tmp_path, write_coco(tmp_path, (24, 16), [0, 0, 12, 8], name))
        assert data.image(0).shape == (3, 16, 24)


def test_the_tag_of_a_png_needs_no_pixels(tmp_path):
    save(tmp_path / "a.png", picture("RGB"), 8)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 8])
    assert read_headers([tmp_path / "a.png"]) == [Header((16, 24), 8)]


def test_an_orientation_that_is_none_counts_as_upright(tmp_path):
    save(tmp_path / "a.png", picture("RGB"), 9)
    with Image.open(tmp_path / "a.png") as image:
        assert orientation_of(image) == 1


def test_a_picture_too_large_is_refused_by_its_header(tmp_path):
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(
        DistilError, match=r"a.png has 13,000 x 13,000 pixels, and distil decodes pictures of at most 120"
    ):
        read_headers([tmp_path / "a.png"])
