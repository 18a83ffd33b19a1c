"""Picture files of any size and mode, decoded by Pillow into uint8 arrays."""

import io
import itertools
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from distil.errors import DistilError
from distil.sources.available_memory import check_fits
from distil.sources.paths import shown
from distil.sources.value_ranges import LARGEST, WHITE, brightness_table, range_note, white_value

DECODED_AT_ONCE = 512

MOST_PIXELS = 120_000_000
"""Of one picture. A larger one is refused by its header, before it is decoded."""

DECODING_BYTES = 2 << 30
"""Most memory that the pictures take which are being decoded at the same time."""

BYTES_PER_PIXEL = 16
"""That decoding takes at most: four bytes in each of the four copies that transparency needs."""

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture with this value of the EXIF tag upright."""


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


def stack_pictures(pictures: Sequence[np.ndarray], *, grey: bool) -> UInt8[Tensor, "n c h w"]:
    """Pictures of one size as one tensor: one channel if `grey`, else three, grey ones repeated.

    grey: only where every picture is (h, w).
    """
    height, width = pictures[0].shape[:2]
    images = np.empty((len(pictures), 1 if grey else 3, height, width), dtype=np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        image[:] = picture if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(images)


@dataclass(frozen=True)
class _Decoded:
    """A picture before the range of the whole set is known.

    pixels: uint8; whole numbers of more bits as they are, uint16, or float32 if resized. highest: greatest value as it
    is stored; where it is 1 in 8 bits, `pixels` are multiplied by 255. bits: 8, or 16 or 32 of whole numbers.
    upper_bits: color of 16 bits, of which Pillow kept the upper 8.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    highest: int
    bits: int = 8
    upper_bits: bool = False
    broken_exif: bool = False


class _Budget:
    """Memory that threads share: each waits until its part is free, and one alone may take all."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self.changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        amount = min(amount, self.total)
        with self.changed:
            self.changed.wait_for(lambda: amount <= self.free)
            self.free -= amount
        try:
            yield
        finally:
            with self.changed:
                self.free += amount
                self.changed.notify_all()


def _decode_all(
    files: Iterable[tuple[str, Path | bytes]],
    size: int | None,
    count: int | None,
    finish: Callable[[list[_Decoded], list[str]], Pictures],
) -> Pictures:
    decoded: list[_Decoded] = []
    names: list[str] = []
    remaining = iter(files)
    budget = _Budget(DECODING_BYTES)
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        while chunk := list(itertools.islice(remaining, DECODED_AT_ONCE)):
            if not decoded:
                _check_all_fit(chunk[0], size, count or len(chunk))
            futures = [pool.submit(_decode, name, content, size, budget) for name, content in chunk]
            try:
                for (name, _), future in zip(chunk, futures, strict=True):
                    picture = future.result()
                    if decoded and picture.pixels.shape[:2] != decoded[0].pixels.shape[:2]:
                        raise DistilError(
                            f"the images have different sizes: {names[0]} is {_width_height(decoded[0].pixels)} and "
                            f"{name} is {_width_height(picture.pixels)} pixels (width x height). --size N resizes all "
                            "to N x N."
                        )
                    decoded.append(picture)
                    names.append(name)
            finally:
                for future in futures:
                    future.cancel()
    return finish(decoded, names)


def _check_all_fit(first: tuple[str, Path | bytes], size: int | None, count: int) -> None:
    """Without size all pictures have the size of the first one. Twice what they take: they are stacked, then split."""
    name, content = first
    with _opened(shown(name), content) as image:
        width, height = (size, size) if size else image.size
        channels = 1 if image.mode == "L" else 3
    remedy = "Give a smaller --size." if size else "--size N makes each one small, N x N pixels, as it is read."
    check_fits(2 * count * height * width * channels, f"{count:,} pictures of {width} x {height} pixels need", remedy)


@contextmanager
def _opened(name: str, content: Path | bytes) -> Iterator[Image.Image]:
    """The picture, its pixels not decoded yet. Whatever goes wrong within the block is an error that names it."""
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DistilError(
                    f"the image {name} has {image.width:,} x {image.height:,} pixels, and distil decodes pictures of "
                    f"at most {MOST_PIXELS // 10**6} megapixels. Make it smaller or leave it out."
                )
            yield image
    except DistilError:
        raise
    except MemoryError as error:
        raise DistilError(f"the image {name} does not fit in memory. Make it smaller or leave it out.") from error
    except Exception as error:  # decoders of broken files raise anything
        reason = str(error) or type(error).__name__
        raise DistilError(f"cannot read the image {name}: {reason}. Replace it or leave it out.") from error


def _width_height(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"


def _decode(name: str, content: Path | bytes, size: int | None, budget: _Budget) -> _Decoded:
    with _opened(shown(name), content) as image, budget.hold(image.width * image.height * BYTES_PER_PIXEL):
        upper_bits = _keeps_upper_bits(image)
        image.load()
        upright, broken_exif = _upright(image)
        stored = upright.height, upright.width
        if upright.mode.startswith("I"):
            pixels, highest = _whole_numbers(upright, name, size)
            return _Decoded(pixels, stored, highest, 32 if upright.mode == "I" else 16, broken_exif=broken_exif)
        eight_bit = _to_grey_or_rgb(upright, name)
        highest = _highest(eight_bit)
        if highest == 1:
            eight_bit = eight_bit.point(lambda value: min(255 * value, 255))
        return _Decoded(np.array(_resized(eight_bit, size)), stored, highest, 8, upper_bits, broken_exif)


def _keeps_upper_bits(image: Image.Image) -> bool:
    """Whether Pillow will cut channels of 16 bits to 8, as it does in color pictures and those with transparency."""
    modes = [part[3][0] if isinstance(part[3], tuple) and part[3] else part[3] for part in getattr(image, "tile", [])]
    return not image.mode.startswith("I") and any(isinstance(mode, str) and ";16" in mode for mode in modes)


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture turned as its EXIF data say, and whether these could not be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        turn = UPRIGHT.get(orientation)
    except Exception:  # broken EXIF data raise anything
        return image, True
    return image if turn is None else image.transpose(turn), False


def _whole_numbers(image: Image.Image, name: str, size: int | None) -> tuple[np.ndarray, int]:
    """Pixels of more than 8 bits as they are, and the greatest."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > LARGEST:
        raise DistilError(
            f"the image {name} holds whole numbers from {low} to {high}, and distil reads 0 to 255 (8 bits), 0 to 4095 "
            "(12 bits) and 0 to 65535 (16 bits). Map all pictures of the set to 0 to 65535 by the same two numbers and "
            "save them as 16-bit PNG or TIFF."
        )
    if size is None:
        return values.astype(np.uint16), high
    return np.array(_resized(Image.fromarray(values.astype(np.float32)), size)), high


