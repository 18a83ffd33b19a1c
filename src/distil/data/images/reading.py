"""The pictures of a source's splits: decoded at once, or left in their files where they exceed a memory limit."""

import hashlib
import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from distil.data.fitting import in_bytes
from distil.data.images.lazy_images import SAMPLED, Contents, LazyImages, PictureStore, content_of
from distil.data.picture_file import Decoded, Header, decode, read_header
from distil.data.pictures import (
    DECODED_AT_ONCE,
    MOST_WORKERS,
    decode_pictures,
    different_sizes,
    shape_by_first,
    stack_splits,
    value_range,
)


@dataclass(frozen=True)
class ReadImages:
    """train, test: images of the splits; test is None if all are training images. sizes: height and width of each as
    it is stored. notes: for a reader."""

    train: UInt8[Tensor, "n c h w"] | LazyImages
    test: UInt8[Tensor, "m c h w"] | LazyImages | None
    sizes: list[tuple[int, int]]
    notes: tuple[str, ...]


def read_images(contents: Contents, count: int, train_count: int, size: int | None, memory: float) -> ReadImages:
    """`count` pictures, of which the first `train_count`, at least one, are training images.

    size: as in `pictures.decode_pictures`. memory: gigabytes; pictures that take more when they are decoded, judged by
    the first one, are not: their headers are read, their files hashed, and they are decoded when they are asked for.

    Raises: DistilError as `decode_pictures`; of pictures that stay in their files it names a damaged one when it is
        decoded.
    """
    if count * math.prod(shape_by_first(next(iter(contents([0]))), size)) <= memory * 1e9:
        pictures = decode_pictures(contents(range(count)), size, count=count)
        train, test = stack_splits(pictures, train_count)
        return ReadImages(train, test, pictures.sizes, pictures.notes)
    store, sizes = _scanned(contents, count, size, int(memory * 1e9))
    rows = torch.arange(count)
    test = LazyImages(store, rows[train_count:]) if count > train_count else None
    note = (
        f"decoded, the images take {in_bytes(count * math.prod(store.shape))}, more than the memory limit of "
        f"{memory:g} GB: each is decoded when it is needed; mean and standard deviation are of "
        f"{min(SAMPLED, train_count):,} training images"
    )
    return ReadImages(LazyImages(store, rows[:train_count]), test, sizes, (*store.known.notes, note))


def _scanned(
    contents: Contents, count: int, size: int | None, limit: int
) -> tuple[PictureStore, list[tuple[int, int]]]:
    """The store of pictures that stay in their files, and the size of each."""
    names: list[str] = []
    headers: list[Header] = []
    digests: list[bytes] = []
    pictures: list[Decoded] = []
    with ThreadPoolExecutor(min(MOST_WORKERS, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        for start in range(0, count, DECODED_AT_ONCE):
            files = list(contents(range(start, min(start + DECODED_AT_ONCE, count))))
            futures = [pool.submit(_scan, *file, size) for file in files]
            try:
                for (name, _), future in zip(files, futures, strict=True):
                    header, digest, picture = future.result()
                    if size is None and headers and header.size != headers[0].size:
                        raise different_sizes(names[0], headers[0].size, name, header.size)
                    names.append(name)
                    headers.append(header)
                    digests.append(digest)
                    pictures.append(picture)
            finally:
                for future in futures:
                    future.cancel()
        binary = _is_binary(contents, pictures)
        color = _is_color(contents, headers)
    known = value_range(pictures if binary else [_above_one(picture) for picture in pictures], names)
    height, width = (size, size) if size else headers[0].size
    store = PictureStore(contents, size, (3 if color else 1, height, width), known, digests, limit)
    return store, [header.size for header in headers]


UNKNOWN = -1
"""Highest value of a picture that has not been decoded."""


def _scan(name: str, content: Path | bytes, size: int | None) -> tuple[Header, bytes, Decoded]:
    """Header and hash of a file; and the picture without its pixels, whose highest value is known where it matters."""
    read = content_of(name, content)
    header = read_header(name, read)
    if header.ranged:
        picture = replace(decode(name, read, size), pixels=np.empty(0, dtype=np.uint8))
    else:
        empty = np.empty(0, dtype=np.uint8)
        picture = Decoded(empty, header.size, UNKNOWN, broken_exif=header.broken_exif)
    return header, hashlib.sha256(read).digest(), picture


def _is_binary(contents: Contents, pictures: list[Decoded]) -> bool:
    """Whether no picture has a value above 1; decodes until one has, and notes what it found."""
    if any(picture.highest > 1 for picture in pictures):
        return False
    for position, picture in enumerate(pictures):
        if picture.highest == UNKNOWN:
            name, content = next(iter(contents([position])))
            pictures[position] = replace(picture, highest=decode(name, content, 1).highest)
            if pictures[position].highest > 1:
                return False
    return True


def _above_one(picture: Decoded) -> Decoded:
    return replace(picture, highest=255) if picture.highest == UNKNOWN else picture


def _is_color(contents: Contents, headers: Sequence[Header]) -> bool:
    """Whether some picture is in color; of those with a palette only decoding tells."""
    if any(header.color for header in headers):
        return True
    unclear = [position for position, header in enumerate(headers) if header.color is None]
    return any(decode(*next(iter(contents([position]))), 1).pixels.ndim == 3 for position in unclear)
