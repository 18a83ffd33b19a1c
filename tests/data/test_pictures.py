import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from distil.data.images.opener import open_source
from distil.data.pictures import decode_pictures, read_pictures, stack_pictures
from distil.errors import DistilError


def saved(tmp_path, image: Image.Image, name: str = "one.png", **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return read_pictures([(name, tmp_path / name)], None)[0]


RANDOM = np.random.default_rng(0)
GRADIENT = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOR = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]], axis=-1)


def test_grey_and_rgb_come_as_they_are(tmp_path):
    assert np.array_equal(saved(tmp_path, Image.fromarray(GRADIENT)), GRADIENT)
    assert np.array_equal(saved(tmp_path, Image.fromarray(COLOR)), COLOR)


def test_content_in_memory_is_read_like_a_file(tmp_path):
    saved(tmp_path, Image.fromarray(COLOR))
    content = (tmp_path / "one.png").read_bytes()
    assert np.array_equal(read_pictures([("row 0", content)], None)[0], COLOR)


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.array([[0, 257, 65535], [128, 129, 32896]], dtype=np.uint16)
    assert saved(tmp_path, Image.fromarray(deep)).tolist() == [[0, 1, 255], [0, 1, 128]]


def test_numbers_from_zero_to_one_become_eight_bits(tmp_path):
    floats = np.array([[0, 0.5, 1]], dtype=np.float32)
    assert saved(tmp_path, Image.fromarray(floats), "one.tif").tolist() == [[0, 128, 255]]
    with pytest.raises(DistilError, match=r"image one.tif holds decimal numbers from 0 to 3, .* \(divide by 255 if"):
        saved(tmp_path, Image.fromarray(floats * 3), "one.tif")


def decoded(tmp_path, *arrays: np.ndarray, size: int | None = None):
    """Arrays through TIFF files, whose values Pillow keeps, read as one set."""
    files = []
    for index, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{index}.tif")
        files.append((f"{index}.tif", tmp_path / f"{index}.tif"))
    return decode_pictures(files, size)


