"""Detection data that lies in image files: checks that every reader shares, and pictures decoded when asked for."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from distil.data.detection.checks import FURTHEST, Frame, ObjectTable, refuse_ignored, usable_boxes, without_repeats
from distil.data.detection.detection_set import Annotations, DetectionSet, DetectionSource
from distil.data.detection.inventory import Findings, find_unused, make_inventory, numbered
from distil.data.detection.rotation import (
    orientation_of,
    read_headers,
    settled_sizes,
    size_error,
    turn,
    turn_back,
    turned_sizes,
)
from distil.data.detection.splits import Split
from distil.data.images.folder import IMAGE_SUFFIXES
from distil.data.pictures import read_pictures
from distil.errors import DistilError


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
        rows = slice(self.starts[index], self.starts[index + 1])
        return Annotations(self.boxes[rows], self.labels[rows], self.ignored[rows], self.areas[rows])

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
    if pixels.shape[:2] != size:
        raise size_error(path, (pixels.shape[0], pixels.shape[1]), size)
    if pixels.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(pixels)).expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _decode(path: Path, size: tuple[int, int], oriented: bool) -> np.ndarray:
    """Pixels, (h, w) or (h, w, 3), as stored or turned, whatever the mode."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            with Image.open(path) as image:
                tag = orientation_of(image)
                turned = oriented or image.size != size[::-1]
                if image.mode in ("L", "RGB") and "transparency" not in image.info:
                    return np.array(turn(image, tag) if turned else image)
    except Exception as error:  # decoders of broken files raise anything
        reason = str(error) or type(error).__name__
        raise DistilError(f"cannot read the image {path}: {reason}. Replace it or leave it out.") from error
    pixels = read_pictures([(str(path), path)], None)[0]  # turned as the tag says
    return pixels if turned or tag == 1 else np.array(turn_back(Image.fromarray(pixels), tag))


def image_files(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and below it, by their path in it without the ending, in the order of their names.

    Raises: DistilError if two differ in the ending alone.
    """
    found: dict[str, Path] = {}
    start = 0 if folder == Path() else len(os.path.join(folder, ""))
    for path in sorted(path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES):
        stem = os.path.splitext(os.fspath(path)[start:])[0]
        if stem in found:
            raise DistilError(f"{found[stem]} and {path} would share their annotations: rename or remove one.")
        found[stem] = path
    return found


def files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files in a folder and below it. Links to folders are followed, but not back to a folder that holds them;
    names that begin with a dot are passed over.

    Raises: DistilError if a folder cannot be listed.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".")]
    except OSError as error:
        raise DistilError(f"cannot list {folder}: {error.strerror or error}. Make it readable.") from error
    for entry in entries:
        if entry.is_dir():
            yield from files_below(folder / entry.name, (*above, here))
        else:
            yield folder / entry.name


def refuse_repeated(name: str, identifiers: Sequence[str]) -> None:
    """Raises: DistilError if an image of the set `name` is there twice."""
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise DistilError(f"{name} has the image {identifier} twice: keep one entry with the objects of both.")
        seen.add(identifier)


def detection_set(
    name: str,
    classes: Sequence[str],
    paths: Sequence[Path],
    identifiers: Sequence[str],
    annotated: Sequence[tuple[int, int] | None],
    objects: ObjectTable,
    *,
    fix_boxes: bool,
    findings: Findings,
    shares: bool = False,
    sides: bool = False,
) -> DetectionSet:
    """A DetectionSet of files, once all boxes lie in their images and have an area.

    Objects that repeat another's image, class and box are dropped. Boxes that reach out by up to OUTSIDE pixels are
    clipped.

    annotated: height and width that the annotations tell of each image, or None.
    fix_boxes: clip boxes that reach out further too, and drop those without area.
    shares: boxes are shares of the images, which are turned as their EXIF tags say (YOLO), not pixels.
    sides: boxes were written as x, y, width and height (COCO).

    Raises: DistilError if there are no images or no objects, all objects are ignored, two images have one identifier or
        file, an image cannot be read or has another size, or a box is bad.
    """
    if not paths:
        raise DistilError(f"{name} has no images: give a folder or a list with at least one.")
    refuse_repeated(name, identifiers)
    seen: dict[Path, str] = {}
    for identifier, path in zip(identifiers, paths, strict=True):
        if path in seen:
            refuse_repeated(name, [identifier, identifier])
        seen[path] = identifier
    headers = read_headers(paths)
    if not len(objects):
        raise DistilError(f"{name} has {len(paths)} images and not one object: a detector needs boxes to learn from.")
    sizes = turned_sizes(headers, findings) if shares else settled_sizes(paths, headers, annotated, findings)
    frame = Frame(name, identifiers, sizes, headers, shares, sides)
    if shares:
        with np.errstate(all="ignore"):  # numbers beyond sense are found below
            objects = replace(objects, boxes=objects.boxes * frame.limits(objects))
    objects, repeats = without_repeats(frame, objects, findings)
    boxes, kept, note = usable_boxes(frame, objects, fix_boxes, findings)
    refuse_ignored(name, objects.ignored[kept])
    moved = (boxes != np.clip(objects.boxes, -2 * FURTHEST, 2 * FURTHEST).astype(np.float32)).any(1)
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
        oriented=shares,
    )
    note = joined_notes(note, f"{name}: {numbered(repeats, 'repeated object')} dropped" if repeats else "")
    return DetectionSet(pictures, tuple(classes), name, note=note)


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


def source_of(
    key: str,
    format: str,
    name: str,
    root: Path,
    opened: Mapping[Split, tuple[DetectionSet, str]],
    used: Iterable[Path],
    findings: Findings,
    unnamed: str,
    note: str = "",
) -> DetectionSource:
    """The source of splits that were opened, with its inventory.

    opened: the set of each split, and where it comes from. used: annotation files that were read. unnamed: why pictures
    under `root` that no split has are left out. note: what else the source's note says.
    """
    sets: dict[Split, DetectionSet] = {split: data for split, (data, _) in opened.items()}
    notes = joined_notes(note, *(data.note for data in sets.values()))
    pictures = [path for data in sets.values() for path in getattr(data.pictures, "paths", ())]
    find_unused(root, [*pictures, *used], findings, unnamed=unnamed)
    inventory = make_inventory(name, format, opened, findings)
    return DetectionSource(sets["train"], sets.get("val"), sets.get("test"), key, notes, inventory)