def _resized(image: Image.Image, size: int | None) -> Image.Image:
    if size is None:
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))  # resize(box=...) would blend what lies beyond
    return square.resize((size, size), Image.Resampling.BILINEAR)


def _highest(image: Image.Image) -> int:
    extremes = np.array(image.getextrema()).reshape(-1, 2)
    return int(extremes[:, 1].max())


def _to_grey_or_rgb(image: Image.Image, name: str) -> Image.Image:
    """The image in mode L or RGB. A palette counts as grey if every color that the image shows is."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "F":
        return Image.fromarray(_from_unit(np.asarray(image), name))
    if image.mode == "1":
        return image.convert("L")
    grey = image.mode in ("L", "LA")
    if grey or image.has_transparency_data:
        visible = image.convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", visible.size, "white"), visible).convert("RGB")
    else:
        rgb = image.convert("RGB")
    if image.mode in ("P", "PA"):
        pixels = np.asarray(rgb)
        grey = bool((pixels == pixels[..., :1]).all())
    return rgb.getchannel(0) if grey else rgb


def _from_unit(values: np.ndarray, name: str) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise DistilError(f"the image {name} has a pixel that is NaN or infinite. Mend it or leave it out.")
    if low < 0 or high > 1:
        raise DistilError(
            f"the image {name} holds decimal numbers from {low:g} to {high:g}, and distil reads those from 0 (black) "
            "to 1 (white). Map all pictures of the set to 0 to 1 by the same two numbers (divide by 255 if that is "
            "white)."
        )
    return np.rint(values * 255).astype(np.uint8)


def _in_eight_bits(decoded: list[_Decoded], names: list[str]) -> Pictures:
    """The pictures once the range of the whole set is known."""
    highest = max((picture.highest for picture in decoded), default=0)
    wide = [picture for picture in decoded if picture.bits > 8]
    white = white_value(max((picture.highest for picture in wide), default=0), 1 if highest <= 1 else 255)
    _check_upper_bits(decoded, names)
    whole = [picture.pixels if highest == 1 and picture.bits == 8 else _scaled(picture, white) for picture in decoded]
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
    return Pictures(whole, [picture.size for picture in decoded], tuple(notes))


def _each_by_itself(decoded: list[_Decoded], names: list[str]) -> Pictures:
    pixels = [
        _scaled(picture, 255 if picture.bits == 32 and picture.highest <= 255 else LARGEST) for picture in decoded
    ]
    return Pictures(pixels, [picture.size for picture in decoded], ())


def _scaled(picture: _Decoded, white: int) -> np.ndarray:
    """The pixels in 8 bits; white: of whole numbers of more bits, the value that stands for white."""
    if picture.bits == 8:
        return np.rint(picture.pixels / 255).astype(np.uint8) if picture.highest == 1 else picture.pixels
    if picture.pixels.dtype == np.uint16:
        return brightness_table(white)[picture.pixels]
    return np.rint(picture.pixels.clip(0, white) * (255 / white)).astype(np.uint8)


def _check_upper_bits(decoded: list[_Decoded], names: list[str]) -> None:
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