@pytest.mark.parametrize(
    ("dtype", "highest", "white", "bits"),
    [
        (np.uint16, 4000, 4095, "12 bits"),
        (np.uint16, 60000, 65535, "16 bits"),
        (np.uint16, 255, 255, "8 bits"),
        (np.int32, 255, 255, "8 bits"),
        (np.int32, 5000, 65535, "16 bits"),
    ],
)
def test_whole_numbers_are_read_by_the_range_of_the_set(tmp_path, dtype, highest, white, bits):
    bright, dark = np.full((2, 2), highest, dtype), np.full((2, 2), highest // 100, dtype)
    pictures = decoded(tmp_path, bright, dark, GRADIENT[:2, :2])
    expected = [np.rint(array.astype(float) / white * 255) for array in (bright, dark)] + [GRADIENT[:2, :2]]
    assert [picture.tolist() for picture in pictures.pixels] == [array.tolist() for array in expected]
    assert pictures.notes == (
        f"2 pictures hold whole numbers of 16 or 32 bits up to {highest:,}: read as {bits} ({white:,} is white)",
    )


def test_whole_numbers_keep_their_precision_when_they_are_resized(tmp_path):
    deep = np.zeros((8, 8), np.uint16)
    deep[::2] = 4000
    pictures = decoded(tmp_path, deep, size=2)
    assert np.abs(pictures.pixels[0].astype(float) - 2000 / 4095 * 255).max() < 16
    assert pictures.sizes == [(8, 8)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_set_of_zeros_and_ones_is_black_and_white(tmp_path, dtype):
    mask = (GRADIENT > 100).astype(dtype)
    pictures = decoded(tmp_path, mask, np.zeros_like(mask))
    assert [picture.max() for picture in pictures.pixels] == [255, 0]
    assert np.array_equal(pictures.pixels[0], mask * 255)
    assert pictures.notes == ("2 pictures hold values up to 1: read as black and white (1 is white)",)
    small = decoded(tmp_path, mask, size=3).pixels[0]
    assert set(np.unique(small)) - {0, 255}, "resized with the precision of 8 bits"
    dark_among_others = decoded(tmp_path, mask, GRADIENT)
    assert np.array_equal(dark_among_others.pixels[0], mask)
    assert np.array_equal(dark_among_others.pixels[1], GRADIENT)


@pytest.mark.parametrize("values", [(-5, 100), (0, 70000)])
def test_whole_numbers_out_of_range_are_refused(tmp_path, values):
    with pytest.raises(DistilError, match=f"holds whole numbers from {values[0]} to {values[1]}, .* by the"):
        decoded(tmp_path, np.array([values], np.int32))


def test_color_of_twelve_bits_in_sixteen_is_refused(tmp_path):
    """Pillow keeps the upper 8 of 16 bits in color, which are black here."""

    def png(highest: int) -> bytes:
        rows = RANDOM.integers(0, highest + 1, (4, 4, 3)).astype(">u2")
        return make_png(4, 4, b"".join(b"\0" + row.tobytes() for row in rows), bits=16, color=2)

    with pytest.raises(DistilError, match=r"image a has 16 bits a channel but values below 4096, .* leaves it black"):
        decode_pictures([("a", png(4095)), ("b", png(255))], None)
    pictures = decode_pictures([("a", png(4095)), ("b", png(65535))], None)
    assert pictures.notes == ("2 pictures have 16 bits a channel, of which the upper 8 are read",)


def make_png(width: int, height: int, rows: bytes, bits: int = 8, color: int = 0) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_one_bit_is_black_and_white(tmp_path):
    assert saved(tmp_path, Image.fromarray(GRADIENT > 100)).tolist() == ((GRADIENT > 100) * 255).tolist()


def test_a_palette_is_grey_only_if_its_colors_are(tmp_path):
    grey = Image.fromarray(GRADIENT).quantize(256)
    assert grey.mode == "P"
    assert saved(tmp_path, grey).ndim == 2
    color = saved(tmp_path, Image.fromarray(COLOR).quantize(256))
    assert color.shape == (6, 8, 3)


def test_transparency_shows_white(tmp_path):
    rgba = np.concatenate([COLOR, np.full((6, 8, 1), 255, np.uint8)], axis=-1)
    rgba[0, 0, 3], rgba[1, 1] = 0, (0, 100, 200, 51)
    picture = saved(tmp_path, Image.fromarray(rgba))
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[1, 1].tolist() == pytest.approx([204, 224, 244], abs=1)
    assert np.array_equal(picture[2:], COLOR[2:])
    grey = Image.fromarray(np.stack([GRADIENT, np.zeros_like(GRADIENT)], axis=-1), mode=None)
    assert grey.mode == "LA"
    assert saved(tmp_path, grey).tolist() == np.full((6, 8), 255).tolist()
    assert saved(tmp_path, Image.fromarray(GRADIENT), transparency=5)[0, 1] == 255


def test_cmyk_becomes_rgb(tmp_path):
    cmyk = Image.new("CMYK", (4, 3), (0, 255, 255, 0))
    picture = saved(tmp_path, cmyk, "one.jpg", quality=95)
    assert picture.shape == (3, 4, 3)
    assert picture[0, 0].tolist() == pytest.approx([255, 0, 0], abs=6)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = saved(tmp_path, Image.fromarray(COLOR), exif=exif)
    assert np.array_equal(picture, np.rot90(COLOR, -1))


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"garbage", b"Exif\0\0MM\0*\0\0\xff\xff"])
def test_broken_exif_is_ignored(tmp_path, format, exif):
    Image.fromarray(COLOR).save(
        tmp_path / "one", format=format, exif=exif, **({"lossless": True} if format == "webp" else {})
    )
    pictures = decode_pictures([("one", tmp_path / "one")], None)
    assert pictures.pixels[0].shape == COLOR.shape
    if format != "jpeg":
        assert np.array_equal(pictures.pixels[0], COLOR)
    assert all(
        note.endswith("EXIF data that cannot be read, so no orientation is applied (one)") for note in pictures.notes
    )


def test_broken_exif_is_counted(tmp_path):
    for name in "ab":
        Image.fromarray(COLOR).save(tmp_path / f"{name}.png", exif=b"garbage")
    files = [(name, tmp_path / f"{name}.png") for name in "ab"]
    assert decode_pictures(files, None).notes == (
        "2 pictures have EXIF data that cannot be read, so no orientation is applied (a)",
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_orientation_is_applied(tmp_path, orientation, mode):
    image, exif = Image.fromarray(COLOR).convert(mode), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.tif", exif=exif)
    image.save(tmp_path / "plain.tif")
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "turned.tif"))
    found = saved(tmp_path, image, "one.tif", exif=exif)
    assert np.array_equal(found, np.asarray(expected if mode != "CMYK" else expected.convert("RGB")))


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (40, 200)]
    assert (saved(tmp_path, frames[0], "one.gif", save_all=True, append_images=frames[1:]) == 40).all()


