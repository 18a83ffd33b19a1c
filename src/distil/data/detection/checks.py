"""Checks of boxes that every reader of detection data shares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distil.data.detection.inventory import Findings, numbered
from distil.data.detection.rotation import Header
from distil.errors import DistilError

OUTSIDE = 1.05
"""Pixels by which a box may reach outside its image and be clipped without a word: one, and rounding."""

FURTHEST = 1e7
"""Pixels; a coordinate beyond is no number that an annotation can mean."""

REMEDY = "{fix_boxes=True} clips boxes to their images and drops those without area."


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

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, kept: np.ndarray) -> "ObjectTable":
        """The objects where `kept` is true."""
        places = np.flatnonzero(kept)
        return ObjectTable(
            self.images[kept],
            self.boxes[kept],
            self.labels[kept],
            self.ignored[kept],
            self.areas[kept],
            lambda row: self.describe(int(places[row])),
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """The images that objects lie on.

    sizes: height and width that boxes are for. turned: pictures are read as their rotation tags say, whatever their
    size (YOLO). sides: boxes were written as x, y, width and height (COCO).
    """

    name: str
    identifiers: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    headers: Sequence[Header]
    turned: bool
    sides: bool

    def limits(self, objects: ObjectTable) -> np.ndarray:
        """The right and lower edges of each object's image, as (right, low, right, low)."""
        return np.array(self.sizes, dtype=np.float64).reshape(-1, 2)[objects.images][:, [1, 0, 1, 0]]


def without_repeats(frame: Frame, objects: ObjectTable, findings: Findings) -> tuple[ObjectTable, int]:
    """The objects without those that repeat the image, class, box and flag of one before, and how many these are."""
    keys = np.column_stack([objects.images, objects.labels, objects.ignored, objects.boxes])
    _, first = np.unique(keys, axis=0, return_index=True)
    kept = np.zeros(len(objects), dtype=bool)
    kept[first] = True
    repeats = np.flatnonzero(~kept)
    names = [_name(frame, objects, int(row)) for row in repeats[:3]]
    findings.leave_out("repeated objects", names, "the same class and box on the same image again", len(repeats))
    return objects.rows(kept), len(repeats)


def usable_boxes(
    frame: Frame, objects: ObjectTable, fix_boxes: bool, findings: Findings
) -> tuple[np.ndarray, np.ndarray, str]:
    """(float32 boxes clipped to their images, which are kept, note).

    fix_boxes: clip boxes that reach out further than OUTSIDE too, and drop those without area.

    Raises: DistilError if a box is bad and not to be fixed, none is left, or a mistake shows that fixing would hide:
        shares in place of pixels, boxes for pictures that are turned otherwise.
    """
    limits = frame.limits(objects)
    bounded = np.abs(objects.boxes) <= FURTHEST  # nan is not
    sound: np.ndarray = np.all(bounded, axis=1, keepdims=True)[:, 0]
    boxes = np.where(sound[:, None], objects.boxes, 0.0)
    _refuse_shares(frame, objects, boxes, sound)
    reach = np.maximum(-boxes, boxes - limits).max(1)
    outside = sound & (reach > OUTSIDE)
    _refuse_turned(frame, objects, outside)
    boxes = np.clip(boxes, 0.0, limits).astype(np.float32)
    flat = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    if not fix_boxes:
        _refuse(frame, objects, ~sound, "holds a number that is no place in", "")
        _refuse(
            frame,
            objects,
            outside,
            "reaches {reach:.4g} pixels outside",
            _corner_hint(objects, limits) if frame.sides else "",
        )
        _refuse(frame, objects, flat, "has no area inside", "")
    if flat.all():
        raise DistilError(f"{frame.name}: not one box has an area inside its image: mend the annotations.")
    clipped = outside & ~flat
    _tell(frame, objects, clipped, flat & sound, ~sound, findings)
    note = f"{frame.name}: {int(clipped.sum())} boxes clipped to their images, {int(flat.sum())} without area dropped"
    return boxes, ~flat, note if clipped.any() or flat.any() else ""


def refuse_ignored(name: str, ignored: np.ndarray) -> None:
    """Raises: DistilError if all objects are ignored."""
    if len(ignored) and ignored.all():
        raise DistilError(
            f"{name}: all {len(ignored)} objects are ignored (COCO's iscrowd or ignore, VOC's difficult), so there is "
            "nothing to learn from or to find: mend these flags."
        )


