"""YOLO's text files: one a picture, one line an object."""

import re
from collections.abc import Sequence
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

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}

LAYOUT = (
    "Expected ROOT/images/train and ROOT/labels/train (likewise val, test), or ROOT/train/images and "
    "ROOT/train/labels, or ROOT/images and ROOT/labels."
)


def open_yolo(
    root: Path, split: str | None = None, *, classes: Sequence[str] | None = None, fix_boxes: bool = False
) -> DetectionSet:
    """Images and boxes in YOLO's layout.

    root: a folder with images/ and labels/, which hold folders named for splits or the files themselves, or with
        folders named for splits that hold images/ and labels/.
    split: train, val (or valid) or test; None where the files are not split.
    classes: names; None for `names` in ROOT/data.yaml (or any one .yaml there), else the lines of ROOT/classes.txt
        (or labels/classes.txt, or obj.names).
    fix_boxes: clip boxes that reach outside their image, and drop those without area.

    The label of images/A.jpg is labels/A.txt; without it the image has no objects. A line is `class cx cy w h`, the
    class counted from 0, the box's centre and sides as shares of the image, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon
    whose bounding box is taken. Pictures are turned as their EXIF tag says, as YOLO's own readers do.

    Raises: DistilError if the layout, the class names or an image is missing, a file cannot be read, a line is neither,
        a class is unknown, or a box is without area or outside its image.
    """
    root = Path(root).expanduser()
    image_folder, label_folder = _folders(root, split)
    names = tuple(classes) if classes is not None else class_names(root)
    pictures = image_files(image_folder)
    if not pictures:
        raise DistilError(f"{image_folder} has no images. {LAYOUT}")
    labels = {path.relative_to(label_folder).with_suffix("").as_posix(): path for path in label_folder.rglob("*.txt")}
    labels.pop("classes", None)
    orphan = next((path for stem, path in sorted(labels.items()) if stem not in pictures), None)
    if orphan is not None:
        raise DistilError(f"{orphan} has no image in {image_folder}: put the image there, or remove the label file.")
    paths = list(pictures.values())
    sizes = image_sizes(paths, oriented=True)
    rows: list[tuple[int, Path, int, int, list[float]]] = []
    for place, stem in enumerate(pictures):
        if stem in labels:
            rows += [(place, labels[stem], *row) for row in _read_labels(labels[stem], names)]
    images = np.array([row[0] for row in rows], dtype=np.int64)
    scale = np.array(sizes, dtype=np.float64)[images][:, [1, 0, 1, 0]] if rows else np.zeros((0, 4))
    objects = ObjectTable(
        images=images,
        boxes=np.array([row[4] for row in rows], dtype=np.float64).reshape(-1, 4) * scale,
        labels=np.array([row[3] + 1 for row in rows], dtype=np.int64),
        ignored=np.zeros(len(rows), dtype=bool),
        areas=np.full(len(rows), np.nan),
        describe=lambda row: f"line {rows[row][2]} of {rows[row][1].name}",
    )
    identifiers = [path.relative_to(image_folder).as_posix() for path in paths]
    name = f"{root.resolve().name} {split}" if split else root.resolve().name
    return detection_set(name, names, paths, identifiers, sizes, objects, fix_boxes=fix_boxes, oriented=True)


def yolo_source(root: Path, *, fix_boxes: bool = False) -> DetectionSource:
    """The splits of a folder in YOLO's layout; without folders for splits all images are the training split.

    Raises: DistilError as `open_yolo`, and if there are splits, but none for training.
    """
    words = [word for word in SPLIT_FOLDERS if _split_pair(root, word) is not None]
    if not words:
        train = open_yolo(root, fix_boxes=fix_boxes)
        return DetectionSource(train, None, None, "yolo", train.note)
    if "train" not in words:
        raise DistilError(f"{root} has no train split, only {', '.join(words)}. {LAYOUT}")
    names = class_names(root)
    splits = {word: open_yolo(root, word, classes=names, fix_boxes=fix_boxes) for word in words}
    note = joined_notes(*(split.note for split in splits.values()))
    return DetectionSource(splits["train"], splits.get("val"), splits.get("test"), "yolo", note)


def _split_pair(root: Path, split: str) -> tuple[Path, Path] | None:
    for word in SPLIT_FOLDERS.get("val" if split == "valid" else split, (split,)):
        for images, labels in ((f"images/{word}", f"labels/{word}"), (f"{word}/images", f"{word}/labels")):
            if (root / images).is_dir():
                return root / images, root / labels
    return None


