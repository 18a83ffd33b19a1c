"""Images of any number type are read by the range of values that the whole set holds."""

import numpy as np
import pytest

from distil.data.images.opener import open_source
from distil.data.value_ranges import to_bytes
from distil.errors import DistilError

RANDOM = np.random.default_rng(0)


def draw(highest: int, dtype, count: int = 10) -> np.ndarray:
    images = RANDOM.integers(0, highest + 1, (count, 1, 6, 6)).astype(dtype)
    images[0, 0, 0, 0] = highest
    return images


def read(*arrays: np.ndarray) -> tuple[list[np.ndarray], tuple[str, ...]]:
    return to_bytes([(f"x{index}", array) for index, array in enumerate(arrays)])


@pytest.mark.parametrize(
    ("dtype", "highest", "white", "note"),
    [
        (np.uint16, 4088, 4095, "x0 (uint16): whole numbers up to 4,088: read as 12 bits (4,095 is white)"),
        (np.uint16, 65535, 65535, "x0 (uint16): whole numbers up to 65,535: read as 16 bits (65,535 is white)"),
        (np.uint16, 4096, 65535, "x0 (uint16): whole numbers up to 4,096: read as 16 bits (65,535 is white)"),
        (np.uint16, 255, 255, "x0 (uint16): whole numbers up to 255: read as 8 bits (255 is white)"),
        (np.int64, 200, 255, "x0 (int64): whole numbers up to 200: read as 8 bits (255 is white)"),
        (np.uint64, 300, 4095, "x0 (uint64): whole numbers up to 300: read as 12 bits (4,095 is white)"),
        (np.int8, 1, 1, "x0: whole numbers up to 1: read as black and white (1 is white)"),
        (np.uint8, 1, 1, "x0: whole numbers up to 1: read as black and white (1 is white)"),
        (np.int8, 127, 255, "x0 (int8): whole numbers up to 127: read as 8 bits (255 is white)"),
    ],
)
def test_whole_numbers_are_read_by_their_range(dtype, highest, white, note):
    images = draw(highest, dtype)
    (found,), notes = read(images)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.rint(images.astype(np.float64) / white * 255))
    assert notes == (note,)


def test_bytes_stay_as_they_are():
    images = draw(255, np.uint8)
    assert np.array_equal(read(images)[0][0], images)
    assert read(images)[1] == ()


def test_true_is_white():
    images = draw(1, np.uint8).astype(bool)
    (found,), notes = read(images)
    assert np.array_equal(found, images * 255)
    assert notes == ("x0: true is read as white, false as black",)


def test_the_splits_have_one_range_together():
    bright, dark = draw(4000, np.uint16), draw(100, np.uint16)
    (first, second), notes = read(bright, dark)
    assert np.array_equal(first, np.rint(bright / 4095 * 255))
    assert np.array_equal(second, np.rint(dark / 4095 * 255))
    assert notes == ("x0 (uint16) and x1 (uint16): whole numbers up to 4,000: read as 12 bits (4,095 is white)",)


def test_a_dark_split_of_bytes_is_not_black_and_white():
    images, dark = draw(255, np.uint8), draw(1, np.uint8)
    assert np.array_equal(read(images, dark)[0][1], dark)
    assert np.array_equal(read(images, draw(1, np.int64))[0][1].max(), 1)


def test_other_types_beside_bytes_leave_these_alone():
    images, deep = draw(255, np.uint8), draw(65535, np.uint16)
    first, second = read(images, deep)[0]
    assert np.array_equal(first, images)
    assert np.array_equal(second, np.rint(deep / 65535 * 255))


def test_black_images_are_black():
    assert read(np.zeros((2, 1, 3, 3), np.uint8))[1] == ()
    assert read(np.zeros((2, 1, 3, 3), np.uint16))[0][0].max() == 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (draw(70000, np.int64), "x0 is int64 and has values up to 70000: .* Divide every split by the same number"),
        (
            draw(100, np.int16) - 101,
            "x0 is int16 and has values from -10.* must not be negative.* with the same two",
        ),
        (
            draw(255, np.float32),
            "x0 is float32 and has values from .* to 255: .* divide by 255, if that stands",
        ),
        (draw(3000, np.float32), "divide by 4095, if that stands for white"),
        (draw(10**6, np.float64), "divide by the value that stands for white"),
        (draw(255, np.float64) / 127.5 - 1, r"values from -1 to 1: .* or \(x \+ 1\) / 2, if -1 stands for black"),
        (draw(9, np.float64) - 4, "values from -4 to 5: .*Undo the normalization first"),
        (draw(255, np.complex64), "x0 is complex64: images are numbers, uint8"),
        (draw(255, np.str_), "images are numbers, uint8"),
    ],
)
def test_what_has_no_range_of_images_is_refused_without_harmful_advice(images, message):
    with pytest.raises(DistilError, match=message) as caught:
        read(images)
    assert "astype" not in str(caught.value)


def test_chunks_do_not_show(monkeypatch):
    images = draw(4000, np.uint16, 9)
    whole = read(images)[0][0]
    monkeypatch.setattr("distil.data.arrays.CHUNK", 2)
    assert np.array_equal(read(images)[0][0], whole)


@pytest.mark.parametrize(("dtype", "highest", "white"), [(np.uint16, 4088, 4095), (np.int32, 255, 255), (bool, 1, 1)])
def test_an_archive_is_read_so_and_says_so(tmp_path, dtype, highest, white):
    train, test = draw(highest, dtype)[:, 0], draw(highest, dtype)[:, 0]
    labels = np.arange(10) % 2
    np.savez(tmp_path / "deep.npz", x_train=train, y_train=labels, x_test=test, y_test=labels)
    source = open_source(tmp_path / "deep.npz")
    assert source.test is not None
    assert np.array_equal(source.train.images[:, 0], np.rint(train.astype(float) / white * 255))
    assert np.array_equal(source.test.images[:, 0], np.rint(test.astype(float) / white * 255))
    assert source.inventory is not None
    assert source.inventory.notes[0].startswith("x_train")
    assert "white" in source.inventory.notes[0]
