"""Prototypes of two detectors, and their file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.checks import check_class_names, is_integer, shown
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors

KIND = "prototypes"
FORMAT_VERSION = 1
TENSORS = ("student", "teacher", "levels", "labels", "images", "boxes")
FIELDS = ("classes", "strides", "source", "epoch", "identifiers", "notes")


@dataclass(frozen=True, eq=False)
class PrototypeSet:
    """Objects that stand for their class on one level, as the student and as the teacher sees them.

    Ordered by level, then by class, then as they were chosen. Features are as pooled, not normalized.
    """

    student: Float[Tensor, "p s"]
    teacher: Float[Tensor, "p t"]
    levels: Int[Tensor, " p"]
    """Index into `strides`."""
    labels: Int[Tensor, " p"]
    """1 to k, as in `classes`."""
    images: Int[Tensor, " p"]
    """Index of the image in the data that the prototypes came from."""
    boxes: Float[Tensor, "p 4"]
    """The object, xyxy in pixels of the original image."""
    classes: tuple[str, ...]
    strides: tuple[int, ...]
    """Strides of the levels that student and teacher have in common, in pixels."""
    source: str
    """Name of the data."""
    epoch: int
    identifiers: tuple[str, ...] = ()
    """File name of each prototype's image."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than asked, and why."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "PrototypeSet":
        """These prototypes on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def of(self, level: int, label: int | None = None) -> "PrototypeSet":
        """The prototypes of a level (an index into `strides`), of all classes or of one label."""
        wanted = self.levels == level
        if label is not None:
            wanted = wanted & (self.labels == label)
        rows = wanted.nonzero().flatten()
        names = tuple(self.identifiers[row] for row in rows.tolist()) if self.identifiers else ()
        return replace(self, identifiers=names, **{name: getattr(self, name)[rows] for name in TENSORS})

    def describe(self) -> str:
        """A few lines for people: how many prototypes, of what, from where."""
        pictures = len(self.images.unique())
        lines = [f"{len(self)} prototypes from {pictures} images of {self.source}, chosen at epoch {self.epoch}"]
        for level, stride in enumerate(self.strides):
            counts = torch.bincount(self.labels[self.levels == level].cpu(), minlength=len(self.classes) + 1)[1:]
            least, most = int(counts.min()), int(counts.max())
            each = f"{most}" if least == most else f"{least} to {most}"
            lines.append(f"  stride {stride}: {int(counts.sum())}, {each} of each of {len(self.classes)} classes")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def save(self, path: Path | str) -> None:
        """Write one safetensors file with all of it. Raises: DistilError if the file cannot be written."""
        header = {"kind": KIND, "format_version": FORMAT_VERSION, **{name: getattr(self, name) for name in FIELDS}}
        save_tensors(path, {name: getattr(self, name) for name in TENSORS}, header)

    @classmethod
    def load(cls, path: Path | str) -> "PrototypeSet":
        """Read what `save` wrote, onto the CPU.

        Raises: DistilError that names the file when it is missing, damaged, not of prototypes, or from a newer distil,
            and the field when its contents contradict each other or make no sense.
        """
        tensors, header = load_tensors(path)
        if header.get("kind") != KIND:
            kind = shown(header["kind"])[1:-1] if isinstance(header.get("kind"), str) else "something else"
            raise DistilError(f"{path} holds {kind}, not prototypes. Give a file that PrototypeSet.save wrote.")
        version = header.get("format_version")
        if not is_integer(version) or not 1 <= version <= FORMAT_VERSION:
            raise DistilError(
                f"{path}: its format version is {shown(version)}, and this distil reads 1 to {FORMAT_VERSION}. "
                "Upgrade with pip install -U distil, or generate the prototypes again."
            )
        missing = [name for name in TENSORS if name not in tensors] + [name for name in FIELDS if name not in header]
        if missing:
            raise DistilError(f"{path}: it lacks {', '.join(missing)}. Generate the prototypes again.")
        if len({tensors[name].shape[:1] for name in TENSORS}) > 1 or tensors["labels"].ndim != 1:
            raise DistilError(f"{path}: its parts differ in length, so it is damaged. Generate the prototypes again.")
        fields = {name: header[name] for name in FIELDS}
        fields |= {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        try:
            _check_fields(fields, len(tensors["labels"]))
            _check_tensors(tensors, fields)
        except DistilError as error:
            raise DistilError(f"{path}: {error} Copy the file again, or generate the prototypes again.") from error
        return cls(**fields, **{name: tensors[name] for name in TENSORS})


def _check_fields(fields: Mapping[str, Any], count: int) -> None:
    """Refuse values in a file's header that no set of `count` prototypes has."""
    check_class_names(fields["classes"])
    if not isinstance(fields["source"], str):
        raise DistilError(f"source is {shown(fields['source'])}: it must be text.")
    strides = fields["strides"]
    rising = isinstance(strides, tuple) and bool(strides) and all(map(is_integer, strides))
    if not rising or not all(0 < one < other for one, other in pairwise((*strides, 2**16))):
        raise DistilError(f"strides are {shown(strides)}: expected rising whole numbers of pixels.")
    if not is_integer(fields["epoch"]) or fields["epoch"] < 0:
        raise DistilError(f"epoch is {shown(fields['epoch'])}: expected a whole number, at least 0.")
    for name in ("identifiers", "notes"):
        if not isinstance(fields[name], tuple) or not all(isinstance(text, str) for text in fields[name]):
            raise DistilError(f"{name} are {shown(fields[name])}: expected a list of text.")
    if fields["identifiers"] and len(fields["identifiers"]) != count:
        raise DistilError(f"there are {len(fields['identifiers'])} identifiers for {count} prototypes.")


def _check_tensors(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
    """Refuse tensors of a type, shape or range that no prototypes have."""
    if unknown := [name for name in tensors if name not in TENSORS]:
        raise DistilError(f"it holds a tensor {shown(unknown[0])}, which is unknown.")
    for name in ("student", "teacher", "boxes"):
        tensor = tensors[name]
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64) or tensor.ndim != 2:
            raise DistilError(f"{name} is {tensor.dtype} of shape {list(tensor.shape)}: expected rows of numbers.")
        if not bool(tensor.isfinite().all()):
            raise DistilError(f"{name} holds values that are NaN or infinite.")
    if tensors["boxes"].shape[1] != 4:
        raise DistilError(f"boxes have {tensors['boxes'].shape[1]} numbers each: expected 4.")
    flat = (tensors["boxes"][:, 2:] <= tensors["boxes"][:, :2]).any(1)
    if bool(flat.any()):
        raise DistilError(f"box {int(flat.nonzero()[0])} has no area: {tensors['boxes'][flat][0].tolist()}.")
    largest = {"levels": len(fields["strides"]) - 1, "labels": len(fields["classes"]), "images": 2**40}
    for name, most in largest.items():
        tensor, least = tensors[name], 1 if name == "labels" else 0
        if tensor.dtype != torch.int64 or tensor.ndim != 1:
            raise DistilError(f"{name} are {tensor.dtype} of shape {list(tensor.shape)}: expected one int64 each.")
        if len(tensor) and (int(tensor.min()) < least or int(tensor.max()) > most):
            raise DistilError(
                f"{name} reach from {int(tensor.min())} to {int(tensor.max())}: expected {least} to {most}."
            )
