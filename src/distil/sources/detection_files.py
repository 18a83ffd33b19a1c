"""Detection data that lies in image files: checks that every reader shares, and pictures decoded when asked for."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from distil.errors import DistilError
from distil.sources.detection import Annotations, DetectionSet
from distil.sources.folder import IMAGE_SUFFIXES
from distil.sources.pictures import read_pictures

OUTSIDE = 1.05
"""Pixels by which a box may reach outside its image and be clipped without a word: one, and rounding."""

ORIENTATION = 0x0112
"""The EXIF tag that says which side of a picture is up."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files, and the objects of all of them in one table.

    starts: objects starts[i] to starts[i + 1] - 1 are those of image i.
    oriented: turn pictures as their EXIF tag says. Otherwise they are taken as they are stored, and turned only where
        that alone gives them the size that their annotations are for.
    """

    paths: tuple[Path, ...] = field(repr=False)
    identifiers: tuple[str, ...] = field(repr=False)
    sizes: tuple[tuple[int, int], ...] = field(repr=False)
    starts: tuple[int, ...] = field(repr=False)
    boxes: Float[Tensor, "m 4"] = field(repr=False)
    labels: Int[Tensor, " m"] = field(repr=False)
    ignored: Bool[Tensor, " m"] = field(repr=False)
    areas: Float[Tensor, " m"] = field(repr=False)
    oriented: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        return read_image(self.paths[index], self.sizes[index], oriented=self.oriented)

    def annotations(self, index: int) -> Annotations:
        own = slice(self.starts[index], self.starts[index + 1])
        return Annotations(self.boxes[own], self.labels[own], self.ignored[own], self.areas[own])

    def identifier(self, index: int) -> str:
        return self.identifiers[index]

    def size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]

    def tags(self, index: int) -> list[frozenset[str]]:
        return [frozenset()] * (self.starts[index + 1] - self.starts[index])


def read_image(path: Path, size: tuple[int, int], *, oriented: bool = False) -> UInt8[Tensor, "3 h w"]:
    """A picture as RGB.

    size: height and width that its annotations are for. oriented: see `ImageFiles`.

    Raises: DistilError that names a file which is missing, cannot be decoded, or has another size.
    """
    if not path.is_file():
        raise DistilError(f"the image {path} is missing: put it there, or take it out of the annotations.")
    pixels = _decode(path, size, oriented)
    if pixels is None:  # a rare mode, such as 16 bits, a palette or transparency
        pixels = read_pictures([(str(path), path)], None)[0]
    if pixels.shape[:2] != size:
        raise DistilError(
            f"the image {path} has {pixels.shape[1]} x {pixels.shape[0]} pixels (width x height), but its annotations "
            f"are for {size[1]} x {size[0]}: use the image that was annotated."
        )
    if pixels.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(pixels)).expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _decode(path: Path, size: tuple[int, int], oriented: bool) -> np.ndarray | None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            with Image.open(path) as image:
                if image.mode not in ("L", "RGB") or "transparency" in image.info:
                    return None
                if image.getexif().get(ORIENTATION, 1) != 1 and (oriented or image.size != size[::-1]):
                    return np.array(ImageOps.exif_transpose(image))
                return np.array(image)
    except Exception as error:  # decoders of broken files raise anything
        reason = str(error) or type(error).__name__
        raise DistilError(f"cannot read the image {path}: {reason}. Replace it or leave it out.") from error


def image_sizes(paths: Sequence[Path], *, oriented: bool = False) -> list[tuple[int, int]]:
    """Height and width of pictures, from their headers alone.

    Raises: DistilError that names a file which is missing or has no header that can be read.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module=r"PIL\b")
        return list(pool.map(_header_size, paths, [oriented] * len(paths)))


def _header_size(path: Path, oriented: bool) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            turned = oriented and image.getexif().get(ORIENTATION, 1) >= 5
            return image.size if turned else (image.height, image.width)
    except FileNotFoundError as error:
        raise DistilError(f"the image {path} is missing: put it there, or take it out of the annotations.") from error
    except Exception as error:  # decoders of broken files raise anything
        reason = str(error) or type(error).__name__
        raise DistilError(f"cannot read the image {path}: {reason}. Replace it or leave it out.") from error


