"""Images with boxes: the set that detectors learn from, and how two lists of classes match."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from distil.data.inventory import Inventory
from distil.errors import DistilError
from distil.rng import stream

VOC_TO_COCO = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}
"""Names of PASCAL VOC's classes that COCO calls otherwise, spaces aside."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """The objects of one image."""

    boxes: Float[Tensor, "m 4"]
    """float32, xyxy in pixels of the image, within it."""
    labels: Int[Tensor, " m"]
    """int64, 1 to k; 0 is the background."""
    ignored: Bool[Tensor, " m"]
    """Objects that are neither to be found nor to be missed: COCO's crowds, VOC's difficult ones."""
    areas: Float[Tensor, " m"]
    """Square pixels that the size of an object is measured in: of COCO the segmented area, else of the box."""

    def __len__(self) -> int:
        return len(self.labels)


class Pictures(Protocol):
    """Where a DetectionSet's images come from: files, or scenes drawn when they are asked for."""

    def __len__(self) -> int: ...
    def image(self, index: int, /) -> UInt8[Tensor, "3 h w"]: ...
    def annotations(self, index: int, /) -> Annotations: ...
    def identifier(self, index: int, /) -> str: ...
    def size(self, index: int, /) -> tuple[int, int]: ...
    def tags(self, index: int, /) -> list[frozenset[str]]: ...


