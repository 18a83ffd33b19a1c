"""COCO's object-detection json."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distil.data.detection.checks import FURTHEST, ObjectTable
from distil.data.detection.detection_set import DetectionSet, DetectionSource
from distil.data.detection.files import detection_set, source_of
from distil.data.detection.inventory import Findings, named, numbered
from distil.data.detection.splits import SPLITS, Split, folder_named, folders_in, split_in, split_of
from distil.data.detection.values import (
    PresentFiles,
    check_file_name,
    class_name,
    coordinate,
    flag,
)
from distil.errors import DistilError

OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")
"""How the names of COCO's files for other tasks begin."""

LAYOUT = (
    "Expected FOLDER/instances_train.json (and instances_val.json, instances_test.json) or "
    "FOLDER/annotations/instances_*.json, or FOLDER/train/*.json, with the images in FOLDER/images, FOLDER/train2017 "
    "or beside the json."
)

ONLY = "the only annotations, {}, are taken as the training split"

Content = dict[str, list[dict[str, Any]]]


def open_coco(images: Path, annotations: Path, *, name: str | None = None, fix_boxes: bool = False) -> DetectionSet:
    """Images in a folder with the boxes of one COCO json.

    images: the folder that each image's `file_name` starts from.
    annotations: a json with images (id, file_name; width and height, read from the picture where they are missing),
        annotations (id, image_id, category_id, bbox as x, y, width, height in pixels; area, iscrowd and ignore may be
        missing) and categories (id, name). Classes are the categories in the order of their ids. Images without
        objects are kept. Crowds are `ignored`.
    name: for messages; the json's file name if None.
    fix_boxes: clip boxes that reach outside their image, and drop those without area.

    Pictures are read as they are stored; one with an EXIF rotation tag is turned where that alone gives it the width
    and height of the json. Annotations that repeat another's image, category and bbox are dropped.

    Raises: DistilError if the json cannot be read or lacks one of its lists, an id is double or unknown, an image is
        missing, lies outside the folder or has another size, all objects are ignored, or a box is not four numbers,
        without area or outside its image.

    Source: Lin et al., "Microsoft COCO: Common Objects in Context" (2014); the format as published with the data.
    """
    annotations = Path(annotations).expanduser()
    content = _read(annotations)
    return _built(Path(images).expanduser(), annotations, content, name or annotations.name, fix_boxes, Findings())


def _built(
    images: Path, annotations: Path, content: Content, name: str, fix_boxes: bool, findings: Findings
) -> DetectionSet:
    classes, label_of = _classes(content["categories"], annotations)
    entries = content["images"]
    place_of = _unique_ids(entries, "image", annotations)
    files = [_text(entry, "file_name", annotations) for entry in entries]
    paths = _paths(images, files, annotations, findings)
    annotated = _sizes(entries, annotations)
    objects = _objects(content["annotations"], place_of, label_of, annotations, findings)
    return detection_set(
        name, classes, paths, files, annotated, objects, fix_boxes=fix_boxes, findings=findings, sides=True
    )


def coco_source(path: Path, *, fix_boxes: bool = False) -> DetectionSource:
    """The splits of a folder of COCO data, or one json as the training split.

    The split of a json is the first word in its name, or in its folder's, that names one: train, training, val, valid,
    validation, dev, eval, test, testing, in any case. A folder with one json is one training split. Files of COCO's
    other tasks are passed over. A test json without annotations is no test split.

    Raises: DistilError as `open_coco`, and if there is no json, two are for one split, the images are not found, or two
        splits have different classes.
    """
    findings = Findings()
    if path.is_file():
        root = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
        files: dict[Split, Path] = {"train": path}
        if split_in(path.stem) not in ("train", None):
            findings.note(ONLY.format(path.name))
    else:
        root = path
        files = _split_files(root, findings)
    used = list(files.values())
    folder = root.resolve().name
    opened: dict[Split, tuple[DetectionSet, str]] = {}
    looked: list[Path] = []
    note = findings.notes[-1] if findings.notes else ""
    for split in SPLITS:
        if split not in files:
            continue
        file = files[split]
        content = _read(file, may_be_unlabeled=split == "test")
        if split == "test" and not content["annotations"]:
            told = f"{file.relative_to(root)} with {numbered(len(content['images']), 'image')}"
            findings.leave_out("test splits", [told], "no annotations")
            used += _found_pictures(root, file, content["images"])
            continue
        images = _image_folder(root, file, content["images"], None if path.is_file() else split)
        data = _built(images, file, content, f"{folder} {file.stem}", fix_boxes, findings)
        opened[split] = data, str(file.relative_to(root))
        looked.append(images)
    _check_categories({split: data for split, (data, _) in opened.items()}, files)
    under = looked[0] if path.is_file() else root
    return source_of("coco", "COCO json", folder, under, opened, used, findings, "no json names them", note)


