"""PASCAL VOC's xml annotations."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distil.errors import DistilError
from distil.sources.detection import DetectionSet, DetectionSource
from distil.sources.detection_files import (
    ObjectTable,
    detection_set,
    image_files,
    image_sizes,
    joined_notes,
    read_lines,
)

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

LAYOUT = "Expected ROOT/VOCdevkit/VOC2007 (or ROOT/VOC2007, or ROOT itself) with JPEGImages/ and Annotations/."


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, ...]
    difficult: bool


def open_voc(
    root: Path,
    split: str | None = None,
    year: int | None = None,
    *,
    classes: Sequence[str] | None = None,
    fix_boxes: bool = False,
) -> DetectionSet:
    """Images and boxes in the layout of PASCAL VOC.

    root: the folder of VOCdevkit, or VOCdevkit, or one year's folder, or any folder with pictures in JPEGImages/ (or
        images/, or beside the xml) and xml in Annotations/ (or in the folder itself).
    split: the list ImageSets/Main/SPLIT.txt; None for every xml.
    year: which VOC20NN; None if there is one.
    classes: names; None for the lines of ROOT/classes.txt or labels.txt, else the 20 of VOC in a folder VOC20NN, else
        the names that the split has, sorted.
    fix_boxes: clip boxes that reach outside their image, and drop those without area.

    A box (xmin, ymin, xmax, ymax) counts pixels from 1 and holds its last: it becomes (xmin - 1, ymin - 1, xmax, ymax).
    Objects marked difficult are `ignored`. Parts of objects are passed over.

    Raises: DistilError if the layout, the list, an xml or an image is missing or cannot be read, a class is unknown, or
        a box is without area or outside its image.

    Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge" (2010); the format as in its
        development kit.
    """
    folder = voc_folder(Path(root).expanduser(), year)
    annotation_folder = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    names = sorted(path.stem for path in annotation_folder.glob("*.xml")) if split is None else _listed(folder, split)
    if not names:
        raise DistilError(f"{annotation_folder} has no xml. {LAYOUT}")
    pictures = image_files(_picture_folder(folder))
    parsed = [_parse(annotation_folder / f"{name}.xml") for name in names]
    paths = [_picture(name, pictures, annotation_folder) for name in names]
    sizes = [size for size, _ in parsed]
    unknown = [place for place, size in enumerate(sizes) if size is None]
    for place, size in zip(unknown, image_sizes([paths[place] for place in unknown]), strict=True):
        sizes[place] = size
    found = sorted({entry.name for _, objects in parsed for entry in objects})
    known = tuple(classes) if classes is not None else _class_list(folder, found)
    label_of = {name: label for label, name in enumerate(known, start=1)}
    rows = [(place, entry) for place, (_, objects) in enumerate(parsed) for entry in objects]
    for place, entry in rows:
        if entry.name not in label_of:
            raise DistilError(
                f"{annotation_folder / names[place]}.xml has an object of class {entry.name!r}, which is not among the "
                f"classes {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}: mend the name, or list all "
                f"classes in {folder / 'classes.txt'}, one a line."
            )
    objects = ObjectTable(
        images=np.array([place for place, _ in rows], dtype=np.int64),
        boxes=np.array([entry.box for _, entry in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([label_of[entry.name] for _, entry in rows], dtype=np.int64),
        ignored=np.array([entry.difficult for _, entry in rows], dtype=bool),
        areas=np.full(len(rows), np.nan),
        describe=lambda row: f"a {rows[row][1].name}",
    )
    name = f"{folder.resolve().name} {split}" if split else folder.resolve().name
    identifiers = [path.name for path in paths]
    return detection_set(name, known, paths, identifiers, [s for s in sizes if s], objects, fix_boxes=fix_boxes)


def voc_source(root: Path, *, fix_boxes: bool = False) -> DetectionSource:
    """The splits of a folder in PASCAL VOC's layout.

    With lists trainval and test, these two (VOC's own protocol); else train, val and test as far as there are lists;
    without lists all images are the training split, and val and test are None. ROOT/train, ROOT/val (valid) and
    ROOT/test with xml of their own are splits too.

    Raises: DistilError as `open_voc`, and if there are lists, but none for training.
    """
    parts = {word: root / folder for word, folder in _split_folders(root)}
    if "train" in parts:
        train = open_voc(parts["train"], fix_boxes=fix_boxes)
        rest = {w: open_voc(f, classes=train.classes, fix_boxes=fix_boxes) for w, f in parts.items() if w != "train"}
    else:
        folder = voc_folder(root, None)
        lists = {file.stem for file in (folder / "ImageSets" / "Main").glob("*.txt")}
        if lists and not lists & {"train", "trainval"}:
            raise DistilError(
                f"{folder / 'ImageSets' / 'Main'} has no train.txt and no trainval.txt: found "
                f"{', '.join(sorted(lists)[:8])}."
            )
        whole = "trainval" in lists and ("test" in lists or "train" not in lists)
        first = ("trainval" if whole else "train") if lists else None
        train = open_voc(folder, first, fix_boxes=fix_boxes)
        words = [word for word in (("test",) if whole else ("val", "test")) if word in lists]
        rest = {word: open_voc(folder, word, classes=train.classes, fix_boxes=fix_boxes) for word in words}
    note = joined_notes(train.note, *(split.note for split in rest.values()))
    return DetectionSource(train, rest.get("val"), rest.get("test"), "voc", note)


def _split_folders(root: Path) -> list[tuple[str, str]]:
    names = (("train", "train"), ("val", "val"), ("val", "valid"), ("test", "test"))
    return [(w, n) for w, n in names if any((root / n).glob("*.xml")) or (root / n / "Annotations").is_dir()]


def voc_folder(root: Path, year: int | None) -> Path:
    """The folder that holds JPEGImages and Annotations.

    Raises: DistilError if there is none, or there are several years and none is asked for.
    """
    if not root.is_dir():
        raise DistilError(f"no folder at {root}. {LAYOUT}")
    years = sorted({*root.glob("VOCdevkit/VOC[0-9][0-9][0-9][0-9]"), *root.glob("VOC[0-9][0-9][0-9][0-9]")})
    if year is not None:
        if root.name == f"VOC{year}":
            return root
        found = next((folder for folder in years if folder.name == f"VOC{year}"), None)
        if found is None:
            have = ", ".join(folder.name for folder in years) or "no year"
            raise DistilError(f"{root} has no VOC{year}: found {have}. {LAYOUT}")
        return found
    if len(years) > 1:
        raise DistilError(
            f"{root} has several years, {', '.join(folder.name for folder in years)}: give one of them, "
            f"as in voc:{years[0]}."
        )
    if years:
        return years[0]
    if (root / "Annotations").is_dir() or any(root.glob("*.xml")):
        return root
    raise DistilError(f"{root} has no Annotations. {LAYOUT}")


def _listed(folder: Path, split: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        have = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        raise DistilError(f"there is no list {path} for the split {split!r}: the lists are {have}.")
    names = [line.split()[0] for line in read_lines(path) if line.strip()]
    if not names:
        raise DistilError(f"{path} is empty: list one image a line, without its ending.")
    return names


def _picture_folder(folder: Path) -> Path:
    return next((folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder)


def _picture(name: str, pictures: dict[str, Path], annotations: Path) -> Path:
    path = pictures.get(name)
    if path is None:
        raise DistilError(
            f"the image {name} of {annotations / name}.xml is missing: put it into JPEGImages, or remove the xml and "
            "its line in the list."
        )
    return path


def _class_list(folder: Path, found: Sequence[str]) -> tuple[str, ...]:
    for file in (folder / "classes.txt", folder / "labels.txt"):
        if file.is_file():
            names = [line.strip() for line in read_lines(file) if line.strip()]
            if len(set(names)) < len(names) or not names:
                raise DistilError(f"{file} must name each class once, one a line.")
            return tuple(names)
    if re.fullmatch(r"VOC\d{4}", folder.resolve().name) and set(found) <= set(VOC_CLASSES):
        return VOC_CLASSES
    return tuple(found)


def _parse(path: Path) -> tuple[tuple[int, int] | None, list[_Object]]:
    """((height, width) or None, objects)."""
    try:
        tree = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise DistilError(
            f"the annotations {path} are missing: put them there, or take the image out of the list."
        ) from None
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise DistilError(f"cannot read {path}: {error}. Copy or write it again.") from error
    size = None
    if tree.find("size") is not None:
        width, height = (_number(tree, f"size/{side}", path) for side in ("width", "height"))
        size = (int(height), int(width)) if 1 <= width < math.inf and 1 <= height < math.inf else None
    objects = []
    for entry in tree.findall("object"):
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise DistilError(f"{path}: an object has no name: give it its class.")
        left, top, right, bottom = (_number(entry, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = (entry.findtext("difficult") or "0").strip() not in ("", "0")
        objects.append(_Object(name, (left - 1, top - 1, right, bottom), difficult))
    return size, objects


def _number(entry: ElementTree.Element, where: str, path: Path) -> float:
    text = entry.findtext(where)
    try:
        return float(text or "")
    except ValueError:
        raise DistilError(f"{path}: {where} of <{entry.tag}> must be a number, not {text!r}.") from None