@dataclass(frozen=True, eq=False)
class DetectionSet(Dataset):
    """Images with their objects. Files are decoded when an image is asked for, and not kept.

    classes: names without background; label i is classes[i - 1].
    name: for messages.
    indices: which of the pictures belong to the set, in this order; None for all.
    note: what a reader of a result should know, such as how many boxes were mended; "" if nothing.
    """

    pictures: Pictures = field(repr=False)
    classes: tuple[str, ...]
    name: str
    indices: tuple[int, ...] | None = field(default=None, repr=False)
    note: str = ""

    def __len__(self) -> int:
        return len(self.pictures) if self.indices is None else len(self.indices)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 h w"], Annotations]:
        return self.image(index), self.annotations(index)

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """The pixels of one image; grey images have three equal channels.

        Raises: DistilError that names a file which is missing, corrupt, or not of the size that its boxes are for.
        """
        return self.pictures.image(self._place(index))

    def annotations(self, index: int) -> Annotations:
        """The objects of one image."""
        return self.pictures.annotations(self._place(index))

    def identifier(self, index: int) -> str:
        """The file name, unique in the set."""
        return self.pictures.identifier(self._place(index))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image in pixels."""
        return self.pictures.size(self._place(index))

    def tags(self, index: int) -> list[frozenset[str]]:
        """What makes each object of an image hard, as far as the data knows: small, blurred, occluded (scenes only)."""
        return self.pictures.tags(self._place(index))

    def _place(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images: no image {index}.")
        return index if self.indices is None else self.indices[index]

    def subset(self, indices: Iterable[int], name: str | None = None) -> "DetectionSet":
        """The images at these indices, in this order."""
        return replace(self, indices=tuple(self._place(int(index)) for index in indices), name=name or self.name)

    def split(self, fraction: float, seed: int) -> tuple["DetectionSet", "DetectionSet"]:
        """(kept, held out): `fraction` of the images is held out at random, at least one and never all.

        Raises: DistilError if the fraction is not between 0 and 1, or there are fewer than two images.
        """
        if not 0 < fraction < 1:
            raise DistilError(f"cannot hold out a fraction {fraction} of {self.name}: give a number between 0 and 1.")
        if len(self) < 2:
            raise DistilError(
                f"{self.name} has {len(self)} image, and a split needs at least 2: add images, or give a "
                "validation split."
            )
        count = min(max(round(len(self) * fraction), 1), len(self) - 1)
        order = torch.randperm(len(self), generator=stream(seed, "sources", "detection", "split"))
        held, kept = order[:count].sort().values, order[count:].sort().values
        return (
            self.subset(kept.tolist(), f"{self.name}, kept"),
            self.subset(held.tolist(), f"{self.name}, held out"),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of the classes and of every image's identifier, boxes, labels and ignored objects, in
        their order; pixels do not count."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for index in range(len(self)):
            annotations = self.annotations(index)
            digest.update(self.identifier(index).encode(errors="surrogateescape") + b"\0")
            for tensor in (annotations.boxes, annotations.labels, annotations.ignored):
                digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Objects of each class, the ignored ones aside."""
        found = torch.zeros(len(self.classes) + 1, dtype=torch.int64)
        for index in range(len(self)):
            annotations = self.annotations(index)
            found += torch.bincount(annotations.labels[~annotations.ignored], minlength=len(found))
        return tuple(found[1:].tolist())

    def describe(self) -> str:
        """A few lines: images, objects, their sizes, the classes and how often each is seen."""
        every = [self.annotations(index) for index in range(len(self))]
        sizes = sorted({self.size(index) for index in range(len(self))}, key=lambda size: size[0] * size[1])
        boxes = torch.cat([annotations.boxes for annotations in every]) if every else torch.zeros(0, 4)
        ignored = sum(int(annotations.ignored.sum()) for annotations in every)
        empty = sum(len(annotations) == 0 for annotations in every)
        lines = [f"{self.name}: {_number(len(self), 'image')}{_size_range(sizes)}, {empty} without objects"]
        line = f"{_number(len(boxes), 'object')}, {ignored} of them ignored"
        if len(boxes):
            sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
            low, middle, high = sides.min().item(), sides.median().item(), sides.max().item()
            line += f"; square root of the box's area {low:.0f} to {high:.0f} pixels, median {middle:.0f}"
        lines.append(line)
        counted = sorted(zip(self.counts, self.classes, strict=True), key=lambda pair: -pair[0])
        lines.append(f"{_number(len(self.classes), 'class')}: " + _listing([f"{name} {n}" for n, name in counted], 20))
        return "\n".join([*lines, self.note] if self.note else lines)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def _size_range(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return ""
    (low_height, low_width), (high_height, high_width) = sizes[0], sizes[-1]
    text = f" of {low_width} x {low_height}"
    return (text if len(sizes) == 1 else f"{text} to {high_width} x {high_height}") + " pixels (width x height)"


def _listing(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True, eq=False)
class DetectionSource:
    """Where images with boxes come from.

    val, test: None where the data has no such split.
    key: scenes, coco, voc or yolo.
    note: what a reader of a result should know of the data; "" if nothing.
    inventory: what was read and what was left out; str(inventory) is the text that the commands print.
    """

    train: DetectionSet
    val: DetectionSet | None
    test: DetectionSet | None
    key: str
    note: str = ""
    inventory: Inventory | None = None


@dataclass(frozen=True)
class ClassMatch:
    """Which class of a teacher each class of the data is.

    labels: for each class of the data the teacher's label, from 1, or None where the teacher knows no such class.
    """

    teacher: tuple[str, ...]
    data: tuple[str, ...]
    labels: tuple[int | None, ...]

    @property
    def complete(self) -> bool:
        """Does the teacher know every class of the data?"""
        return None not in self.labels

    def describe(self) -> str:
        """One line or a few: how many classes match, which only under another spelling, which not at all."""
        known = [(name, label) for name, label in zip(self.data, self.labels, strict=True) if label is not None]
        respelt = [f"{name} = {self.teacher[label - 1]}" for name, label in known if name != self.teacher[label - 1]]
        missing = [name for name, label in zip(self.data, self.labels, strict=True) if label is None]
        unused = len(self.teacher) - len(known)
        lines = [f"the teacher knows {len(known)} of the data's {_number(len(self.data), 'class')}"]
        if respelt:
            lines.append(f"spelt otherwise: {_listing(respelt)}")
        if missing:
            lines.append(f"unknown to the teacher: {_listing(missing)}")
        if unused:
            lines.append(f"{_number(unused, 'class')} of the teacher not in the data")
        return "\n".join(lines)


def match_classes(teacher: Sequence[str], data: Sequence[str]) -> ClassMatch:
    """Match classes by name: equal names first, then without regard to case, spaces, hyphens and underscores, then
    those of PASCAL VOC that COCO calls otherwise (VOC_TO_COCO). A class of the teacher is matched once.

    Raises: DistilError if no class matches.
    """
    labels: list[int | None] = [None] * len(data)
    taken: set[int] = set()
    for spelling in (str, _plain, _plain_coco):
        offered: dict[str, int] = {}
        for label, name in enumerate(teacher, start=1):
            if label not in taken:
                offered.setdefault(spelling(name), label)
        for place, name in enumerate(data):
            if labels[place] is None and (label := offered.pop(spelling(name), None)) is not None:
                labels[place] = label
                taken.add(label)
    if not taken:
        raise DistilError(
            f"the teacher knows none of the data's classes: it finds {_listing(teacher)}; the data has "
            f"{_listing(data)}. Use a teacher for these classes, or rename the data's classes to the teacher's."
        )
    return ClassMatch(tuple(teacher), tuple(data), tuple(labels))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _plain_coco(name: str) -> str:
    plain = _plain(name)
    return VOC_TO_COCO.get(plain, plain)