def _check_categories(opened: Mapping[Split, DetectionSet], files: Mapping[Split, Path]) -> None:
    train = opened["train"]
    for split, other in opened.items():
        if other.classes == train.classes:
            continue
        first, second = (
            sorted(set(a) - set(b)) for a, b in ((train.classes, other.classes), (other.classes, train.classes))
        )
        raise DistilError(
            f"{files['train']} and {files[split]} have different categories: "
            f"{', '.join(map(repr, first)) or 'nothing'} only in the first, "
            f"{', '.join(map(repr, second)) or 'nothing'} only in the second"
            f"{'' if first or second else ', but in another order of ids'}. Give both the same list."
        )


def _split_files(root: Path, findings: Findings) -> dict[Split, Path]:
    """The json of each split in a folder."""
    every = _json_files(root)
    others = [file for file in every if file.name.lower().startswith(OTHER_TASKS)]
    files = [file for file in every if file not in others]
    names = [str(file.relative_to(root)) for file in others]
    if not files:
        hint = f"It holds {named(names)} of other tasks: name one as coco:FILE.json to read its boxes. "
        raise DistilError(f"{root} holds no COCO json. {hint if others else ''}{LAYOUT}")
    findings.leave_out("json files", names, "named as those of COCO's other tasks")
    if len(files) == 1:
        if _split_word(files[0], root) not in ("train", None):
            findings.note(ONLY.format(files[0].name))
        return {"train": files[0]}
    candidates: dict[Split, list[Path]] = {split: [] for split in SPLITS}
    wordless = []
    for file in files:
        word = _split_word(file, root)
        (wordless if word is None else candidates[word]).append(file)
    splits: dict[Split, Path] = {}
    for split, those in candidates.items():
        instances = [file for file in those if file.name.lower().startswith("instances")]
        chosen = instances or those
        if len(chosen) > 1:
            raise DistilError(
                f"{root} has two files for the {split} split, {chosen[0]} and {chosen[1]}: keep one of them there, "
                "or name one file as coco:FILE.json."
            )
        if chosen:
            splits[split] = chosen[0]
        passed = [str(file.relative_to(root)) for file in those if file not in chosen]
        findings.leave_out("json files", passed, f"an instances_*.json is there for the {split} split")
    if "train" not in splits:
        raise DistilError(f"{root} has no json for training among {', '.join(file.name for file in files)}. {LAYOUT}")
    names = [str(file.relative_to(root)) for file in wordless]
    findings.leave_out("json files", names, "no word such as train, val or test in the name")
    return splits


def _json_files(root: Path) -> list[Path]:
    """Every json in the folder, in annotations/, and in folders for splits, those in annotations/ there included."""
    parts = [folder for folder in folders_in(root) if split_of(folder.name)]
    folders = [root, *parts]
    folders += [found for each in (root, *parts) if (found := folder_named(each, "annotations"))]
    found = [file for folder in folders for file in folder.iterdir()]
    return sorted(file for file in found if file.suffix.lower() == ".json" and file.name[0] != "." and file.is_file())


def _split_word(file: Path, root: Path) -> Split | None:
    parents = reversed(file.relative_to(root).parts[:-1])
    return next((word for name in (file.stem, *parents) if (word := split_in(name))), None)


def _image_folder(root: Path, annotations: Path, entries: Sequence[Mapping[str, Any]], split: Split | None) -> Path:
    """The first folder that holds the first image of a json."""
    if not entries:
        return root
    file = _text(entries[0], "file_name", annotations)
    check_file_name(root, file, annotations)
    stem = annotations.stem.removeprefix("instances").strip("_-")
    split = split or split_in(annotations.stem)
    pictures = folder_named(root, "images", "imgs")
    folders = [annotations.parent]
    folders += [each / stem for each in (pictures, root) if each and stem]
    for each in (pictures, root):
        if each and split:
            folders += [
                inner for folder in folders_in(each) if split_of(folder.name) == split for inner in _inner(folder)
            ]
    folders += [each for each in (pictures, folder_named(root, "JPEGImages")) if each]
    folders += [root]
    present = PresentFiles(Findings())
    for folder in folders:
        if present.find(folder / file.replace("\\", "/")) is not None:
            return folder
    looked = ", ".join(dict.fromkeys(map(str, [*folders, root / "images"])))
    raise DistilError(f"the image {file} of {annotations} is in none of {looked}. {LAYOUT}")


