"""Picture files of any size and mode, decoded by Pillow into uint8 arrays."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from distil.data.fitting import check_fits
from distil.data.paths import shown
from distil.data.picture_file import Decoded, decode, decode_within, opened
from distil.data.value_ranges import LARGEST, WHITE, brightness_table, range_note, white_value
from distil.errors import DistilError

DECODED_AT_ONCE = 512

DECODING_BYTES = 2 << 30
"""Most memory that the threads which decode take together. Pictures above one's share are decoded one by one."""

MOST_WORKERS = 16


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures.

    pixels: uint8, (h, w) of a grey picture or (h, w, 3) of one in color, in the order given. sizes: height and width
    of each as it is stored, upright. notes: what was guessed or passed over, for a reader.
    """

    pixels: list[np.ndarray]
    sizes: list[tuple[int, int]]
    notes: tuple[str, ...]


def read_pictures(files: Iterable[tuple[str, Path | bytes]], size: int | None) -> list[np.ndarray]:
    """The pixels of `decode_pictures`, each picture read by itself, whatever the others hold.

    Of whole numbers of more than 8 bits 65535 is white, or 255 in a file of 32 bits that holds nothing greater.
    """
    return _decode_all(files, size, None, _each_by_itself).pixels


def decode_pictures(
    files: Iterable[tuple[str, Path | bytes]], size: int | None, *, count: int | None = None
) -> Pictures:
    """Each picture as uint8, in the order given.

    files: the name for messages, and the file or its content.
    size: the central square of each picture is resized to size x size, antialiased; None needs all of one size.
    count: how many there are, to tell beforehand whether they fit in memory.

    EXIF orientation is applied, or ignored where the EXIF data cannot be read; transparency shows white behind; other
    color spaces become RGB; an animation is its first frame. Whole numbers of more than 8 bits are read by the
    greatest of all these pictures: the least of 255, 4095 and 65535 that it does not exceed is white. Where no picture
    has a value above 1, 1 is white.

    Raises: DistilError that names a picture that cannot be decoded, has more than MOST_PIXELS or values out of range,
        or, without size, two pictures of different sizes; or if all together do not fit in memory.
    """
    return _decode_all(files, size, count, _in_eight_bits)


def stack_splits(
    pictures: Pictures, train_count: int
) -> tuple[UInt8[Tensor, "n c h w"], UInt8[Tensor, "m c h w"] | None]:
    """The first `train_count` pictures, and the others or None if there are none; grey if every one is.

    `pictures.pixels` is empty afterwards: the split of a source needs the memory.
    """
    pixels = pictures.pixels
    grey = all(picture.ndim == 2 for picture in pixels)
    train = stack_pictures(pixels[:train_count], grey=grey)
    test = stack_pictures(pixels[train_count:], grey=grey) if len(pixels) > train_count else None
    pixels.clear()
    return train, test


def stack_pictures(pictures: Sequence[np.ndarray], *, grey: bool) -> UInt8[Tensor, "n c h w"]:
    """Pictures of one size as one tensor: one channel if `grey`, else three, grey ones repeated.

    grey: only where every picture is (h, w).
    """
    height, width = pictures[0].shape[:2]
    images = np.empty((len(pictures), 1 if grey else 3, height, width), dtype=np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        image[:] = picture if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(images)


def _decode_all(
    files: Iterable[tuple[str, Path | bytes]],
    size: int | None,
    count: int | None,
    finish: Callable[[list[Decoded], list[str]], Pictures],
) -> Pictures:
    decoded: list[Decoded] = []
    names: list[str] = []
    remaining = iter(files)
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    share = DECODING_BYTES // workers
    with ThreadPoolExecutor(workers) as pool, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        while chunk := list(itertools.islice(remaining, DECODED_AT_ONCE)):
            if not decoded:
                _check_all_fit(chunk[0], size, count or len(chunk))
            futures = [pool.submit(decode_within, name, content, size, share) for name, content in chunk]
            try:
                for (name, content), future in zip(chunk, futures, strict=True):
                    picture = future.result() or decode(name, content, size)  # a large one, while no other is
                    if decoded and picture.pixels.shape[:2] != decoded[0].pixels.shape[:2]:
                        raise different_sizes(names[0], decoded[0].pixels.shape, name, picture.pixels.shape)
                    decoded.append(picture)
                    names.append(name)
            finally:
                for future in futures:
                    future.cancel()
    return finish(decoded, names)


def _check_all_fit(first: tuple[str, Path | bytes], size: int | None, count: int) -> None:
    """Without size all pictures have the size of the first one. Twice what they take: they are stacked, then split."""
    channels, height, width = shape_by_first(first, size)
    remedy = "Give a smaller {size}." if size else "{size=N} makes each one small, N x N pixels, as it is read."
    check_fits(
        2 * count * height * width * channels, f"{count:,} pictures of {width} x {height} pixels need", remedy, "size"
    )


def shape_by_first(first: tuple[str, Path | bytes], size: int | None) -> tuple[int, int, int]:
    """Channels, height and width that all pictures of a set have if they are like the first one, by its header.

    Raises: DistilError if it cannot be read.
    """
    name, content = first
    with opened(shown(name), content) as image:
        width, height = (size, size) if size else image.size
        return 1 if image.mode == "L" else 3, height, width


def different_sizes(first: str, shape: Sequence[int], name: str, other: Sequence[int]) -> DistilError:
    """The error that two pictures, by their names and (height, width, ...), do not have one size."""
    return DistilError(
        f"the images have different sizes: {first} is {shape[1]} x {shape[0]} and {name} is {other[1]} x {other[0]} "
        "pixels (width x height). {size=N} resizes all to N x N.",
        field="size",
    )


def _in_eight_bits(decoded: list[Decoded], names: list[str]) -> Pictures:
    """The pictures once the range of the whole set is known."""
    known = value_range(decoded, names)
    return Pictures([known.apply(picture) for picture in decoded], [picture.size for picture in decoded], known.notes)


@dataclass(frozen=True)
class ValueRange:
    """How the numbers of all pictures of a set become 8 bits.

    binary: no picture has a value above 1. white: of whole numbers of more than 8 bits, the value that stands for
    white. notes: what was guessed or passed over, for a reader.
    """

    binary: bool
    white: int
    notes: tuple[str, ...]

    def apply(self, picture: Decoded) -> UInt8[np.ndarray, "..."]:
        """The pixels in 8 bits."""
        return picture.pixels if self.binary and picture.bits == 8 else _scaled(picture, self.white)


def value_range(decoded: Sequence[Decoded], names: Sequence[str]) -> ValueRange:
    """The range of a whole set. decoded: all its pictures, whose pixels may be missing.

    Raises: DistilError if color pictures of 16 bits keep nothing in their upper 8.
    """
    highest = max((picture.highest for picture in decoded), default=0)
    wide = [picture for picture in decoded if picture.bits > 8]
    white = white_value(max((picture.highest for picture in wide), default=0), 1 if highest <= 1 else 255)
    _check_upper_bits(decoded, names)
    notes = []
    if highest == 1:
        notes.append(range_note(_some(len(decoded), "picture", "holds values", "hold values"), 1, 1))
    elif wide:
        what = _some(
            len(wide), "picture", "holds whole numbers of 16 or 32 bits", "hold whole numbers of 16 or 32 bits"
        )
        notes.append(range_note(what, max(picture.highest for picture in wide), white))
    if cut := sum(picture.upper_bits for picture in decoded):
        notes.append(f"{_some(cut, 'picture', 'has', 'have')} 16 bits a channel, of which the upper 8 are read")
    if broken := [name for name, picture in zip(names, decoded, strict=True) if picture.broken_exif]:
        what = _some(len(broken), "picture", "has", "have")
        notes.append(f"{what} EXIF data that cannot be read, so no orientation is applied ({shown(broken[0])})")
    return ValueRange(highest == 1, white, tuple(notes))


def _each_by_itself(decoded: list[Decoded], names: list[str]) -> Pictures:
    pixels = [
        _scaled(picture, 255 if picture.bits == 32 and picture.highest <= 255 else LARGEST) for picture in decoded
    ]
    return Pictures(pixels, [picture.size for picture in decoded], ())


def _scaled(picture: Decoded, white: int) -> np.ndarray:
    """The pixels in 8 bits; white: of whole numbers of more bits, the value that stands for white."""
    if picture.bits == 8:
        return np.rint(picture.pixels / 255).astype(np.uint8) if picture.highest == 1 else picture.pixels
    if picture.pixels.dtype == np.uint16:
        return brightness_table(white)[picture.pixels]
    return np.rint(picture.pixels.clip(0, white) * (255 / white)).astype(np.uint8)


def _check_upper_bits(decoded: Sequence[Decoded], names: Sequence[str]) -> None:
    """Raises: DistilError if nothing is left of color pictures of 16 bits, because they use the lower 12 at most."""
    cut = [(name, picture.highest) for name, picture in zip(names, decoded, strict=True) if picture.upper_bits]
    if cut and max(highest for _, highest in cut) <= 15:
        raise DistilError(
            f"the image {cut[0][0]} has 16 bits a channel but values below 4096, and Pillow reads the upper 8 bits "
            f"alone, which leaves it black. Multiply all pictures of the set by {LARGEST // 4095} ({WHITE[4095]}) or "
            f"{LARGEST // 255} ({WHITE[255]}), or save them with 8 bits a channel."
        )


def _some(count: int, noun: str, one: str, many: str) -> str:
    return f"1 {noun} {one}" if count == 1 else f"{count:,} {noun}s {many}"
