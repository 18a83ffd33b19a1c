"""PASCAL VOC's xml annotations."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distil.data.detection.checks import ObjectTable
from distil.data.detection.detection_set import DetectionSet, DetectionSource
from distil.data.detection.files import (
    detection_set,
    files_below,
    image_files,
    read_lines,
    refuse_repeated,
    source_of,
)
from distil.data.detection.inventory import Findings, named, numbered, printable
from distil.data.detection.splits import SPLITS, Split, by_split, folder_named, folders_in, split_of
from distil.data.detection.values import check_names, class_name, flag, inside, number
from distil.data.images.folder import IMAGE_SUFFIXES
from distil.errors import DistilError

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


@dataclass(frozen=True)
class _Part:
    """A folder of pictures and one of xml, and which of them: names without ending, or None for every xml."""

    images: Path
    xml: Path
    names: tuple[str, ...] | None
    title: str
    origin: str
    list: Path | None = None


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
    Objects marked difficult (1, true, yes) are `ignored`; truncated and occluded ones are not. Parts of objects are
    passed over, and objects that repeat another's class and box are dropped. Pictures are read as they are stored; one
    with an EXIF rotation tag is turned where that alone gives it the size in its xml.

    Raises: DistilError if the layout, the list, an xml or an image is missing or cannot be read, an image has another
        size than its xml says, a class is unknown, or a box is without area or outside its image.

    Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge" (2010); the format as in its
        development kit.
    """
    folder = voc_folder(Path(root).expanduser(), year)
    part = _whole(folder) if split is None else _listed_part(folder, split)
    return _built(part, classes or _listed_classes(folder), fix_boxes, Findings(), official=_is_official(folder))


def voc_source(root: Path, *, fix_boxes: bool = False) -> DetectionSource:
    """The splits of a folder in PASCAL VOC's layout.

    With lists trainval and test, these two (VOC's own protocol); else train, val and test as far as there are lists, in
    ImageSets/Main, in ImageSets or in the folder itself; without lists all images are the training split, and val and
    test are None. Folders named for splits (training, valid, ...) with xml of their own are splits too, in ROOT or in
    ROOT/Annotations. A test split without xml is not offered.

    Raises: DistilError as `open_voc`, and if there are splits, but none for training.
    """
    findings = Findings()
    parts = _split_folders(root)
    folder = root if parts else voc_folder(root, None)
    parts = parts or _split_lists(folder, findings) or {"train": _whole(folder)}
    if "train" not in parts:
        raise DistilError(
            f"{folder} has no train split, only {', '.join(part.origin for part in parts.values())}. {LAYOUT}"
        )
    classes: Sequence[str] | None = _listed_classes(folder)
    opened: dict[Split, tuple[DetectionSet, str]] = {}
    unused: list[Path] = []
    for split, part in parts.items():
        names = _names(part)
        if split == "test" and names and not any((part.xml / f"{name}.xml").is_file() for name in names):
            told = f"{part.origin} with {numbered(len(names), 'image')}"
            findings.leave_out("test splits", [told], "no annotations")
            pictures = image_files(part.images)
            unused += [pictures[name] for name in names if name in pictures]
            continue
        data = _built(part, classes, fix_boxes, findings, official=_is_official(folder))
        classes = data.classes
        opened[split] = data, part.origin
    used = [part.xml / f"{name}.xml" for part in parts.values() for name in _names(part)]
    used += [part.list for part in parts.values() if part.list] + unused
    _tell_unused_xml(folder, parts, used, findings)
    unnamed = "no list names them" if any(part.names for part in parts.values()) else "they have no xml"
    return source_of("voc", "PASCAL VOC", folder.resolve().name, folder, opened, used, findings, unnamed)


def _tell_unused_xml(root: Path, parts: Mapping[Split, _Part], used: Sequence[Path], findings: Findings) -> None:
    folders = {part.xml for part in parts.values()}
    known = set(used)
    unused = sorted(
        str(path.relative_to(root))
        for folder in folders
        for path in folder.glob("*.xml")
        if path not in known and not path.name.startswith(".")
    )
    findings.leave_out("xml files", unused, "no list names them")


def _whole(folder: Path) -> _Part:
    xml = _xml_folder(folder)
    origin = "" if xml == folder else xml.name
    return _Part(_picture_folder(folder), xml, None, folder.resolve().name, origin)


def _xml_folder(folder: Path) -> Path:
    return folder_named(folder, "Annotations", "annotations", "xml", "xmls") or folder


def _picture_folder(folder: Path) -> Path:
    return folder_named(folder, "JPEGImages", "images") or folder