def _found_pictures(root: Path, annotations: Path, entries: Sequence[Mapping[str, Any]]) -> list[Path]:
    """The pictures of a split that is not used, as far as they are there."""
    try:
        folder = _image_folder(root, annotations, entries, "test")
    except DistilError:
        return []
    names = [entry.get("file_name") for entry in entries]
    paths = [folder / name for name in names if isinstance(name, str)]
    return [path for path in paths if path.is_file()]


def _inner(folder: Path) -> list[Path]:
    return [folder, *filter(None, [folder_named(folder, "images", "data")])]


def _read(path: Path, *, may_be_unlabeled: bool = False) -> Content:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DistilError(f"no file at {path}: give a COCO json.") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = "a number has thousands of digits" if "integer string" in str(error) else error
        raise DistilError(f"cannot read {path}: {reason}. Copy or write it again.") from error
    if not isinstance(content, dict):
        raise DistilError(
            f"{path} is a json {type(content).__name__}, not COCO's object with images, annotations and categories."
        )
    if may_be_unlabeled:
        content = {"annotations": [], "categories": []} | content
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise DistilError(
                f"{path} has no {key!r}: found {named([repr(key) for key in content]) or 'nothing'}. A detection json "
                "has 'images', 'annotations' and 'categories'; COCO's image_info files have no boxes."
            )
        if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
            raise DistilError(f"{path}: {key!r} must be a list of objects.")
    return content


