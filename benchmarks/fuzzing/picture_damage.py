"""Damage to pictures: other modes and formats, odd EXIF tags, headers that tell of another size."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from .mutation import Mutation, damaged


def picture(content: bytes, draw: random.Random) -> Mutation:
    """The picture in another mode or format, with odd EXIF, or with a header that tells of another size."""
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    change = draw.choice(("mode", "mode", "mode", "exif", "exif", "size", "claim", "claim", "chunk"))
    if change == "mode":
        mode, kind = draw.choice(MODES)
        return Mutation(_saved(_in_mode(image, mode), kind), f"mode {mode} as {kind}")
    if change == "exif":
        exif = Image.Exif()
        turn = draw.choice((0, 1, 3, 6, 8, 9, 65535))
        exif[0x0112] = turn
        data = exif.tobytes()
        if draw.random() < 0.5:
            data = b"Exif\0\0" + (damaged(data[6:], draw).content or b"")
        kind = draw.choice(("JPEG", "PNG", "WEBP"))
        return Mutation(_saved(image, kind, exif=data), f"{kind} with EXIF orientation {turn}")
    if change == "size":
        size = draw.choice(((1, 1), (1, 500), (500, 1), (7, 9), (300, 200)))
        return Mutation(_saved(image.resize(size), draw.choice(("PNG", "JPEG"))), f"{size[0]} x {size[1]} pixels")
    data = _saved(image, "PNG")
    if change == "claim":
        sides = draw.choice(((60_000, 60_000), (2**31 - 1, 1), (13_000, 13_000), (0, 8), (8, 0), (20_000, 4_000)))
        head = struct.pack(">II", *sides) + data[24:29]
        crc = struct.pack(">I", zlib.crc32(b"IHDR" + head))
        return Mutation(data[:16] + head + crc + data[33:], f"a PNG that claims {sides[0]} x {sides[1]}")
    kind, size = draw.choice((b"IDAT", b"PLTE", b"tRNS", b"iTXt", b"zTXt", b"iCCP", b"acTL")), draw.choice((0, 3, 1000))
    payload = draw.randbytes(size)
    crc = struct.pack(">I", zlib.crc32(kind + payload))
    return Mutation(data[:33] + struct.pack(">I", size) + kind + payload + crc + data[33:], f"a chunk {kind.decode()}")


MODES = (
    *(("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("P", "GIF")),
    *(
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGB", "JPEG"),
        ("RGB", "BMP"),
        ("RGB", "WEBP"),
        ("RGB", "PPM"),
        ("RGB", "TGA"),
    ),
    *(
        ("I", "TIFF"),
        ("F", "TIFF"),
        ("I;16", "TIFF"),
        ("CMYK", "TIFF"),
        ("LAB", "TIFF"),
        ("RGBA", "TIFF"),
        ("1", "TIFF"),
    ),
    *(("YCbCr", "JPEG"), ("NaN", "TIFF"), ("RGB", "EPS"), ("RGB", "ICO"), ("RGB", "PDF")),
)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    grey = np.asarray(image.convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 16)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32))
    if mode in ("F", "NaN"):
        values = grey.astype(np.float32) / 255
        values[0, 0] = np.nan if mode == "NaN" else 1.0
        return Image.fromarray(values)
    if mode == "LAB":
        from PIL import ImageCms

        lab = ImageCms.createProfile("LAB")
        changed = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
        assert changed is not None
        return changed
    return image.convert(mode)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