def _folders(root: Path, split: str | None) -> tuple[Path, Path]:
    pair = _split_pair(root, split) if split else (root / "images", root / "labels")
    if pair is None or not pair[0].is_dir():
        raise DistilError(f"{root} has no images{f' of the split {split!r}' if split else ''}. {LAYOUT}")
    if not pair[1].is_dir():
        raise DistilError(f"{pair[0]} has images, but there is no {pair[1]}. {LAYOUT}")
    return pair


def class_names(root: Path) -> tuple[str, ...]:
    """Class names of a folder in YOLO's layout.

    Raises: DistilError if there are none, they cannot be read, or one is given twice.
    """
    listed = next((f for f in (root / "data.yaml", root / "data.yml") if f.is_file()), None)
    others = sorted({*root.glob("*.yaml"), *root.glob("*.yml")})
    listed = listed or (others[0] if len(others) == 1 else None)
    plain = next((f for n in ("classes.txt", "labels/classes.txt", "obj.names") if (f := root / n).is_file()), None)
    file = listed or plain
    if file is None:
        raise DistilError(
            f"{root} does not name its classes: add classes.txt, one name a line, or data.yaml with names."
        )
    names = yaml_names(file) if listed else [line.strip() for line in read_lines(file) if line.strip()]
    if not names:
        raise DistilError(f"{file} names no class: give one at least.")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DistilError(f"{file}: class name {repeated!r} is given twice: names must differ.")
    return tuple(names)


def yaml_names(file: Path) -> list[str]:
    """The key `names` of a data.yaml: a list in brackets, lines that begin with a dash, or lines `0: name`.

    Raises: DistilError if there is no such key, or it is written otherwise.
    """
    lines = [line for line in map(_without_comment, read_lines(file)) if line.strip()]
    start = next((place for place, line in enumerate(lines) if re.match(r"names\s*:", line)), None)
    expected = "expected names: [cat, dog], or names: and below it one line '- cat' or '0: cat' for each class"
    if start is None:
        raise DistilError(f"{file} has no 'names': {expected}.")
    below = []
    for line in lines[start + 1 :]:
        if not line.startswith((" ", "\t", "-", "]", "}")):
            break
        below.append(line.strip())
    inline = " ".join([lines[start].partition(":")[2].strip(), *below]).strip()
    if (inline[:1], inline[-1:]) in (("[", "]"), ("{", "}")):
        items = [item.strip() for item in re.findall(r"""(?:"[^"]*"|'[^']*'|[^,])+""", inline[1:-1]) if item.strip()]
        numbered = inline[0] == "{"
    elif below and all(line.startswith("-") for line in below):
        items, numbered = [line[1:].strip() for line in below], False
    else:
        items, numbered = below, True
    if numbered:
        pairs = [re.fullmatch(r"""["']?(\d+)["']?\s*:\s*(.+)""", item) for item in items]
        if not pairs or None in pairs:
            raise DistilError(f"{file}: cannot read 'names': {expected}.")
        by_number = {int(pair[1]): pair[2] for pair in pairs if pair}
        if sorted(by_number) != list(range(len(items))):
            raise DistilError(f"{file}: the numbers of 'names' must run from 0 to {len(items) - 1}, each once.")
        items = [by_number[number] for number in range(len(items))]
    return [item[1:-1] if item[:1] in "\"'" and item[-1:] == item[:1] else item for item in items]


def _without_comment(line: str) -> str:
    """The line up to a # that begins it or follows a space, unless it stands in quotes."""
    quote = ""
    for place, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and (place == 0 or line[place - 1] in " \t[{,:-"):
            quote = sign
        elif sign == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place].rstrip()
    return line.rstrip()


def _read_labels(path: Path, names: Sequence[str]) -> list[tuple[int, int, list[float]]]:
    """(line, class from 0, box as shares of the image, xyxy) of every object."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            label, values = float("nan"), []
        corners = len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)
        if not (label.is_integer() and corners):
            raise DistilError(
                f"line {number} of {path} is {line.strip()[:60]!r}: expected 'class cx cy w h' (or a class and the "
                "corners of a polygon), the class a whole number from 0, the others shares of the image."
            )
        if not 0 <= label < len(names):
            raise DistilError(
                f"line {number} of {path} has class {int(label)}, and there are {len(names)} classes, 0 to "
                f"{len(names) - 1}: mend the line, or name the class."
            )
        if len(values) == 4:
            x, y, width, height = values
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        else:
            box = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        rows.append((number, int(label), box))
    return rows