def _split_folders(root: Path) -> dict[Split, _Part]:
    """Folders named for splits that hold xml, in the root or in its Annotations."""
    beside = [folder for folder in folders_in(root) if split_of(folder.name) and _holds_xml(_xml_folder(folder))]
    parts: dict[Split, _Part] = {
        split: _Part(_picture_folder(folder), _xml_folder(folder), None, folder.name, folder.name)
        for split, folder in by_split(beside, "folders").items()
    }
    if parts:
        return parts
    xml, pictures = _xml_folder(root), _picture_folder(root)
    below = [] if xml == root else [each for each in folders_in(xml) if split_of(each.name) and _holds_xml(each)]
    for split, folder in by_split(below, "folders").items():
        images = folder_named(pictures, folder.name) or pictures
        parts[split] = _Part(
            images, folder, None, f"{root.resolve().name} {folder.name}", str(folder.relative_to(root))
        )
    return parts


def _holds_xml(folder: Path) -> bool:
    return any(path.suffix.lower() == ".xml" for path in folder.iterdir())


def _split_lists(folder: Path, findings: Findings) -> dict[Split, _Part]:
    """The splits that lists name."""
    place = _list_folder(folder)
    if place is None:
        return {}
    files = {file.stem: file for file in sorted(place.glob("*.txt")) if not file.name.startswith(".")}
    whole = next((stem for stem in files if stem.lower() == "trainval"), None)
    simple = by_split([file for stem, file in files.items() if stem != whole], "lists")
    if whole and ("test" in simple or "train" not in simple):
        chosen: dict[Split, Path] = {"train": files[whole], **{s: f for s, f in simple.items() if s == "test"}}
    else:
        chosen = simple
    if "train" not in chosen:
        raise DistilError(f"{place} has no train.txt and no trainval.txt: found {named(list(files))}.")
    why = "the splits are " + " and ".join(file.stem for file in chosen.values())
    unused = [stem for stem, file in files.items() if file not in chosen.values()]
    if place != folder:
        findings.leave_out(f"lists of {place.relative_to(folder)}", unused, why)
    return {split: _listed_part(folder, chosen[split].stem) for split in SPLITS if split in chosen}


def _list_folder(folder: Path) -> Path | None:
    """Where the lists of splits are: ImageSets/Main, ImageSets, or the folder itself if a list there names images."""
    sets = folder_named(folder, "ImageSets")
    for place in (folder_named(sets, "Main") if sets else None, sets):
        if place and any(place.glob("*.txt")):
            return place
    known = None
    for file in sorted(folder.glob("*.txt")):
        if split_of(file.stem):
            known = known or _known_names(folder)
            first = next((line for line in read_lines(file) if line.strip()), "")
            if _listed_name(first, known) in known:
                return folder
    return None


def _listed_part(folder: Path, split: str) -> _Part:
    place = _list_folder(folder) or folder / "ImageSets" / "Main"
    path = place / f"{split}.txt"
    if not path.is_file():
        have = ", ".join(sorted(file.stem for file in place.glob("*.txt"))) or "none"
        raise DistilError(f"there is no list {path} for the split {split!r}: the lists are {have}.")
    known, names = _known_names(folder), []
    for number_, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        name = _listed_name(line, known)
        if inside(folder, name) is None or name.startswith("/"):
            raise DistilError(
                f"line {number_} of {path} is {printable(line.strip())!r}, which leads out of {folder}: list the names "
                "of images there."
            )
        names.append(name)
    if not names:
        raise DistilError(f"{path} is empty: list one image a line, without its ending.")
    origin = str(path.relative_to(folder))
    title = f"{folder.resolve().name} {split}"
    return _Part(_picture_folder(folder), _xml_folder(folder), tuple(names), title, origin, path)


def _known_names(folder: Path) -> set[str]:
    """Names without ending of all xml and pictures."""
    xml, pictures = _xml_folder(folder), _picture_folder(folder)
    names = {_stem(path, xml) for path in files_below(xml) if path.suffix.lower() == ".xml"}
    return names | {_stem(path, pictures) for path in files_below(pictures) if path.suffix.lower() in IMAGE_SUFFIXES}


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _listed_name(line: str, known: set[str]) -> str:
    """The image that a line of a list names: all of it, or what stands before a flag -1, 0 or 1, without ending."""
    whole = line.strip()
    flagged = re.fullmatch(r"(.*\S)\s+(?:-1|0|\+?1)", whole)
    for text in (whole, flagged[1] if flagged else whole):
        for name in (text, re.sub(r"\.\w{2,4}$", "", text)):
            if name in known:
                return name
    return flagged[1] if flagged else whole


def _names(part: _Part) -> list[str]:
    if part.names is not None:
        return list(part.names)
    return sorted(_stem(path, part.xml) for path in files_below(part.xml) if path.suffix.lower() == ".xml")


