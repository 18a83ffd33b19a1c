"""Labeled images as uint8, in memory or in their files, indexed by class, sampled by a generator that is given."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from distil.data.arrays import channel_statistics, held_out_counts, stratified_split
from distil.data.catalog import CUSTOM
from distil.data.images.image_fields import as_classes, as_images, as_labels, as_statistics, composed
from distil.data.images.lazy_images import LazyImages
from distil.data.inventory import Inventory, LeftOut, SplitInventory
from distil.errors import DistilError
from distil.lookup import indices_of
from distil.types import Batch

HELD_OUT = 0.2
"""Share of each class that becomes the test split where a source has none."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split, with what is needed to name and to normalize them.

    images: uint8, 255 is 1.0; a batch alone is turned to float. Those of a set that exceeds a memory limit stay in
    their files (`LazyImages`), from which indexing reads them.
    labels: int64, indices into classes, on the device of the images.
    classes: names in the order of their indices, composed (Unicode NFC).
    mean, std: of each channel of the training images in [0, 1]; to be applied by the reader of a batch.
    name: for messages.

    What holds the same is converted when the set is made: NumPy arrays of images, labels of any integer type and
    lists, lists or arrays of class names, integers as class names, and mean and std as list, array or tensor.

    Raises: DistilError if a field is of another type or out of range, shapes disagree, a label is out of range, a class
        has no image, two classes have one name, or there are fewer than two classes.
    """

    images: UInt8[Tensor, "n c h w"] | Any = field(repr=False)
    labels: Int[Tensor, " n"] = field(repr=False)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str

    def __post_init__(self) -> None:
        name = str(self.name)
        images = as_images(self.images, name)
        labels = as_labels(self.labels, len(images), name).to(images.device)
        mean, std = as_statistics(self.mean, self.std, images.shape[1], name)
        fields = {"name": name, "images": images, "labels": labels, "mean": mean, "std": std}
        for field_name, value in (fields | {"classes": as_classes(self.classes, name)}).items():
            object.__setattr__(self, field_name, value)
        if len(self.classes) < 2:
            raise DistilError(
                f"{self.name}: only one class ({', '.join(map(repr, self.classes)) or 'no name'}): "
                "distil needs at least two to tell apart."
            )
        repeated = [name for name, count in Counter(self.classes).items() if count > 1]
        if repeated:
            raise DistilError(f"{self.name}: class name {repeated[0]!r} is given twice: names must differ.")
        outside = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(outside):
            raise DistilError(
                f"{self.name}: label {int(outside[0])} is out of range: with {len(self.classes)} classes, "
                f"labels run from 0 to {len(self.classes) - 1}."
            )
        empty = [name for name, count in zip(self.classes, self.counts, strict=True) if count == 0]
        if empty:
            raise DistilError(
                f"{self.name}: class {empty[0]!r} has no images: add some, or leave the class out of the class names."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Images of each class."""
        return tuple(torch.bincount(self.labels, minlength=len(self.classes)).tolist())

    @cached_property
    def by_class(self) -> tuple[Int[Tensor, " members"], ...]:
        """Indices of each class's images, ascending, on the device of the images."""
        return torch.argsort(self.labels, stable=True).split(self.counts)

    def to(self, device: torch.device | str) -> "ImageSet":
        """This set on a device; the set itself if it is there."""
        images = self.images.to(device)
        return self if images is self.images else replace(self, images=images, labels=self.labels.to(device))

    def split(self, fraction: float, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """(kept, held out): `fraction` of every class is held out at random, at least one image and never all.

        Both keep this set's mean and std. The draw depends on the seed and on each class's own images alone.

        Raises: DistilError if the fraction is not between 0 and 1 or a class has a single image.
        """
        kept, held = self.split_indices(fraction, seed)
        return self._take(kept, f"{self.name}, kept"), self._take(held, f"{self.name}, held out")

    def split_indices(self, fraction: float, seed: int) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held"]]:
        """The indices of the images that `split` keeps and of those that it holds out, ascending, on the CPU."""
        held_out = held_out_counts(self.counts, self.classes, fraction, self.name)
        return stratified_split(self.labels, self.classes, held_out, seed, "sources", "split")

    def _take(self, indices: Int[Tensor, " k"], name: str) -> "ImageSet":
        indices = indices.to(self.images.device)
        return replace(self, images=self._images_at(indices), labels=self.labels[indices], name=name)

    def _images_at(self, indices: Int[Tensor, " k"]) -> UInt8[Tensor, "k c h w"] | LazyImages:
        """Some of the images, still in their files where they are."""
        return self.images.take(indices) if isinstance(self.images, LazyImages) else self.images[indices]

    def only(self, classes: Sequence[str]) -> "ImageSet":
        """The images of some classes, in their order here; the class indices follow the order given.

        Mean and std stay those of this set. Raises: DistilError on a class that it lacks, one named twice, and fewer
        than two.
        """
        names = classes if isinstance(classes, str) else [composed(name) for name in classes]
        places, classes = indices_of(names, self.classes, self.name), tuple(names)
        if classes == self.classes:
            return self
        labels = torch.full((len(self.classes),), -1, device=self.labels.device)
        labels[places] = torch.arange(len(places), device=labels.device)
        found = labels[self.labels]
        fewer = len(classes) < len(self.classes)
        name = f"{self.name} ({len(classes)} of {len(self.classes)} classes)" if fewer else self.name
        chosen = (found >= 0).nonzero().squeeze(1)
        return replace(self, images=self._images_at(chosen), labels=found[chosen], classes=classes, name=name)

    def batch(self, indices: Int[Tensor, " k"]) -> Batch:
        """The images at these indices as float in [0, 1], with their labels, on the device of the images."""
        indices = indices.to(self.images.device)
        return Batch(self.images[indices].float().div_(255), self.labels[indices])

    def sample_class(self, label: int, count: int, generator: torch.Generator) -> Float[Tensor, "count c h w"]:
        """`count` images of one class in [0, 1], drawn without replacement.

        Where count exceeds the class, fresh permutations of the whole class follow one another: no image is drawn
        once more often than another but by one. generator: on the CPU, so that every device sees the same draw.
        """
        members = self.by_class[label]
        rounds = -(-count // len(members))
        order = torch.cat([torch.randperm(len(members), generator=generator) for _ in range(max(rounds, 1))])[:count]
        return self.images[members[order.to(members.device)]].float().div_(255)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` images drawn uniformly and independently from the whole set (one may come twice)."""
        return self.batch(torch.randint(len(self), (count,), generator=generator))

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of the images, labels and class names; the set's name and device do not count.

        Of images that stay in their files it is of these, so that one set has another fingerprint under another memory
        limit.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        if isinstance(self.images, LazyImages):
            digest.update(self.images.digest())
        for tensor in (self.labels,) if isinstance(self.images, LazyImages) else (self.images, self.labels):
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def check_matches(self, classes: Sequence[str], channels: int, size: tuple[int, int], what: str) -> None:
        """Nothing, if this set has the classes, channels and size (height, width) that `what` was made for.

        what: the other side, as the message names it: "the distilled set digits.safetensors".

        Raises: DistilError that names both sides.
        """
        remedy = "Give the source that it was made from."
        if self.channels != channels:
            raise DistilError(
                f"{self.name} has {_channels(self.channels)} but {what} has {_channels(channels)}. {remedy}"
            )
        if self.size != tuple(size):
            raise DistilError(
                f"{self.name} has images of {self.size[0]} x {self.size[1]} pixels (height x width) but {what} has "
                f"{size[0]} x {size[1]}. {remedy} {{size=N}} resizes a source to N x N.",
                field="size",
            )
        others = tuple(composed(name) for name in classes)
        if 2 <= len(others) < len(self.classes) and set(others) < set(self.classes):
            raise DistilError(
                f"{self.name} has {len(self.classes)} classes and {what} {len(others)} of them: take these alone, with "
                f"{{classes={','.join(others)}}}.",
                field="classes",
            )
        if self.classes != others:
            raise DistilError(
                f"{self.name} and {what} have different classes: {_class_difference(self.classes, others)}. {remedy}"
            )


def _channels(count: int) -> str:
    return {1: "1 channel (grey)", 3: "3 channels (color)"}.get(count, f"{count} channels")


def _class_difference(mine: Sequence[str], other: Sequence[str]) -> str:
    if len(mine) != len(other):
        return f"{len(mine)} against {len(other)}"
    index = next(index for index, (left, right) in enumerate(zip(mine, other, strict=True)) if left != right)
    return f"class {index} is {mine[index]!r} against {other[index]!r}"


@dataclass(frozen=True, eq=False)
class Source:
    """Where real images come from.

    test: None where a source has none.
    name: for messages and for the record in an artifact.
    key: the published settings that apply: a name in `distil.data.catalog.CATALOG`, or custom.
    note: what a reader of a result should know of the source, such as how its test split was made; "" if nothing.
    inventory: what was read and what was left out; None where a source was put together by hand.
    """

    train: ImageSet
    test: ImageSet | None
    name: str
    key: str
    note: str = ""
    inventory: Inventory | None = None

    def only(self, classes: Sequence[str]) -> "Source":
        """The images of some classes, as `ImageSet.only` of both splits."""
        train = self.train.only(classes)
        if train is self.train:
            return self
        inventory = None if self.inventory is None else self.inventory.only(train.classes)
        test = None if self.test is None else self.test.only(classes)
        fewer = len(train.classes) < len(self.train.classes)
        name = f"{self.name} ({len(train.classes)} of {len(self.train.classes)} classes)" if fewer else self.name
        return replace(self, train=train, test=test, name=name, inventory=inventory)


@dataclass(frozen=True)
class Found:
    """What a reader knows of a source beside its tensors, for the inventory, whose fields have the same names.

    origins: where the training and the test split come from. sizes: height and width of every image as it is stored,
    the training images first; or of all of them, if they have one size.
    """

    format: str
    origins: tuple[str, str] = ("", "")
    sizes: list[tuple[int, int]] | tuple[int, int] = (0, 0)
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def source_from_tensors(
    train: tuple[UInt8[Tensor, "n c h w"] | LazyImages, Int[Tensor, " n"]],
    test: tuple[UInt8[Tensor, "m c h w"] | LazyImages, Int[Tensor, " m"]] | None,
    classes: Sequence[str],
    *,
    name: str,
    key: str = CUSTOM,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    seed: int = 0,
    note: str = "",
    found: Found | None = None,
) -> Source:
    """A Source of images and labels.

    test: None to hold out HELD_OUT of each training class by `seed`, which the note then says.
    statistics: mean and std of each channel; None to take those of the training images (of images that stay in their
    files, those of a sample).
    found: for the inventory.

    Raises: DistilError as ImageSet does, and if the two splits differ in channels or size.
    """
    images, labels = train
    unnormalized = (0.0,) * images.shape[1], (1.0,) * images.shape[1]
    whole = ImageSet(images, labels, tuple(classes), *(statistics or unnormalized), name=f"{name} train")
    if test is None:
        chosen = whole.split_indices(HELD_OUT, seed)
        kept, held = (whole._take(indices, whole.name) for indices in chosen)
        held_note = f"no test split given: {HELD_OUT:.0%} of each class ({len(held)} images) held out with seed {seed}"
        note = f"{note}; {held_note}" if note else held_note
        held_origin = f"{HELD_OUT:.0%} of each class, held out with seed {seed}"
    elif test[0].shape[1:] != images.shape[1:]:
        raise DistilError(
            f"{name}: the train images have {_shape(images)} but the test images have {_shape(test[0])}: "
            "both splits need the same channels and, unless {size} is given, the same size.",
            field="size",
        )
    else:
        kept, held = whole, replace(whole, images=test[0], labels=test[1], name=f"{name} test")
        chosen = torch.arange(len(kept)), torch.arange(len(kept), len(kept) + len(held))
        held_origin = found.origins[1] if found else ""
    seen = kept.images.sample() if isinstance(kept.images, LazyImages) else kept.images
    mean, std = statistics or channel_statistics(seen)
    kept = replace(kept, mean=mean, std=std, name=f"{name} train")
    held = replace(held, mean=mean, std=std, name=f"{name} test")
    inventory = None
    if found:
        sizes = found.sizes if isinstance(found.sizes, list) else [found.sizes] * (len(kept) + len(held))
        splits = (
            _split_inventory("train", found.origins[0], kept, [sizes[index] for index in chosen[0].tolist()]),
            _split_inventory("test", held_origin, held, [sizes[index] for index in chosen[1].tolist()]),
        )
        notes = found.notes
        if any(size != kept.size for size in sizes):
            part = "" if all(height == width for height, width in sizes) else "the central square of "
            notes += (f"{part}each image is resized to {kept.size[1]} x {kept.size[0]} pixels",)
        inventory = Inventory(name, found.format, kept.classes, splits, found.left_out, notes)
    return Source(train=kept, test=held, name=name, key=key, note=note, inventory=inventory)


def _split_inventory(
    split: Literal["train", "test"], origin: str, images: ImageSet, sizes: Sequence[tuple[int, int]]
) -> SplitInventory:
    by_area = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    return SplitInventory(split, origin, len(images), images.counts, by_area[0], by_area[-1])


def _shape(images: Tensor | LazyImages) -> str:
    return f"{_channels(images.shape[1])} and {images.shape[2]} x {images.shape[3]} pixels"