def image_files(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and below it, by their path in it without the ending, in the order of their names.

    Raises: DistilError if two differ in the ending alone.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in IMAGE_SUFFIXES or any(part.startswith(".") for part in inside.parts):
            continue
        stem = inside.with_suffix("").as_posix()
        if stem in found:
            raise DistilError(f"{found[stem]} and {path} would share their annotations: rename or remove one.")
        found[stem] = path
    return found


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """The objects of all images as a reader found them, not checked yet.

    images: index of each object's image. boxes: float64, xyxy in pixels. areas: float64; nan for the area of the box.
    describe: what object i is called in messages: "annotation 17", "line 3 of 0007.txt".
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray
    describe: Callable[[int], str]


def detection_set(
    name: str,
    classes: Sequence[str],
    paths: Sequence[Path],
    identifiers: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    objects: ObjectTable,
    *,
    fix_boxes: bool,
    oriented: bool = False,
) -> DetectionSet:
    """A DetectionSet of files, once all boxes lie in their images and have an area.

    Boxes that reach out by up to OUTSIDE pixels are clipped. fix_boxes: clip those that reach out further too, and drop
    those without area.

    Raises: DistilError if there are no images or no objects, two images have one identifier, or a box is bad.
    """
    if not paths:
        raise DistilError(f"{name} has no images: give a folder or a list with at least one.")
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise DistilError(f"{name} has the image {identifier} twice: keep one entry with the objects of both.")
        seen.add(identifier)
    if not len(objects.boxes):
        raise DistilError(f"{name} has {len(paths)} images and not one object: a detector needs boxes to learn from.")
    boxes, kept, note = _checked(name, identifiers, np.array(sizes, dtype=np.float64), objects, fix_boxes)
    moved = (boxes != objects.boxes.astype(np.float32)).any(1)
    box_areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    given = np.isfinite(objects.areas) & (objects.areas > 0) & ~moved
    areas = np.where(given, objects.areas, box_areas)
    order = np.argsort(objects.images[kept], kind="stable")
    images = objects.images[kept][order]
    starts = np.searchsorted(images, np.arange(len(paths) + 1))

    def table(values: np.ndarray, kind: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[kept][order])).to(kind)

    pictures = ImageFiles(
        paths=tuple(paths),
        identifiers=tuple(identifiers),
        sizes=tuple(sizes),
        starts=tuple(starts.tolist()),
        boxes=table(boxes, torch.float32),
        labels=table(objects.labels, torch.int64),
        ignored=table(objects.ignored, torch.bool),
        areas=table(areas, torch.float32),
        oriented=oriented,
    )
    return DetectionSet(pictures, tuple(classes), name, note=note)


def _checked(
    name: str, identifiers: Sequence[str], sizes: np.ndarray, objects: ObjectTable, fix_boxes: bool
) -> tuple[np.ndarray, np.ndarray, str]:
    """(boxes clipped to their images, which are kept, note)."""
    limits = sizes[objects.images][:, [1, 0, 1, 0]]
    finite: np.ndarray = np.all(np.isfinite(objects.boxes), axis=1, keepdims=True)[:, 0]
    boxes = np.where(finite[:, None], objects.boxes, 0.0)
    reach = np.maximum(-boxes, boxes - limits).max(1)
    outside = finite & (reach > OUTSIDE)
    boxes = np.clip(boxes, 0.0, limits).astype(np.float32)
    flat = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    remedy = "--fix-boxes (fix_boxes=True) clips boxes to their images and drops those without area."
    for bad, told in ((outside, "reaches {reach:.4g} pixels outside"), (flat, "has no area inside")):
        if bad.any() and not fix_boxes:
            first = int(np.flatnonzero(bad)[0])
            image = objects.images[first]
            corners = ", ".join(f"{value:.6g}" for value in objects.boxes[first])
            others = f" {int(bad.sum())} such boxes in all." if bad.sum() > 1 else ""
            raise DistilError(
                f"{name}: the box ({corners}) of {objects.describe(first)} on image {identifiers[image]} "
                f"{told.format(reach=reach[first])} that image of {sizes[image, 1]:.0f} x {sizes[image, 0]:.0f} pixels "
                f"(x1, y1, x2, y2; width x height).{others} Mend the annotations, or: {remedy}"
            )
    if flat.all():
        raise DistilError(f"{name}: not one box has an area inside its image: mend the annotations.")
    clipped = int((outside & ~flat).sum())
    note = f"{name}: {clipped} boxes clipped to their images, {int(flat.sum())} without area dropped"
    return boxes, ~flat, note if clipped or flat.any() else ""


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises: DistilError if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DistilError(f"cannot read {path}: {error}. Copy or write it again.") from error


def joined_notes(*notes: str) -> str:
    """Notes that say something, in one line."""
    return "; ".join(note for note in notes if note)
