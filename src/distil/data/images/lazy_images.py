"""Images that stay in their files until they are asked for, in the place of a tensor that would not fit in memory."""

import hashlib
import math
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from distil.data.arrays import images_at_once
from distil.data.paths import shown
from distil.data.picture_file import decode, decode_within
from distil.data.pictures import DECODING_BYTES, MOST_WORKERS, ValueRange
from distil.errors import DistilError
from distil.rng import stream

Contents = Callable[[Sequence[int]], Iterable[tuple[str, Path | bytes]]]
"""Of pictures at these positions the name for messages, and the file or its content."""

SAMPLED = 1000
"""Training images that tell mean and standard deviation of a set that stays in its files."""


class PictureStore:
    """Pictures in their files, decoded by several threads when they are asked for; the latest stay in memory."""

    def __init__(
        self,
        contents: Contents,
        size: int | None,
        shape: tuple[int, int, int],
        known: ValueRange,
        digests: Sequence[bytes],
        limit: int,
    ):
        """contents: where they are. size: as in `pictures.decode_pictures`. shape: (c, h, w) of every decoded picture.
        known: how the numbers of all become 8 bits. digests: SHA-256 of each file. limit: bytes of decoded pictures
        that stay in memory.
        """
        self.contents, self.size, self.shape = contents, size, shape
        self.known, self.digests, self.limit = known, digests, limit
        self._kept = OrderedDict[int, np.ndarray]()
        self._lock = Lock()

    def read(self, positions: Sequence[int]) -> UInt8[Tensor, "k c h w"]:
        """The pictures at these positions.

        Raises: DistilError that names a picture that cannot be decoded, or whose file has changed since it was opened.
        """
        images = np.empty((len(positions), *self.shape), dtype=np.uint8)
        places: dict[int, list[int]] = {}
        with self._lock:
            for place, position in enumerate(positions):
                if position in self._kept:
                    self._kept.move_to_end(position)
                    images[place] = self._kept[position]
                else:
                    places.setdefault(position, []).append(place)
        for position, picture in self._decoded(list(places)):
            images[places[position]] = picture
            self._keep(position, picture)
        return torch.from_numpy(images)

    def _keep(self, position: int, picture: np.ndarray) -> None:
        with self._lock:
            self._kept[position] = picture
            while len(self._kept) * picture.nbytes > self.limit:
                self._kept.popitem(last=False)

    def _decoded(self, positions: list[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "c h w"]]]:
        workers = min(MOST_WORKERS, os.cpu_count() or 1)
        share = DECODING_BYTES // workers
        step = max(workers, images_at_once(math.prod(self.shape)))
        with ThreadPoolExecutor(workers) as pool, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            for start in range(0, len(positions), step):
                some = positions[start : start + step]
                files = list(zip(some, self.contents(some), strict=True))
                futures = [pool.submit(self._one, position, *file, share) for position, file in files]
                try:
                    for (position, file), future in zip(files, futures, strict=True):
                        picture = future.result()
                        if picture is None:  # a large one, while no other is
                            picture = self._one(position, *file, None)
                        assert picture is not None
                        yield position, picture
                finally:
                    for future in futures:
                        future.cancel()

    def _one(self, position: int, name: str, content: Path | bytes, most: int | None) -> np.ndarray | None:
        """One picture [c, h, w]; None if decoding takes more than `most` bytes."""
        read = content_of(name, content)
        if hashlib.sha256(read).digest() != self.digests[position]:
            raise DistilError(
                f"the image {shown(name)} has changed since it was opened: leave the images as they are until the run "
                "has ended, and start it again."
            )
        decoded = decode(name, read, self.size) if most is None else decode_within(name, read, self.size, most)
        if decoded is None:
            return None
        pixels = self.known.apply(decoded)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(np.broadcast_to(planes, self.shape))


def content_of(name: str, content: Path | bytes) -> bytes:
    """The bytes of a picture's file. Raises: DistilError if it cannot be read."""
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise DistilError(
            f"cannot read the image {shown(name)}: {error.strerror or error}. Replace it or leave it out."
        ) from error


@dataclass(frozen=True, eq=False)
class LazyImages:
    """What stands in the place of a uint8 tensor [n, c, h, w]: indexing reads the images that it names.

    rows: positions in the store, on the CPU. device: where images come to.
    """

    store: PictureStore
    rows: Int[Tensor, " n"]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    dtype: ClassVar[torch.dtype] = torch.uint8
    ndim: ClassVar[int] = 4

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.store.shape))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | Tensor) -> UInt8[Tensor, "..."]:
        rows = self.rows[index.cpu() if isinstance(index, Tensor) else index]
        images = self.store.read(rows.reshape(-1).tolist()).to(self.device)
        return images if rows.ndim else images[0]

    def take(self, indices: Int[Tensor, " k"]) -> "LazyImages":
        """These images alone, still in their files."""
        return replace(self, rows=self.rows[indices.cpu()])

    def split(self, count: int) -> Iterator[UInt8[Tensor, "count c h w"]]:
        """All images, `count` at a time."""
        return (self[start : start + count] for start in range(0, len(self), count))

    def to(self, device: torch.device | str) -> "LazyImages":
        device = torch.device(device)
        return self if device == self.device else replace(self, device=device)

    def cpu(self) -> "LazyImages":
        return self.to("cpu")

    def sample(self) -> UInt8[Tensor, "k c h w"]:
        """At most SAMPLED of the images, always the same."""
        order = torch.randperm(len(self), generator=stream(0, "sources", "statistics"))
        return self[order[:SAMPLED].sort().values]

    def digest(self) -> bytes:
        """SHA-256 of the contents of all files, of how they are read and of their order."""
        known, size = self.store.known, self.store.size
        digest = hashlib.sha256(repr(("files", size, self.store.shape, known.binary, known.white)).encode())
        for row in self.rows.tolist():
            digest.update(self.store.digests[row])
        return digest.digest()
