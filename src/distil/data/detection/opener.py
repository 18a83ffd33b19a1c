"""Where images with boxes come from: what a spec means, and which format a folder has."""

from collections.abc import Iterator
from pathlib import Path

from distil.data.detection.coco import coco_source
from distil.data.detection.detection_set import DetectionSource
from distil.data.detection.files import files_below
from distil.data.detection.scenes import scenes_source
from distil.data.detection.splits import folder_named, folders_in, split_of
from distil.data.detection.voc import voc_source
from distil.data.detection.yolo import yolo_source
from distil.errors import DistilError
from distil.lookup import nearest

FORMATS = ("scenes", "coco", "voc", "yolo")


def open_detection(
    spec: str | Path, *, root: str | Path | None = None, fix_boxes: bool = False, seed: int = 0
) -> DetectionSource:
    """The images with boxes that a spec names.

    spec: scenes | scenes:COUNT (of training scenes) | coco:FOLDER | coco:FILE.json | voc:FOLDER | yolo:FOLDER |
        FOLDER, whose format is recognized by what it holds. Layouts: see `coco`, `voc` and `yolo` beside this file.
    root: the folder that a relative FOLDER lies in; None for the working directory.
    fix_boxes: clip boxes that reach outside their image, drop those without area, and say how many in the note.
    seed: decides the scenes; files do not depend on it.

    What was read and what was left out is in the source's `inventory`.

    Raises: DistilError if nothing answers to the spec, or what does cannot be read.
    """
    spec = str(spec)
    kind, colon, rest = spec.partition(":")
    if kind == "scenes":
        if colon and not (rest.isascii() and rest.isdigit() and int(rest) > 0):
            raise DistilError(f"{spec}: give the number of training scenes, as in scenes:200, or scenes alone.")
        return scenes_source(int(rest), seed=seed) if colon else scenes_source(seed=seed)
    if kind not in FORMATS:
        kind, rest = "", spec
    path = _resolved(spec, rest, root)
    kind = kind or recognize(path)
    if kind == "coco":
        return coco_source(path, fix_boxes=fix_boxes)
    if not path.is_dir():
        raise DistilError(f"{path} is a file, but {kind}: takes a folder. {_accepted()}")
    if kind == "voc":
        return voc_source(path, fix_boxes=fix_boxes)
    return yolo_source(path, fix_boxes=fix_boxes)


def _resolved(spec: str, rest: str, root: str | Path | None) -> Path:
    try:
        path = Path(rest).expanduser()
        path = Path(root).expanduser() / path if root is not None else path
        if rest and path.exists():
            return path
    except (RuntimeError, ValueError, OSError) as error:  # ~ of nobody, a NUL, a name too long
        raise DistilError(f"{spec!r} is no path that can be opened: {error}. {_accepted()}") from error
    word, colon, _ = spec.partition(":")
    near = nearest(word, FORMATS)
    if word not in FORMATS and "/" not in word and near:
        suggestion = f" Did you mean {near}{':FOLDER' if colon and near != 'scenes' else ''}?"
        raise DistilError(f"unknown data {spec!r}.{suggestion} {_accepted()}")
    if not rest:
        raise DistilError(f"{spec!r} names no folder. {_accepted()}")
    if (colon and word in FORMATS) or "/" in rest or rest.startswith((".", "~")) or root is not None:
        raise DistilError(f"there is nothing at {path}. {_accepted()}")
    raise DistilError(f"unknown data {spec!r}. {_accepted()}")


def _accepted() -> str:
    return (
        "Data is one of scenes, scenes:COUNT, coco:FOLDER, voc:FOLDER, yolo:FOLDER, or a FOLDER whose format is "
        "recognized."
    )


def recognize(path: Path) -> str:
    """coco, voc or yolo, by what a folder holds.

    Raises: DistilError if it looks like none of them.
    """
    if path.is_file():
        if path.suffix.lower() == ".json":
            return "coco"
        raise DistilError(f"{path} is a file but not a COCO .json. {_accepted()}")

    parts = [path, *(folder for folder in folders_in(path) if split_of(folder.name))]
    files = {file.name.lower() for file in path.iterdir() if not file.name.startswith(".")}
    endings = {Path(name).suffix for name in files}

    def holds(*names: str, ending: str = "") -> bool:
        found = [folder for part in parts if (folder := folder_named(part, *names))]
        return any(not ending or any(file.suffix.lower() == ending for file in files_below(folder)) for folder in found)

    years = any(path.glob("VOC[0-9][0-9][0-9][0-9]/")) or folder_named(path, "VOCdevkit") is not None
    if years or folder_named(path, "ImageSets") or holds("Annotations", "xml", "xmls", ending=".xml"):
        return "voc"
    if holds("labels") or "obj.names" in files:
        return "yolo"
    if (
        ".json" in endings
        or holds("annotations", ending=".json")
        or any(any(files_with(part, ".json")) for part in parts)
    ):
        return "coco"
    if endings & {".yaml", ".yml"}:
        return "yolo"
    if any(any(files_with(part, ".xml")) for part in parts):
        return "voc"
    raise DistilError(
        f"{path} holds no detection data that distil knows: expected a COCO .json (in the folder or in annotations/), "
        "PASCAL VOC's JPEGImages/ and Annotations/, or YOLO's images/ and labels/."
    )


def files_with(folder: Path, ending: str) -> Iterator[Path]:
    """The files of a folder with an ending, in any case, but for hidden ones."""
    return (file for file in folder.iterdir() if file.suffix.lower() == ending and not file.name.startswith("."))
