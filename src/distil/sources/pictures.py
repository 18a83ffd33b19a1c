"""Picture files of any size and mode, decoded by Pillow into uint8 arrays."""

import io
import itertools
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from distil.errors import DistilError

DECODED_AT_ONCE = 512


def read_pictures(files: Iterable[tuple[str, Path | bytes]], size: int | None) -> list[np.ndarray]:
    """Each picture as uint8, (h, w) if it is grey or (h, w, 3) if it has colour, in the order given.

    files: the name for messages, and the file or its content.
    size: the central square of each picture is resized to size x size, antialiased; None needs all of one size.

    EXIF orientation is applied, transparency shows white behind, 16-bit grey is scaled to 8 bits, other colour spaces
    become RGB, an animation is its first frame.

    Raises: DistilError that names a picture that cannot be decoded, or, without size, two pictures of different sizes.
    """
    pictures: list[np.ndarray] = []
    first_name = ""
    remaining = iter(files)
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        while chunk := list(itertools.islice(remaining, DECODED_AT_ONCE)):
            names, contents = zip(*chunk, strict=True)
            for name, picture in zip(names, pool.map(_decode, names, contents, [size] * len(names)), strict=True):
                first_name = first_name or name
                if pictures and picture.shape[:2] != pictures[0].shape[:2]:
                    raise DistilError(
                        f"the images have different sizes: {first_name} is {_width_height(pictures[0])} and {name} is "
                        f"{_width_height(picture)} pixels (width x height). --size N resizes all to N x N."
                    )
                pictures.append(picture)
    return pictures


def stack_pictures(pictures: Sequence[np.ndarray], *, grey: bool) -> UInt8[Tensor, "n c h w"]:
    """Pictures of one size as one tensor: one channel if `grey`, else three, grey ones repeated.

    grey: only where every picture is (h, w).
    """
    height, width = pictures[0].shape[:2]
    images = np.empty((len(pictures), 1 if grey else 3, height, width), dtype=np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        image[:] = picture if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(images)


def _width_height(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"


def _decode(name: str, content: Path | bytes, size: int | None) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            eight_bit = _to_grey_or_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders of broken files raise anything
        reason = str(error) or type(error).__name__
        raise DistilError(f"cannot read the image {name}: {reason}. Replace it or leave it out.") from error
    if size is not None:
        side = min(eight_bit.size)
        left, top = (eight_bit.width - side) // 2, (eight_bit.height - side) // 2
        square = eight_bit.crop((left, top, left + side, top + side))  # resize(box=...) would blend what lies beyond
        eight_bit = square.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(eight_bit)


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB. A palette counts as grey if every colour that the image shows is."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_from_unit(np.asarray(image).astype(np.float64) / 65535))
    if image.mode == "F":
        return Image.fromarray(_from_unit(np.asarray(image)))
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


def _from_unit(values: np.ndarray) -> np.ndarray:
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError("its pixels are neither 16-bit integers nor numbers from 0 to 1")
    return np.rint(values * 255).astype(np.uint8)
