"""YOLO's text files: one a picture, one line an object."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distil.data.detection.checks import FURTHEST, ObjectTable
from distil.data.detection.detection_set import DetectionSet, DetectionSource
from distil.data.detection.files import detection_set, files_below, read_lines, source_of
from distil.data.detection.inventory import Findings, numbered
from distil.data.detection.splits import Split, folder_named, split_of
from distil.data.detection.values import check_names, number
from distil.data.detection.yolo_layout import LAYOUT, Files, plain_files, split_files
from distil.data.detection.yolo_yaml import DataYaml, find_yaml, read_yaml, yaml_names
from distil.errors import DistilError

__all__ = ["class_names", "open_yolo", "yaml_names", "yolo_source"]

BEYOND = 1.5
"""A share of an image beyond this is none: clipping it would hide that it is in pixels."""


def open_yolo(
    root: Path, split: str | None = None, *, classes: Sequence[str] | None = None, fix_boxes: bool = False
) -> DetectionSet:
    """Images and boxes in YOLO's layout.

    root: a folder with images/ and labels/, which hold folders named for splits or the files themselves, or with
        folders named for splits that hold images/ and labels/, or with a data.yaml that says where the splits are.
    split: train, val (or valid) or test; None for every picture of ROOT/images.
    classes: names; None for `names` in ROOT/data.yaml (or the one .yaml there that has them), else the lines of
        ROOT/classes.txt (or labels/classes.txt, or obj.names).
    fix_boxes: clip boxes that reach outside their image, and drop those without area.

    data.yaml's train, val and test are folders, .txt files that list pictures, or lists of these, seen from its `path`
    or its own folder; nothing outside ROOT is read. Without them the folders images/train, images/val2017,
    training/images and the like are the splits, else train.txt, val.txt and test.txt if they list pictures.

    The label of images/A.jpg is labels/A.txt; without it the image has no objects. A line is `class cx cy w h`, the
    class counted from 0, the box's center and sides as shares of the image; with kpt_shape in data.yaml keypoints may
    follow, which are not used; else `class x1 y1 x2 y2 x3 y3 ...` is a polygon whose bounding box is taken. Lines that
    repeat another's class and box are dropped. Pictures are turned as their EXIF tag says, as YOLO's own readers do.

    Raises: DistilError if the layout, the class names or an image is missing, a file cannot be read, a line is neither,
        a class is unknown, values are pixels, or a box is without area or outside its image.
    """
    root, findings = _absolute(root), Findings()
    described = _described(root, findings)
    if split is None:
        files = plain_files(root)
    else:
        word = split_of(split)
        found = split_files(root, described, findings)
        if word not in found:
            raise DistilError(f"{root} has no images of the split {split!r}. {LAYOUT}")
        files = found[word]
    names = tuple(classes) if classes is not None else _names(root, described)
    return _built(root, split, files, names, described, fix_boxes, findings)


def yolo_source(root: Path, *, fix_boxes: bool = False) -> DetectionSource:
    """The splits of a folder in YOLO's layout; without splits all images are the training split.

    A test split without label files, or without an object in them, is not offered.

    Raises: DistilError as `open_yolo`, and if there are splits, but none for training.
    """
    root, findings = _absolute(root), Findings()
    described = _described(root, findings)
    files = split_files(root, described, findings)
    whole = not files
    if whole:
        files["train"] = plain_files(root)
    if "train" not in files:
        raise DistilError(f"{root} has no train split, only {', '.join(files)}. {LAYOUT}")
    names = _names(root, described)
    opened: dict[Split, tuple[DetectionSet, str]] = {}
    for split, those in files.items():
        if split == "test" and (those.unlabeled or _is_empty(those)):
            findings.leave_out(
                "test splits", [f"{those.origin} with {numbered(len(those.images), 'image')}"], "no labels"
            )
            continue
        opened[split] = (
            _built(root, None if whole else split, those, names, described, fix_boxes, findings),
            those.origin,
        )
    used = [path for those in files.values() for path in those.labels]
    used += [path for split, those in files.items() if split not in opened for path in those.images]
    for split, (data, _) in opened.items():
        bare = len(data) - sum(path.is_file() for path in files[split].labels)
        if bare:
            findings.note(
                f"{numbered(bare, 'image')} of the {split} split without a label file: taken as without objects"
            )
    return source_of("yolo", "YOLO", root.resolve().name, root, opened, used, findings, "no split names them")


def class_names(root: Path) -> tuple[str, ...]:
    """Class names of a folder in YOLO's layout.

    Raises: DistilError if there are none, they cannot be read, or one is given twice.
    """
    return _names(_absolute(root), _described(_absolute(root), Findings()))


def _absolute(root: Path) -> Path:
    return Path(os.path.abspath(Path(root).expanduser()))


def _described(root: Path, findings: Findings) -> DataYaml | None:
    file = find_yaml(root, findings) if root.is_dir() else None
    return read_yaml(file, findings) if file else None


def _names(root: Path, described: DataYaml | None) -> tuple[str, ...]:
    if described and described.names:
        return described.names
    plain = (root / "classes.txt", (folder_named(root, "labels") or root) / "classes.txt", root / "obj.names")
    file = next((file for file in plain if file.is_file()), None)
    if file is not None:
        return check_names([line for line in read_lines(file) if line.strip()], file)
    if described:
        yaml_names(described.file)
    raise DistilError(f"{root} does not name its classes: add classes.txt, one name a line, or data.yaml with names.")


def _is_empty(files: Files) -> bool:
    return not any(line.strip() for path in files.labels if path.is_file() for line in read_lines(path))


def _built(
    root: Path,
    split: str | None,
    files: Files,
    names: tuple[str, ...],
    described: DataYaml | None,
    fix_boxes: bool,
    findings: Findings,
) -> DetectionSet:
    _refuse_orphans(files)
    keypoints = described.keypoints if described else 0
    rows = [
        (place, path, line)
        for place, path in enumerate(files.labels)
        if path.is_file()
        for line in _read_labels(path, names, keypoints)
    ]
    title = f"{root.resolve().name} {split}" if split else root.resolve().name
    if files.unlabeled:
        raise DistilError(
            f"{title} has {len(files.images)} images and no label file: looked for {files.labels[0]} and the like. "
            f"{LAYOUT}"
        )
    _check_meaning(title, [(path, line) for _, path, line in rows], keypoints, findings)
    objects = ObjectTable(
        images=np.array([place for place, _, _ in rows], dtype=np.int64),
        boxes=np.array([line.box for _, _, line in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([line.label + 1 for _, _, line in rows], dtype=np.int64),
        ignored=np.zeros(len(rows), dtype=bool),
        areas=np.full(len(rows), np.nan),
        describe=lambda row: f"line {rows[row][2].number} of {rows[row][1].name}",
    )
    unknown = [None] * len(files.images)
    return detection_set(
        title,
        names,
        files.images,
        files.identifiers,
        unknown,
        objects,
        fix_boxes=fix_boxes,
        findings=findings,
        shares=True,
    )


def _refuse_orphans(files: Files) -> None:
    """A label file without a picture is a mistake where labels have a folder."""
    expected = set(files.labels)
    for folder in files.label_folders:
        for path in sorted(files_below(folder)):
            if path.suffix.lower() != ".txt" or path in expected or path.stem.lower() == "classes":
                continue
            place = files.images[0].parent if len({image.parent for image in files.images}) == 1 else None
            there = sorted(place.glob(f"{path.stem}.*")) if place and "[" not in path.stem else []
            hint = f" ({there[0].name} there is of a type that distil does not read.)" if there else ""
            raise DistilError(
                f"{path} has no image in {place or files.origin}: put the image there, or remove the label file.{hint}"
            )


@dataclass(frozen=True)
class _Line:
    """An object. label: from 0. box: shares of the image, xyxy. values: all numbers after the class."""

    number: int
    label: int
    box: tuple[float, float, float, float]
    values: tuple[float, ...]


def _read_labels(path: Path, names: Sequence[str], keypoints: int) -> list[_Line]:
    lines = []
    for place, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        where = f"line {place} of {path}"
        try:
            label, *values = (number(word) for word in text.split())
        except ValueError:
            label, values = float("nan"), []
        if not (label.is_integer() and _is_object(len(values), keypoints)):
            raise DistilError(f"{where} is {text.strip()[:60]!r}: {_expected(values, keypoints)}")
        if not 0 <= label < len(names):
            raise DistilError(
                f"{where} has class {label:.0f}, and there are {len(names)} classes, 0 to {len(names) - 1}: mend the "
                "line, or name the class."
            )
        lines.append(_Line(place, int(label), _box(values, keypoints), tuple(values)))
    return lines


def _is_object(count: int, keypoints: int) -> bool:
    if keypoints:
        return count in (4, 4 + keypoints)
    return count == 4 or (count >= 6 and count % 2 == 0)


def _expected(values: Sequence[float], keypoints: int) -> str:
    text = (
        "expected 'class cx cy w h' (or a class and the corners of a polygon), the class a whole number from 0, the "
        "others shares of the image."
    )
    if keypoints:
        return (
            f"expected 'class cx cy w h' and after it the {keypoints} numbers of the keypoints (kpt_shape in "
            "data.yaml), or none of them."
        )
    if len(values) == 5:
        return f"{text} A sixth number is the confidence in a file of predictions: use the true labels, or remove it."
    if len(values) >= 7 and (len(values) - 4) % 3 == 0:
        points = (len(values) - 4) // 3
        return f"{text} If a box and {points} keypoints are meant, add kpt_shape: [{points}, 3] to data.yaml."
    return text


def _box(values: Sequence[float], keypoints: int) -> tuple[float, float, float, float]:
    if len(values) == 4 or keypoints:
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    points = np.array(values).reshape(-1, 2)  # its min and max pass nan on, Python's do not
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return left, top, right, bottom


def _check_meaning(title: str, rows: Sequence[tuple[Path, _Line]], keypoints: int, findings: Findings) -> None:
    """Raises: DistilError if numbers are pixels in place of shares, or keypoints without kpt_shape."""
    for path, line in rows:
        if any(BEYOND < value <= FURTHEST for value in _places(line, keypoints)):
            raise _pixel_error(title, path, line, rows, keypoints)
    polygons = [(path, line) for path, line in rows if len(line.values) > 4 and not keypoints]
    if not polygons:
        return
    path, first = polygons[0]
    points, rest = divmod(len(first.values) - 4, 3)
    if not rest and all(_has_visibilities(line.values) for _, line in polygons):
        raise DistilError(
            f"line {first.number} of {path} and all others as long hold 0, 1 or 2 in every third place after the first "
            f"four numbers: a box and {points} keypoints. Add kpt_shape: [{points}, 3] to data.yaml, so that they are "
            "not read as polygons."
        )
    findings.note(
        f"{title}: {numbered(len(polygons), 'line')} of more than five numbers are polygons: their bounding boxes are "
        "taken"
    )
    points, rest = divmod(len(first.values) - 4, 2)
    if not rest and all(_holds_points(line.values) for _, line in polygons):
        findings.note(
            f"{title}: these lines may also be boxes with keypoints: if so, add kpt_shape: [{points}, 2] to data.yaml"
        )


def _places(line: _Line, keypoints: int) -> tuple[float, ...]:
    return line.values[:4] if keypoints else line.values


def _pixel_error(
    title: str, path: Path, line: _Line, rows: Sequence[tuple[Path, _Line]], keypoints: int
) -> DistilError:
    values = _places(line, keypoints)
    worst = max(value for value in values if value <= FURTHEST)
    beyond = sum(any(value > BEYOND for value in _places(other, keypoints)) for _, other in rows)
    if not keypoints and len(values) > 4 and (len(values) - 4) % 3 == 0 and _has_visibilities(values):
        points = (len(values) - 4) // 3
        return DistilError(
            f"line {line.number} of {path} holds {worst:g}, and 0, 1 or 2 in every third place after the first four "
            f"numbers: a box and {points} keypoints. Add kpt_shape: [{points}, 3] to data.yaml."
        )
    return DistilError(
        f"{title}: line {line.number} of {path} holds {worst:g} ({beyond} of {numbered(len(rows), 'line')} hold such "
        "numbers): YOLO's are shares of the image, from 0 to 1, and these look like pixels. Divide x and width by the "
        "image's width, y and height by its height. {fix_boxes} cannot mend this.",
        field="fix_boxes",
    )


def _has_visibilities(values: Sequence[float]) -> bool:
    """Whether numbers can be a box and keypoints of x, y and visibility."""
    return len(values) >= 7 and (len(values) - 4) % 3 == 0 and all(value in (0, 1, 2) for value in values[6::3])


def _holds_points(values: Sequence[float]) -> bool:
    """Whether numbers can be a box that holds the points of x and y after it, but for those at 0, 0."""
    x, y, width, height = values[:4]
    points = np.array(values[4:]).reshape(-1, 2)
    seen = points[(points != 0).any(1)]
    return bool((np.abs(seen - [x, y]) <= [width / 2, height / 2]).all())