def test_size_takes_the_central_square(tmp_path):
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    for array in (wide, wide.T):
        Image.fromarray(array).save(tmp_path / "one.png")
        assert read_pictures([("one", tmp_path / "one.png")], 5)[0].tolist() == np.full((5, 5), 200).tolist()


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "one.png")
    small = read_pictures([("one", tmp_path / "one.png")], 8)[0].astype(float)
    assert abs(small - 100).max() <= 6


@pytest.mark.parametrize("content", [b"", b"no picture at all", "cut"])
def test_a_corrupt_picture_is_named(tmp_path, content):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    saved(tmp_path, Image.fromarray(noise))
    whole = (tmp_path / "one.png").read_bytes()
    broken = whole[: len(whole) // 2] if content == "cut" else content
    with pytest.raises(DistilError, match=r"cannot read the image broken.png: .+ Replace it or leave it out"):
        read_pictures([("one.png", whole), ("broken.png", broken)], None)


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    saved(tmp_path, Image.fromarray(GRADIENT))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DistilError, match=r"cannot read the image one.png: Image size .* exceeds limit"):
        saved(tmp_path, Image.fromarray(GRADIENT))


@pytest.mark.parametrize("size", [None, 8])
def test_a_header_of_many_megapixels_is_refused_before_it_is_decoded(size, monkeypatch):
    content = make_png(13000, 13000, b"")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(DistilError, match=r"image a has 13,000 x 13,000 pixels, .* at most 120 megapixels"):
        decode_pictures([("a", content)], size)


def test_pictures_that_do_not_fit_together_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (1000, 1000)).save(tmp_path / name / f"{index}.png")
    monkeypatch.setattr("distil.data.fitting.free_memory", lambda: 10**7)
    with pytest.raises(DistilError) as caught:
        open_source(tmp_path)
    assert str(caught.value) == (
        "6 pictures of 1000 x 1000 pixels need 36.0 MB of memory, and 10.0 MB are available. "
        "size=N makes each one small, N x N pixels, as it is read."
    )
    assert open_source(tmp_path, size=8).train.size == (8, 8)


def test_large_pictures_are_decoded_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("distil.data.pictures.DECODING_BYTES", 1000)
    threads = []
    original = Image.Image.getextrema
    monkeypatch.setattr(
        Image.Image, "getextrema", lambda image: threads.append(threading.current_thread()) or original(image)
    )
    sides = (2, 300, 3, 400)
    files = [(str(side), make_png(side, side, b"\1" * side * (side + 1))) for side in sides]
    pictures = decode_pictures(files, 2)
    assert [size[0] for size in pictures.sizes] == list(sides)
    assert threads.count(threading.main_thread()) == 2


def test_the_first_two_different_sizes_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("distil.data.pictures.DECODED_AT_ONCE", 2)
    files = []
    for index, size in enumerate([(8, 6), (8, 6), (8, 6), (9, 6), (7, 7)]):
        Image.new("L", size).save(tmp_path / f"{index}.png")
        files.append((f"{index}.png", tmp_path / f"{index}.png"))
    with pytest.raises(DistilError) as caught:
        read_pictures(files, None)
    assert str(caught.value) == (
        "the images have different sizes: 0.png is 8 x 6 and 3.png is 9 x 6 pixels (width x height). "
        "size=N resizes all to N x N."
    )
    assert {picture.shape for picture in read_pictures(files, 4)} == {(4, 4)}


def test_pictures_come_in_the_order_given(tmp_path, monkeypatch):
    monkeypatch.setattr("distil.data.pictures.DECODED_AT_ONCE", 3)
    files = []
    for index in range(10):
        Image.new("L", (200 if index % 2 else 2, 200 if index % 2 else 2), index).save(tmp_path / f"{index}.png")
        files.append((str(index), tmp_path / f"{index}.png"))
    assert [int(picture[0, 0]) for picture in read_pictures(files, 2)] == list(range(10))


def test_stacking_repeats_grey_where_there_is_color():
    images = stack_pictures([GRADIENT, COLOR], grey=False)
    assert images.shape == (2, 3, 6, 8)
    assert torch.equal(images[0, 0], images[0, 2])
    assert np.array_equal(images[1].numpy(), COLOR.transpose(2, 0, 1))
    assert stack_pictures([GRADIENT], grey=True).shape == (1, 1, 6, 8)