def _built(
    part: _Part, classes: Sequence[str] | None, fix_boxes: bool, findings: Findings, *, official: bool
) -> DetectionSet:
    names = _names(part)
    if not names:
        raise DistilError(f"{part.xml} has no xml. {LAYOUT}")
    refuse_repeated(part.title, names)
    pictures = image_files(part.images)
    parsed = [_parse(part.xml / f"{name}.xml", findings) for name in names]
    paths = [_picture(name, pictures, part) for name in names]
    found = sorted({entry.name for _, objects in parsed for entry in objects})
    if classes is None:
        classes = VOC_CLASSES if official and set(found) <= set(VOC_CLASSES) else found
    label_of = {name: label for label, name in enumerate(classes, start=1)}
    rows = [(place, entry) for place, (_, objects) in enumerate(parsed) for entry in objects]
    for place, entry in rows:
        if entry.name not in label_of:
            root = part.xml.parent if part.xml.name.lower() == "annotations" else part.xml
            raise DistilError(
                f"{part.xml / names[place]}.xml has an object of class {entry.name!r}, which is not among the "
                f"classes {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}: mend the name, or list all "
                f"classes in {root / 'classes.txt'}, one a line."
            )
    objects = ObjectTable(
        images=np.array([place for place, _ in rows], dtype=np.int64),
        boxes=np.array([entry.box for _, entry in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([label_of[entry.name] for _, entry in rows], dtype=np.int64),
        ignored=np.array([entry.difficult for _, entry in rows], dtype=bool),
        areas=np.full(len(rows), np.nan),
        describe=lambda row: f"a {rows[row][1].name}",
    )
    identifiers = [path.relative_to(part.images).as_posix() for path in paths]
    sizes = [size for size, _ in parsed]
    return detection_set(
        part.title, classes, paths, identifiers, sizes, objects, fix_boxes=fix_boxes, findings=findings
    )


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
    if _xml_folder(root) != root or any(root.glob("*.xml")):
        return root
    raise DistilError(f"{root} has no Annotations. {LAYOUT}")


def _is_official(folder: Path) -> bool:
    return re.fullmatch(r"VOC\d{4}", folder.resolve().name) is not None


def _picture(name: str, pictures: dict[str, Path], part: _Part) -> Path:
    if (path := pictures.get(name)) is not None:
        return path
    close = [stem for stem in pictures if stem.lower() == name.lower() or Path(stem).name == Path(name).name]
    if len(close) == 1 and close[0].lower() != name.lower():
        return pictures[close[0]]  # in another folder below
    hint = f" ({pictures[close[0]].name} there differs in upper and lower case.)" if close else ""
    raise DistilError(
        f"the image {name} of {part.xml / name}.xml is missing: put it into {part.images.name}, or remove the xml and "
        f"its line in the list.{hint}"
    )


def _listed_classes(folder: Path) -> tuple[str, ...] | None:
    for file in (folder / "classes.txt", folder / "labels.txt"):
        if file.is_file():
            names = [line.strip() for line in read_lines(file) if line.strip()]
            if len(set(names)) < len(names) or not names:
                raise DistilError(f"{file} must name each class once, one a line.")
            return check_names(names, file)
    return None


def _parse(path: Path, findings: Findings) -> tuple[tuple[int, int] | None, list[_Object]]:
    """((height, width) or None, objects)."""
    tree = _tree(path)
    size = None
    if tree.find("size") is not None:
        width, height = (_number(tree, f"size/{side}", path) for side in ("width", "height"))
        size = (int(height), int(width)) if 1 <= width < math.inf and 1 <= height < math.inf else None
    objects = []
    for entry in tree.findall("object"):
        name = class_name(entry.findtext("name") or "")
        if not name:
            raise DistilError(f"{path}: an object has no name: give it its class.")
        left, top, right, bottom = (_number(entry, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = _difficult(entry.findtext("difficult"), name, path, findings)
        objects.append(_Object(name, (left - 1, top - 1, right, bottom), difficult))
    return size, objects


def _tree(path: Path) -> ElementTree.Element:
    """The root of an xml, an <annotation>."""
    try:
        content = path.read_bytes()
        if b"<!ENTITY" in content.replace(b"\0", b"").upper():
            raise DistilError(f"{path} declares entities, which annotations do not need and distil does not read.")
        tree = ElementTree.fromstring(content)
    except FileNotFoundError:
        raise DistilError(
            f"the annotations {path} are missing: put them there, or take the image out of the list."
        ) from None
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise DistilError(f"cannot read {path}: {error}. Copy or write it again.") from error
    if tree.tag != "annotation":
        raise DistilError(
            f"{path} is an xml <{tree.tag[:40]}>, not VOC's <annotation>: put the annotations of the image there."
        )
    return tree


def _difficult(text: str | None, name: str, path: Path, findings: Findings) -> bool:
    try:
        value = flag(text)
    except ValueError:
        raise DistilError(f"{path}: difficult of a {name} must be 0 or 1, not {(text or '').strip()[:40]!r}.") from None
    if value is None:
        findings.tally(f"object{{s}} with difficult {(text or '').strip()!r}", path.name, "taken as not difficult")
    return bool(value)


def _number(entry: ElementTree.Element, where: str, path: Path) -> float:
    text = entry.findtext(where)
    try:
        return number(text or "")
    except ValueError:
        raise DistilError(f"{path}: {where} of <{entry.tag}> must be a number, not {text!r}.") from None
