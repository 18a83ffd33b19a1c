import numpy as np
import pytest
import torch
from PIL import Image

from distil.errors import DistilError
from distil.sources.pictures import read_pictures, stack_pictures


def saved(tmp_path, image: Image.Image, name: str = "one.png", **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return read_pictures([(name, tmp_path / name)], None)[0]


GRADIENT = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]], axis=-1)


def test_grey_and_rgb_come_as_they_are(tmp_path):
    assert np.array_equal(saved(tmp_path, Image.fromarray(GRADIENT)), GRADIENT)
    assert np.array_equal(saved(tmp_path, Image.fromarray(COLOUR)), COLOUR)


def test_content_in_memory_is_read_like_a_file(tmp_path):
    saved(tmp_path, Image.fromarray(COLOUR))
    content = (tmp_path / "one.png").read_bytes()
    assert np.array_equal(read_pictures([("row 0", content)], None)[0], COLOUR)


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.array([[0, 257, 65535], [128, 129, 32896]], dtype=np.uint16)
    assert saved(tmp_path, Image.fromarray(deep)).tolist() == [[0, 1, 255], [0, 1, 128]]


def test_numbers_from_zero_to_one_become_eight_bits(tmp_path):
    floats = np.array([[0, 0.5, 1]], dtype=np.float32)
    assert saved(tmp_path, Image.fromarray(floats), "one.tif").tolist() == [[0, 128, 255]]
    with pytest.raises(DistilError, match=r"image one.tif holds decimal numbers from 0 to 3, .* \(divide by 255 if"):
        saved(tmp_path, Image.fromarray(floats * 3), "one.tif")


def test_one_bit_is_black_and_white(tmp_path):
    assert saved(tmp_path, Image.fromarray(GRADIENT > 100)).tolist() == ((GRADIENT > 100) * 255).tolist()


def test_a_palette_is_grey_only_if_its_colours_are(tmp_path):
    grey = Image.fromarray(GRADIENT).quantize(256)
    assert grey.mode == "P"
    assert saved(tmp_path, grey).ndim == 2
    colour = saved(tmp_path, Image.fromarray(COLOUR).quantize(256))
    assert colour.shape == (6, 8, 3)


def test_transparency_shows_white(tmp_path):
    rgba = np.concatenate([COLOUR, np.full((6, 8, 1), 255, np.uint8)], axis=-1)
    rgba[0, 0, 3], rgba[1, 1] = 0, (0, 100, 200, 51)
    picture = saved(tmp_path, Image.fromarray(rgba))
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[1, 1].tolist() == pytest.approx([204, 224, 244], abs=1)
    assert np.array_equal(picture[2:], COLOUR[2:])
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
    picture = saved(tmp_path, Image.fromarray(COLOUR), exif=exif)
    assert np.array_equal(picture, np.rot90(COLOUR, -1))


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


def test_the_first_two_different_sizes_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("distil.sources.pictures.DECODED_AT_ONCE", 2)
    files = []
    for index, size in enumerate([(8, 6), (8, 6), (8, 6), (9, 6), (7, 7)]):
        Image.new("L", size).save(tmp_path / f"{index}.png")
        files.append((f"{index}.png", tmp_path / f"{index}.png"))
    with pytest.raises(DistilError) as caught:
        read_pictures(files, None)
    assert str(caught.value) == (
        "the images have different sizes: 0.png is 8 x 6 and 3.png is 9 x 6 pixels (width x height). "
        "--size N resizes all to N x N."
    )
    assert {picture.shape for picture in read_pictures(files, 4)} == {(4, 4)}


def test_pictures_come_in_the_order_given(tmp_path, monkeypatch):
    monkeypatch.setattr("distil.sources.pictures.DECODED_AT_ONCE", 3)
    files = []
    for index in range(10):
        Image.new("L", (200 if index % 2 else 2, 200 if index % 2 else 2), index).save(tmp_path / f"{index}.png")
        files.append((str(index), tmp_path / f"{index}.png"))
    assert [int(picture[0, 0]) for picture in read_pictures(files, 2)] == list(range(10))


def test_stacking_repeats_grey_where_there_is_colour():
    images = stack_pictures([GRADIENT, COLOUR], grey=False)
    assert images.shape == (2, 3, 6, 8)
    assert torch.equal(images[0, 0], images[0, 2])
    assert np.array_equal(images[1].numpy(), COLOUR.transpose(2, 0, 1))
    assert stack_pictures([GRADIENT], grey=True).shape == (1, 1, 6, 8)
