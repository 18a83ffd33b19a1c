"""COCO's object-detection json."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distil.errors import DistilError
from distil.sources.detection import DetectionSet, DetectionSource
from distil.sources.detection_files import ObjectTable, detection_set, image_sizes, joined_notes

OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")
"""How the names of COCO's files for other tasks begin."""

SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

LAYOUT = (
    "Expected FOLDER/instances_train.json (and instances_val.json, instances_test.json) or "
    "FOLDER/annotations/instances_*.json, or FOLDER/train/*.json, with the images in FOLDER/images, FOLDER/train2017 "
    "or beside the json."
)


def open_coco(images: Path, annotations: Path, *, name: str | None = None, fix_boxes: bool = False) -> DetectionSet:
    """Images in a folder with the boxes of one COCO json.

    images: the folder that each image's `file_name` starts from.
    annotations: a json with images (id, file_name; width and height, read from the picture where they are missing),
        annotations (id, image_id, category_id, bbox as x, y, width, height in pixels; area, iscrowd and ignore may be
        missing) and categories (id, name). Classes are the categories in the order of their ids. Images without
        objects are kept. Crowds are `ignored`.
    name: for messages; the json's file name if None.
    fix_boxes: clip boxes that reach outside their image, and drop those without area.

    Raises: DistilError if the json cannot be read or lacks one of its lists, an id is double or unknown, an image is
        missing, or a box is not four numbers, without area or outside its image.

    Source: Lin et al., "Microsoft COCO: Common Objects in Context" (2014); the format as published with the data.
    """
    annotations = Path(annotations).expanduser()
    content = _read(annotations)
    return _built(Path(images).expanduser(), annotations, content, name or annotations.name, fix_boxes)


def _built(
    images: Path, annotations: Path, content: dict[str, list[dict[str, Any]]], name: str, fix_boxes: bool
) -> DetectionSet:
    classes, label_of = _classes(content["categories"], annotations)
    entries = content["images"]
    place_of = _unique_ids(entries, "image", annotations)
    files = [_text(entry, "file_name", annotations) for entry in entries]
    paths = [images / file for file in files]
    _check_present(paths, annotations)
    sizes = _sizes(entries, paths, annotations)
    objects = _objects(content["annotations"], place_of, label_of, annotations)
    return detection_set(name, classes, paths, files, sizes, objects, fix_boxes=fix_boxes)


def coco_source(path: Path, *, fix_boxes: bool = False) -> DetectionSource:
    """The splits of a folder of COCO data, or one json as the training split.

    The split of a json is the word train, val, valid or test in its name, or in its folder's. A folder with one json is
    one training split. Files of COCO's other tasks are passed over.

    Raises: DistilError as `open_coco`, and if there is no json, two are for one split, the images are not found, or two
        splits have different classes.
    """
    if path.is_file():
        files, root = [path], path.parent.parent if path.parent.name == "annotations" else path.parent
    else:
        files, root = _json_files(path), path
    splits: dict[str, Path] = {}
    note = ""
    if len(files) == 1:
        splits["train"] = files[0]
        if _split_word(files[0]) not in ("train", None):
            note = f"the only annotations, {files[0].name}, are taken as the training split"
    else:
        for file in files:
            word = _split_word(file)
            if word is None:
                continue
            if word in splits:
                raise DistilError(
                    f"{path} has two files for the {word} split, {splits[word]} and {file}: keep one of them there, "
                    "or name one file as coco:FILE.json."
                )
            splits[word] = file
        if "train" not in splits:
            raise DistilError(
                f"{path} has no json for training among {', '.join(file.name for file in files)}. {LAYOUT}"
            )
    folder = root.resolve().name
    opened = {}
    for word in sorted(splits, key=("train", "val", "test").index):
        file = splits[word]
        content = _read(file)
        images = _image_folder(root, file, content["images"])
        opened[word] = _built(images, file, content, f"{folder} {file.stem}", fix_boxes)
    train = opened["train"]
    for word, other in opened.items():
        if other.classes != train.classes:
            own, theirs = (
                sorted(set(a) - set(b)) for a, b in ((train.classes, other.classes), (other.classes, train.classes))
            )
            raise DistilError(
                f"{splits['train']} and {splits[word]} have different categories: "
                f"{', '.join(map(repr, own)) or 'nothing'} only in the first, "
                f"{', '.join(map(repr, theirs)) or 'nothing'} only in the second"
                f"{'' if own or theirs else ', but in another order of ids'}. Give both the same list."
            )
    note = joined_notes(note, *(split.note for split in opened.values()))
    return DetectionSource(train, opened.get("val"), opened.get("test"), "coco", note)


def _json_files(folder: Path) -> list[Path]:
    found = sorted({*folder.glob("*.json"), *folder.glob("annotations/*.json")})
    found = [file for file in found if not file.name.startswith((*OTHER_TASKS, "."))]
    named = [file for file in found if file.name.startswith("instances")]
    if not found:
        found = sorted({file for word in SPLIT_WORDS for file in folder.glob(f"{word}*/*.json")})
        found = [file for file in found if not file.name.startswith((*OTHER_TASKS, "."))]
    if not found:
        raise DistilError(f"{folder} holds no COCO json. {LAYOUT}")
    return named or found


def _split_word(file: Path) -> str | None:
    for text in (file.stem, file.parent.name):
        words = re.findall(r"[a-z]+", text.lower())
        if split := next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None):
            return split
    return None


