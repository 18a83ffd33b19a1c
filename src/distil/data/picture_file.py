"""One picture file, decoded by Pillow: which way is up, which color space, which range of values."""

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from distil.data.paths import shown
from distil.data.value_ranges import LARGEST
from distil.errors import DistilError

MOST_PIXELS = 120_000_000
"""Largest number of pixels of one picture. A larger one is refused by its header, before it is decoded."""

BYTES_PER_PIXEL = 8
"""That decoding takes at most: Pillow needs four for a pixel in color, and turning it makes a copy."""

BYTES_PER_BLENDED_PIXEL = 20
"""Largest number where there is transparency or another mode than grey and RGB, which needs five copies."""

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
SIDEWAYS = (5, 6, 7, 8)
"""Values of it that exchange height and width."""
PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp", b"Raw profile type APP1")
"""What a PNG with an orientation contains."""


@dataclass(frozen=True)
class Decoded:
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


def decode(name: str, content: Path | bytes, size: int | None) -> Decoded:
    """One picture. size: as in `pictures.decode_pictures`.

    Raises: DistilError that names a picture which cannot be read.
    """
    with opened(shown(name), content) as image:
        return _decoded(image, name, size)


def decode_within(name: str, content: Path | bytes, size: int | None, most_bytes: int) -> Decoded | None:
    """`decode`, or None for a picture that takes more than `most_bytes` while it is decoded."""
    with opened(shown(name), content) as image:
        return _decoded(image, name, size) if _bytes_needed(image) <= most_bytes else None


@dataclass(frozen=True)
class Header:
    """What a picture's header tells. size: height and width, upright. color: None where only the pixels tell. ranged:
    whether the range of its values matters to how the whole set is read."""

    size: tuple[int, int]
    color: bool | None
    ranged: bool
    broken_exif: bool


def read_header(name: str, content: bytes) -> Header:
    """What a picture's header tells, without decoding its pixels where the format allows that.

    Raises: DistilError that names a picture which is none or has more than MOST_PIXELS.
    """
    with opened(shown(name), content) as image:
        ranged = image.mode.startswith("I") or _keeps_upper_bits(image)
        grey = image.mode.startswith("I") or image.mode in ("1", "L", "LA", "F")
        color = None if image.mode in ("P", "PA") else not grey
        # Pillow looks for the orientation in a PNG by decoding it
        plain = image.format == "PNG" and not any(word in content for word in PNG_EXIF)
        orientation, broken = (1, False) if plain else _orientation(image)
        size = (image.width, image.height) if orientation in SIDEWAYS else (image.height, image.width)
        return Header(size, color, ranged, broken)


def _decoded(image: Image.Image, name: str, size: int | None) -> Decoded:
    upper_bits = _keeps_upper_bits(image)
    image.load()
    upright, broken_exif = _upright(image)
    stored = upright.height, upright.width
    if upright.mode.startswith("I"):
        pixels, highest = _whole_numbers(upright, name, size)
        return Decoded(pixels, stored, highest, 32 if upright.mode == "I" else 16, broken_exif=broken_exif)
    eight_bit = _to_grey_or_rgb(upright, name)
    highest = _highest(eight_bit)
    if highest == 1:
        eight_bit = eight_bit.point(([0] + [255] * 255) * len(eight_bit.getbands()))
    return Decoded(np.array(_resized(eight_bit, size)), stored, highest, 8, upper_bits, broken_exif)


def _bytes_needed(image: Image.Image) -> int:
    plain = image.mode in ("1", "L", "RGB") and "transparency" not in image.info
    return image.width * image.height * (BYTES_PER_PIXEL if plain else BYTES_PER_BLENDED_PIXEL)


@contextmanager
def opened(name: str, content: Path | bytes) -> Iterator[Image.Image]:
    """The picture, its pixels not decoded yet. Whatever goes wrong within the block is an error that names it."""
    try:
        # closing frees the pixels at once, which leaving an image's own context does not
        with closing(Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)) as image:
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
        reason = shown(str(error) or type(error).__name__)
        raise DistilError(f"cannot read the image {name}: {reason}. Replace it or leave it out.") from error


def _keeps_upper_bits(image: Image.Image) -> bool:
    """Whether Pillow will cut channels of 16 bits to 8, as it does in color pictures and those with transparency."""
    modes = [part[3][0] if isinstance(part[3], tuple) and part[3] else part[3] for part in getattr(image, "tile", [])]
    return not image.mode.startswith("I") and any(isinstance(mode, str) and ";16" in mode for mode in modes)


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture turned as its EXIF data say, and whether these could not be read."""
    orientation, broken = _orientation(image)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image, broken


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """The EXIF tag, 1 where there is none, and whether the EXIF data could not be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        return (orientation if orientation in UPRIGHT else 1), False
    except Exception:  # broken EXIF data raise anything
        return 1, True


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
        visible = image if image.mode == "RGBA" else image.convert("RGBA")
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