def _refuse(frame: Frame, objects: ObjectTable, bad: np.ndarray, told: str, hint: str) -> None:
    if not bad.any():
        return
    first = int(np.flatnonzero(bad)[0])
    image = objects.images[first]
    height, width = frame.sizes[image]
    box = objects.boxes[first]
    reach = float(np.maximum(-box, box - [width, height, width, height]).max())
    others = f" {int(bad.sum())} such boxes in all." if bad.sum() > 1 else ""
    raise DistilError(
        f"{frame.name}: the box ({_corners(box)}) of {objects.describe(first)} on image {frame.identifiers[image]} "
        f"{told.format(reach=reach)} that image of {width} x {height} pixels (x1, y1, x2, y2; width x height)."
        f"{others} {hint or 'Mend'} the annotations, or: {REMEDY}",
        field="fix_boxes",
    )


def _name(frame: Frame, objects: ObjectTable, row: int) -> str:
    return f"{objects.describe(row)} on {frame.identifiers[int(objects.images[row])]}"


def _corners(box: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in box)


def _refuse_shares(frame: Frame, objects: ObjectTable, boxes: np.ndarray, sound: np.ndarray) -> None:
    """Shares of the image in place of pixels would all lie in its first pixel."""
    if not frame.turned and sound.any() and boxes[sound][:, 2:].max() <= 1 and min(map(min, frame.sizes)) > 2:
        first = int(np.flatnonzero(sound)[0])
        raise DistilError(
            f"{frame.name}: no box reaches beyond the first pixel of its image, as ({_corners(objects.boxes[first])}) "
            f"of {objects.describe(first)} on image {frame.identifiers[objects.images[first]]}: these look like shares "
            "of the image, and boxes here are in pixels. Multiply x by the image's width and y by its height."
        )


def _refuse_turned(frame: Frame, objects: ObjectTable, outside: np.ndarray) -> None:
    """Boxes that lie in the picture turned as its tag says, and not in the stored one."""
    if frame.turned or not outside.any():
        return
    headers = [frame.headers[image] for image in objects.images[outside]]
    sides = np.array([(*header.turned[::-1], *header.turned[::-1]) for header in headers])
    boxes = objects.boxes[outside]
    fits = ((boxes >= -OUTSIDE) & (boxes <= sides + OUTSIDE)).all(1)
    fits &= np.array([header.turned != header.size for header in headers])
    if not fits.any():
        return
    row = int(np.flatnonzero(outside)[int(np.flatnonzero(fits)[0])])
    image = objects.images[row]
    header = frame.headers[image]
    more = f" (so are {int(fits.sum()) - 1} more)" if fits.sum() > 1 else ""
    raise DistilError(
        f"{frame.name}: the box ({_corners(objects.boxes[row])}) of {objects.describe(row)} is for the turned picture "
        f"{frame.identifiers[image]}{more}: as stored it has {header.size[1]} x {header.size[0]} pixels (width x "
        f"height), and its EXIF rotation tag ({header.orientation}) makes that {header.turned[1]} x "
        f"{header.turned[0]}. Write width and height of the turned picture into the annotations, or save the pictures "
        "upright. {fix_boxes} would cut the boxes at wrong places.",
        field="fix_boxes",
    )


def _corner_hint(objects: ObjectTable, limits: np.ndarray) -> str:
    """What to say first where all boxes would lie in their images if x, y, width and height were corners."""
    with np.errstate(all="ignore"):
        start, end = objects.boxes[:, :2], objects.boxes[:, 2:] - objects.boxes[:, :2]
    inside = (start >= -OUTSIDE) & (end > start) & (end <= limits[:, 2:] + OUTSIDE)
    if not inside.all():
        return ""
    return (
        "All boxes would lie in their images if their four numbers were corners (x1, y1, x2, y2): if they are, write "
        "x, y, width, height instead; {fix_boxes} would cut them at wrong places. Otherwise mend"
    )


def _tell(
    frame: Frame, objects: ObjectTable, clipped: np.ndarray, flat: np.ndarray, broken: np.ndarray, findings: Findings
) -> None:
    def names(rows: np.ndarray) -> list[str]:
        places = np.flatnonzero(rows)[:3]
        return [_name(frame, objects, int(row)) for row in places]

    why = "dropped, because boxes are to be fixed"
    findings.leave_out("boxes without area in the image", names(flat), why, int(flat.sum()))
    findings.leave_out("boxes with numbers that are no place in an image", names(broken), why, int(broken.sum()))
    if clipped.any():
        shown = ", ".join(names(clipped))
        findings.note(
            f"{frame.name}: {numbered(int(clipped.sum()), 'box')} clipped to the image, because boxes are to be fixed "
            f"({shown})"
        )