def _image_folder(root: Path, annotations: Path, entries: Sequence[Mapping[str, Any]]) -> Path:
    """The first folder that holds the first image of a json."""
    if not entries:
        return root
    file = _text(entries[0], "file_name", annotations)
    split = annotations.stem.removeprefix("instances").strip("_-")
    inside = [f"images/{split}", split, "images", "JPEGImages", "."] if split else ["images", "JPEGImages", "."]
    if word := _split_word(annotations):
        inside[1:1] = [f"images/{word}", word]
    folders = [annotations.parent, *(root / name for name in inside)]
    found = next((folder for folder in folders if (folder / file).is_file()), None)
    if found is None:
        looked = ", ".join(dict.fromkeys(str(folder) for folder in folders))
        raise DistilError(f"the image {file} of {annotations} is in none of {looked}. {LAYOUT}")
    return found


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DistilError(f"no file at {path}: give a COCO json.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DistilError(f"cannot read {path}: {error}. Copy or write it again.") from error
    if not isinstance(content, dict):
        raise DistilError(
            f"{path} is a json {type(content).__name__}, not COCO's object with images, annotations and categories."
        )
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise DistilError(
                f"{path} has no {key!r}: found {', '.join(map(repr, content)) or 'nothing'}. A detection json has "
                "'images', 'annotations' and 'categories'; COCO's image_info files have no boxes."
            )
        if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
            raise DistilError(f"{path}: {key!r} must be a list of objects.")
    return content


def _text(entry: Mapping[str, Any], key: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise DistilError(f"{path}: {key!r} of {_short(entry)} must be a text, not {value!r}.")
    return value


def _unique_ids(entries: Sequence[Mapping[str, Any]], what: str, path: Path) -> dict[Any, int]:
    """Place of each id in its list."""
    ids = [entry.get("id") for entry in entries]
    for value, entry in zip(ids, entries, strict=True):
        if not isinstance(value, int | str) or isinstance(value, bool):
            raise DistilError(f"{path}: the {what} {_short(entry)} must have an id, a whole number, not {value!r}.")
    repeated = next((value for value, count in Counter(ids).items() if count > 1), None)
    if repeated is not None:
        first, second = [entry for entry in entries if entry["id"] == repeated][:2]
        raise DistilError(
            f"{path}: the {what} id {repeated!r} is given twice, by {_short(first)} and {_short(second)}: "
            "ids must differ."
        )
    return {value: place for place, value in enumerate(ids)}


def _classes(categories: Sequence[Mapping[str, Any]], path: Path) -> tuple[list[str], dict[Any, int]]:
    """(class names by ascending id, label of each category id)."""
    ids = _unique_ids(categories, "category", path)
    if not ids:
        raise DistilError(f"{path}: 'categories' is empty: name at least one class.")
    if len({type(value) for value in ids}) > 1:
        raise DistilError(f"{path}: category ids must be all whole numbers or all texts.")
    ordered = sorted(ids)
    names = [_text(categories[ids[value]], "name", path) for value in ordered]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DistilError(f"{path}: category name {repeated[0]!r} is given twice: names must differ.")
    return names, {value: label for label, value in enumerate(ordered, start=1)}


def _check_present(paths: Sequence[Path], annotations: Path) -> None:
    present: dict[Path, set[str]] = {}
    for path in paths:
        if path.parent not in present:
            folder = path.parent
            present[folder] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        if path.name not in present[path.parent]:
            raise DistilError(
                f"the image {path} of {annotations} is missing: put it there, or take it out of the json."
            )


def _sizes(entries: Sequence[Mapping[str, Any]], paths: Sequence[Path], annotations: Path) -> list[tuple[int, int]]:
    unknown = [place for place, entry in enumerate(entries) if "width" not in entry or "height" not in entry]
    read = dict(zip(unknown, image_sizes([paths[place] for place in unknown]), strict=True))
    sizes = []
    for place, entry in enumerate(entries):
        size = read[place] if place in read else (entry["height"], entry["width"])
        if not all(isinstance(side, int | float) and 1 <= side < math.inf and side == int(side) for side in size):
            raise DistilError(
                f"{annotations}: width and height of {_short(entry)} must be whole numbers of pixels, 1 or more."
            )
        sizes.append((int(size[0]), int(size[1])))
    return sizes


def _objects(
    entries: Sequence[Mapping[str, Any]], place_of: Mapping[Any, int], label_of: Mapping[Any, int], path: Path
) -> ObjectTable:
    _unique_ids(entries, "annotation", path)
    count = len(entries)
    images, labels = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    boxes, areas = np.empty((count, 4)), np.full(count, np.nan)
    ignored = np.zeros(count, dtype=bool)
    for row, entry in enumerate(entries):
        place, label = _known(place_of, entry.get("image_id")), _known(label_of, entry.get("category_id"))
        if place is None:
            raise DistilError(
                f"{path}: annotation {entry['id']} is on image_id {entry.get('image_id')!r}, which no image has: "
                "add the image or remove the annotation."
            )
        if label is None:
            raise DistilError(
                f"{path}: annotation {entry['id']} has category_id {entry.get('category_id')!r}, which no category "
                "has: add the category or mend the annotation."
            )
        images[row], labels[row] = place, label
        box = entry.get("bbox")
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(x, int | float) for x in box)):
            raise DistilError(
                f"{path}: the bbox of annotation {entry['id']} must be four numbers (x, y, width, height), not {box!r}."
            )
        boxes[row] = box
        area = entry.get("area")
        areas[row] = area if isinstance(area, int | float) else np.nan
        ignored[row] = bool(entry.get("iscrowd", 0)) or bool(entry.get("ignore", 0))
    boxes[:, 2:] += boxes[:, :2]
    return ObjectTable(images, boxes, labels, ignored, areas, lambda row: f"annotation {entries[row]['id']}")


def _known(table: Mapping[Any, int], key: Any) -> int | None:
    return table.get(key) if isinstance(key, int | str) else None


def _short(entry: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in entry.items() if key != "segmentation"})
    return text if len(text) <= 120 else f"{text[:117]}..."
