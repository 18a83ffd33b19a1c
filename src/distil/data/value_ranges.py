"""Images of any number type turned to uint8 by the range of values that the whole set holds."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from distil.data.arrays import images_at_once
from distil.errors import DistilError

WHITE = {1: "black and white", 255: "8 bits", 4095: "12 bits", 65535: "16 bits"}
"""The value that stands for white, and how such images are called."""

LARGEST = 65535

FLOAT64 = 8


def white_value(highest: int, least: int = 1) -> int:
    """The value that stands for white where whole numbers up to `highest` (at most 65535) were found.

    least: no smaller one is chosen. Images that are black everywhere have 8 bits.
    """
    return next(white for white in WHITE if white >= max(highest, least)) if highest else 255


@cache
def brightness_table(white: int) -> np.ndarray:
    """Brightness 0 to 255, rounded, of every whole number from 0 to `white`; larger ones are white."""
    return np.rint(np.minimum(np.arange(LARGEST + 1), white) * (255 / white)).astype(np.uint8)


def range_note(what: str, highest: int, white: int) -> str:
    return f"{what} up to {highest:,}: read as {WHITE[white]} ({white:,} is white)"


def to_bytes(arrays: Sequence[tuple[str, np.ndarray]]) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """The arrays as uint8, with notes that tell how values were read where that had to be guessed.

    arrays: (name for messages, images along the first axis) of every split. Bool: true is white. Float: [0, 1].
    Whole numbers: the range is that of all the arrays together, so that images keep their relative brightness. Up to
    1 they are black and white; else uint8 is as it is, and in other types 255, 4095 or 65535 is white, the least that
    is not exceeded.

    Raises: DistilError that names the array and its range if it fits none of these.
    """
    ranges = [_integer_range(name, array) for name, array in arrays]
    highest = max((high for _, high in ranges), default=0)
    wide = [high for (_, array), (_, high) in zip(arrays, ranges, strict=True) if _is_wide(array)]
    white = white_value(max(wide, default=0), 1 if highest <= 1 else 255)
    notes = []
    if highest == 1:
        whole = [name for name, array in arrays if array.dtype.kind in "iu"]
        notes += [range_note(f"{' and '.join(whole)}: whole numbers", 1, 1)] if whole else []
    elif wide:
        named = [f"{name} ({array.dtype})" for name, array in arrays if _is_wide(array)]
        notes.append(range_note(f"{' and '.join(named)}: whole numbers", max(wide), white))
    if any(array.dtype == bool for _, array in arrays):
        named = [name for name, array in arrays if array.dtype == bool]
        notes.append(f"{' and '.join(named)}: true is read as white, false as black")
    return [_converted(name, array, 1 if highest == 1 else white) for name, array in arrays], tuple(notes)


def _is_wide(array: np.ndarray) -> bool:
    return array.dtype.kind in "iu" and array.dtype != np.uint8


def _integer_range(name: str, array: np.ndarray) -> tuple[int, int]:
    """Least and greatest value of whole numbers; (0, 0) of other types."""
    if array.dtype.kind not in "biuf":
        raise DistilError(
            f"{name} is {array.dtype}: images are numbers, uint8 (0 to 255) or float (0 to 1). Store them so."
        )
    if array.dtype.kind not in "iu" or array.size == 0:
        return 0, 0
    low, high = int(array.min()), int(array.max())
    if low < 0:
        raise DistilError(
            f"{name} is {array.dtype} and has values from {low} to {high}: whole numbers must not be negative. "
            "Map them to [0, 1] with the same two numbers in every split, as in (x - low) / (high - low), and store "
            "them as float32."
        )
    if high > LARGEST:
        raise DistilError(
            f"{name} is {array.dtype} and has values up to {high}: whole numbers go up to 255 (8 bits), 4095 (12 bits) "
            "or 65535 (16 bits). Divide every split by the same number, the value that stands for white, and store "
            "float32."
        )
    return low, high


def _converted(name: str, array: np.ndarray, white: int) -> np.ndarray:
    if array.dtype == np.uint8 and white != 1:
        return np.ascontiguousarray(array)
    if array.dtype == bool:
        return np.where(array, np.uint8(255), np.uint8(0))
    images, table = np.empty(array.shape, dtype=np.uint8), brightness_table(white)
    step = images_at_once(array[:1].size * FLOAT64)
    if array.dtype.kind == "f":
        _check_floats(name, array)
    for start in range(0, len(array), step):
        chunk = array[start : start + step]
        as_float = array.dtype.kind == "f"
        images[start : start + step] = np.rint(chunk.astype(np.float64) * 255) if as_float else table[chunk]
    return images


def _check_floats(name: str, array: np.ndarray) -> None:
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        bad = next(index for index, image in enumerate(array) if not np.isfinite(image).all())
        raise DistilError(f"{name} has a pixel that is NaN or infinite in image {bad}: mend or drop that image.")
    if low >= 0 and high <= 1:
        return
    if low < 0:
        remedy = "Undo the normalization first: times the standard deviation, plus the mean"
        remedy += "; or (x + 1) / 2, if -1 stands for black and 1 for white." if low >= -1 and high <= 1 else "."
    else:
        white = next((f"{white}, if that" for white in WHITE if white > 1 and high <= white), "the value that")
        remedy = f"In every split divide by {white} stands for white."
    raise DistilError(
        f"{name} is {array.dtype} and has values from {low:g} to {high:g}: float images must lie in [0, 1]. {remedy}"
    )