def _text(entry: Mapping[str, Any], key: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise DistilError(f"{path}: {key!r} of {_short(entry)} must be a text, not {_shown(value)}.")
    return value


def _unique_ids(entries: Sequence[Mapping[str, Any]], what: str, path: Path) -> dict[Any, int]:
    """Place of each id in its list."""
    ids = [entry.get("id") for entry in entries]
    for value, entry in zip(ids, entries, strict=True):
        whole = isinstance(value, int | str) or (isinstance(value, float) and value.is_integer())
        if not whole or isinstance(value, bool):
            raise DistilError(
                f"{path}: the {what} {_short(entry)} must have an id, a whole number, not {_shown(value)}."
            )
    repeated = next((value for value, count in Counter(ids).items() if count > 1), None)
    if repeated is not None:
        first, second = [entry for entry in entries if entry["id"] == repeated][:2]
        raise DistilError(
            f"{path}: the {what} id {_shown(repeated)} is given twice, by {_short(first)} and {_short(second)}: "
            "ids must differ."
        )
    return {value: place for place, value in enumerate(ids)}


def _classes(categories: Sequence[Mapping[str, Any]], path: Path) -> tuple[list[str], dict[Any, int]]:
    """(class names by ascending id, label of each category id)."""
    ids = _unique_ids(categories, "category", path)
    if not ids:
        raise DistilError(f"{path}: 'categories' is empty: name at least one class.")
    if len({isinstance(value, str) for value in ids}) > 1:
        raise DistilError(f"{path}: category ids must be all whole numbers or all texts.")
    digits = all(isinstance(value, str) and value.isascii() and value.isdigit() for value in ids)
    ordered = sorted(ids, key=int) if digits else sorted(ids)
    names = [class_name(_text(categories[ids[value]], "name", path)) for value in ordered]
    if "" in names:
        empty = ordered[names.index("")]
        raise DistilError(f"{path}: the name of category {_shown(empty)} is empty: give it one.")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DistilError(f"{path}: category name {repeated[0]!r} is given twice: names must differ.")
    return names, {value: label for label, value in enumerate(ordered, start=1)}


def _paths(images: Path, files: Sequence[str], annotations: Path, findings: Findings) -> list[Path]:
    present = PresentFiles(findings)
    paths = []
    for file in files:
        check_file_name(images, file, annotations)
        path = present.find(images / file)
        if path is None and "\\" in file:
            path = present.find(images / file.replace("\\", "/"))
        if path is None:
            raise DistilError(
                f"the image {images / file} of {annotations} is missing: put it there, or take it out of the json."
            )
        paths.append(path)
    return paths


def _sizes(entries: Sequence[Mapping[str, Any]], annotations: Path) -> list[tuple[int, int] | None]:
    """Height and width of each image in the json; None where one is missing."""
    sizes: list[tuple[int, int] | None] = []
    for entry in entries:
        sides = entry.get("height"), entry.get("width")
        if None in sides:
            sizes.append(None)
            continue
        values = [coordinate(side) for side in sides]
        if not all(value is not None and 1 <= value < math.inf and value == int(value) for value in values):
            raise DistilError(
                f"{annotations}: width and height of {_short(entry)} must be whole numbers of pixels, 1 or more."
            )
        sizes.append((int(values[0] or 0), int(values[1] or 0)))
    return sizes


def _objects(
    entries: Sequence[Mapping[str, Any]],
    place_of: Mapping[Any, int],
    label_of: Mapping[Any, int],
    path: Path,
    findings: Findings,
) -> ObjectTable:
    _unique_ids(entries, "annotation", path)
    count = len(entries)
    images, labels = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    boxes, areas = np.empty((count, 4)), np.full(count, np.nan)
    ignored = np.zeros(count, dtype=bool)
    places, classes = _Ids(place_of), _Ids(label_of)
    for row, entry in enumerate(entries):
        place, label = places.find(entry.get("image_id")), classes.find(entry.get("category_id"))
        if place is None:
            raise DistilError(
                f"{path}: annotation {_shown(entry['id'])} is on image_id {_shown(entry.get('image_id'))}, which no "
                "image has: add the image or remove the annotation."
            )
        if label is None:
            raise DistilError(
                f"{path}: annotation {_shown(entry['id'])} has category_id {_shown(entry.get('category_id'))}, which "
                "no category has: add the category or mend the annotation."
            )
        images[row], labels[row] = place, label
        boxes[row] = _box(entry, path)
        area = coordinate(entry.get("area"))
        if area is not None and 0 <= area <= FURTHEST**2:
            areas[row] = area
        elif entry.get("area") is not None:
            findings.tally(
                "area{s} that cannot be", f"annotation {_shown(entry['id'])}", "the area of the box is taken"
            )
        flags = [_flag(entry, key, path, findings) for key in ("iscrowd", "ignore") if key in entry]
        ignored[row] = any(flags)
    with np.errstate(all="ignore"):  # numbers beyond sense are found with all boxes
        boxes[:, 2:] += boxes[:, :2]
    if respelt := places.respelt + classes.respelt:
        findings.note(f"{path.name}: {numbered(respelt, 'id')} in annotations written as text, matched as the number")
    return ObjectTable(images, boxes, labels, ignored, areas, lambda row: f"annotation {_shown(entries[row]['id'])}")


def _box(entry: Mapping[str, Any], path: Path) -> list[float]:
    """x, y, width, height."""
    given = entry.get("bbox")
    values = [coordinate(value) for value in given] if isinstance(given, list) and len(given) == 4 else [None]
    numbers = [value for value in values if value is not None]
    if len(numbers) == 4:
        return numbers
    hint = ""
    if given in (None, []) and entry.get("segmentation"):
        hint = " It has a segmentation: the bounding box of that is what bbox should be."
    raise DistilError(
        f"{path}: the bbox of annotation {_shown(entry['id'])} must be four numbers (x, y, width, height), not "
        f"{_shown(given)}.{hint}"
    )


def _flag(entry: Mapping[str, Any], key: str, path: Path, findings: Findings) -> bool:
    try:
        value = flag(entry[key])
    except ValueError:
        raise DistilError(
            f"{path}: {key} of annotation {_shown(entry['id'])} must be 0 or 1, not {_shown(entry[key])}."
        ) from None
    if value is None:
        name = f"{_shown(entry['id'])} of {path.name}"
        findings.tally(f"annotation{{s}} with {key} {entry[key].strip()!r}", name, "read as 0")
    return bool(value)


class _Ids:
    """A table of ids in which a number is found by its text too, and a text by its number, where one alone fits."""

    def __init__(self, table: Mapping[Any, int]) -> None:
        self._table = table
        self._plain: dict[str, int | None] = {}
        for key, value in table.items():
            text = _plain(key)
            self._plain[text] = None if text in self._plain else value
        self.respelt = 0

    def find(self, key: Any) -> int | None:
        if isinstance(key, bool) or not isinstance(key, int | float | str):
            return None
        if (found := self._table.get(key)) is not None:
            return found
        found = self._plain.get(_plain(key))
        self.respelt += found is not None
        return found


def _plain(key: float | str) -> str:
    if isinstance(key, str):
        text = key.strip()
        return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text
    return str(int(key)) if isinstance(key, int) or key.is_integer() else str(key)


def _shown(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _short(entry: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in entry.items() if key != "segmentation"})
    return text if len(text) <= 120 else f"{text[:117]}..."
