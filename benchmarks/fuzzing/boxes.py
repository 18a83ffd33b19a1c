"""Images with boxes: COCO, PASCAL VOC and YOLO."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from distil.data.detection.detection_set import DetectionSet, DetectionSource
from distil.data.detection.opener import open_detection

from .target import Case, Target, bad_names, files_of, first_of, not_finite


def _drawn(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_coco(folder: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        images, annotations = [], []
        for i in range(count):
            _drawn(folder / "images" / f"{split}{i}.png", i)
            images.append({"id": i + 1, "file_name": f"{split}{i}.png", "width": 24, "height": 20})
            for j, box in enumerate(([2, 3, 8, 9.5], [10, 4, 12, 14])):
                outline = [[box[0], box[1], box[0] + box[2], box[1], box[0], box[1] + box[3]]]
                entry = {"id": 10 * i + j + 1, "image_id": i + 1, "category_id": 3 * j + 1, "bbox": box}
                annotations.append({**entry, "area": 40.0 + j, "iscrowd": j, "segmentation": outline})
        table = {"info": {}, "images": images, "annotations": annotations}
        table["categories"] = [{"id": 1, "name": "red"}, {"id": 4, "name": "green"}]
        (folder / f"instances_{split}.json").write_text(json.dumps(table))


def _opener(kind: str) -> Callable[[Path, str], DetectionSource]:
    def read(folder: Path, name: str) -> DetectionSource:
        found = open_detection(f"{kind}:{folder}")
        for data in _splits(found):
            for i in range(len(data)):
                data.image(i)
            data.describe()
        return found

    return read


def _splits(found: DetectionSource) -> list[DetectionSet]:
    return [data for data in (found.train, found.val, found.test) if data is not None]


def _boxes_nonsense(found: DetectionSource, case: Case) -> str:
    for data in _splits(found):
        if reason := bad_names(data.classes):
            return reason
        for i in range(len(data)):
            one, (height, width) = data.annotations(i), data.size(i)
            boxes = one.boxes
            inside = (boxes >= 0) & (boxes <= torch.tensor([width, height, width, height]))
            reason = first_of(
                not_finite({"boxes": boxes, "areas": one.areas}),
                "a box outside its image" if not bool(inside.all()) else "",
                "a box without area" if not bool((boxes[:, 2:] > boxes[:, :2]).all()) else "",
                "areas below 0" if not bool((one.areas > 0).all()) else "",
                "labels out of range"
                if not bool(((one.labels >= 1) & (one.labels <= len(data.classes))).all())
                else "",
                f"an image of {height} x {width}" if tuple(data.image(i).shape[1:]) != (height, width) else "",
            )
            if reason:
                return f"{data.identifier(i)[:40]}: {reason}"
        for path in getattr(data.pictures, "paths", ()):
            if not path.resolve().is_relative_to(case.folder.resolve()):
                return f"an image outside of the folder: {path}"
    return ""


def _boxes_content(found: DetectionSource) -> Any:
    return [(data.fingerprint, data.classes, [data.size(i) for i in range(len(data))]) for data in _splits(found)]


FALSE, TRUE = (None, 0, "0", "", "false", "no", "unspecified"), (1, "1", "true", "yes")


def meant(flag: Any) -> bool | None:
    """Whether a flag is set, in any of the ways that programs write it; None where that is open."""
    flag = flag.strip().lower() if isinstance(flag, str) else flag
    if isinstance(flag, list | dict | float):
        return None
    return False if flag in FALSE else True if flag in TRUE else None


def _coco_nonsense(found: DetectionSource, case: Case) -> str:
    return _boxes_nonsense(found, case) or _coco_differs(found, case)


def _coco_differs(found: DetectionSource, case: Case) -> str:
    """What a JSON itself says: no truth values as numbers, and as many ignored objects as are marked."""
    if not case.name.endswith(".json") or case.content is None:
        return ""
    table = json.loads(case.content)
    for kind, keys in (
        ("images", ("id", "width", "height")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
        ("categories", ("id",)),
    ):
        for entry in table[kind]:
            values = [x for key in keys for x in (entry.get(key) if key == "bbox" else [entry.get(key)])]
            if any(isinstance(x, bool) for x in values):
                return f"a truth value in place of a number in {kind}"
    data = found.train if "train" in case.name else found.val
    flags = [(meant(entry.get("iscrowd")), meant(entry.get("ignore"))) for entry in table["annotations"]]
    if data is None or any(None in pair for pair in flags):
        return ""
    ignored = [bool(x) for i in range(len(data)) for x in data.annotations(i).ignored]
    if len(ignored) == len(flags) and sum(ignored) != sum(map(any, flags)):
        return f"{sum(ignored)} objects are ignored, and {sum(map(any, flags))} are marked"
    if len(ignored) > len(flags):
        return "more objects than the file has"
    return ""


VOC_OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
    "<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def _voc(folder: Path) -> None:
    for split, stems in (("trainval", ("one", "two")), ("test", ("three",))):
        for i, stem in enumerate(stems):
            _drawn(folder / "JPEGImages" / f"{stem}.png", i)
            objects = VOC_OBJECT.format(name="red", difficult=0, box=(2, 3, 9, 12))
            objects += VOC_OBJECT.format(name="green", difficult=1, box=(8, 4, 24, 20))
            size = "<size><width>24</width><height>20</height><depth>3</depth></size>"
            (folder / "Annotations").mkdir(exist_ok=True)
            text = f"<annotation><filename>{stem}.png</filename>{size}{objects}</annotation>"
            (folder / "Annotations" / f"{stem}.xml").write_text(text)
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    (folder / "classes.txt").write_text("red\ngreen\n")


def _voc_nonsense(found: DetectionSource, case: Case) -> str:
    return _boxes_nonsense(found, case) or _voc_differs(found, case)


def _voc_differs(found: DetectionSource, case: Case) -> str:
    if not case.name.endswith(".xml") or not case.content:
        return ""
    tree = ElementTree.fromstring(case.content)
    if tree.tag.lower() != "annotation":
        return f"the root is <{tree.tag}>"
    data = next(
        (data for data in _splits(found) for i in range(len(data)) if Path(data.identifier(i)).stem in case.name), None
    )
    if data is None:
        return ""
    at = next(i for i in range(len(data)) if Path(data.identifier(i)).stem in case.name)
    flags = [meant(entry.findtext("difficult")) for entry in tree.findall("object")]
    ignored = data.annotations(at).ignored.tolist()
    if len(ignored) > len(flags):
        return "more objects than the file has"
    if None not in flags and len(flags) == len(ignored) and ignored != flags:
        return f"objects are ignored as {ignored}, and the file says {flags}"
    return ""


def _yolo(folder: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            _drawn(folder / "images" / split / f"{i}.png", i)
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
            lines = "0 0.3 0.4 0.2 0.2\n1 0.6 0.5 0.3 0.25\n1 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5\n"
            (folder / "labels" / split / f"{i}.txt").write_text(lines)
    (folder / "data.yaml").write_text(
        "# two colors\npath: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: red\n  1: green\n"
    )


def _yolo_nonsense(found: DetectionSource, case: Case) -> str:
    return _boxes_nonsense(found, case) or _yolo_differs(found, case)


def _yolo_differs(found: DetectionSource, case: Case) -> str:
    """As many objects as there are different lines, or different boxes."""
    if not case.name.endswith(".txt") or case.content is None:
        return ""
    split, stem = Path(case.name).parent.name, Path(case.name).stem
    data = found.train if split == "train" else found.val
    if data is None:
        return ""
    lines = [line.split() for line in case.content.decode("utf-8-sig").splitlines() if line.strip()]
    fewest, most = len({_box_of_line(words) for words in lines}), len({tuple(words) for words in lines})
    at = next((i for i in range(len(data)) if Path(data.identifier(i)).stem == stem), None)
    have = 0 if at is None else len(data.annotations(at))
    if not fewest <= have <= most:
        return f"{have} objects were read, and the file has {fewest} different boxes in {len(lines)} lines"
    return ""


def _box_of_line(words: list[str]) -> tuple[float, ...]:
    """Class, corners, rounded."""
    label, *values = map(float, words)
    if len(values) == 4:
        x, y, width, height = values
        values = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    corners = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return label, *(round(value, 9) for value in corners)


def _yaml_nonsense(found: DetectionSource, case: Case) -> str:
    return _boxes_nonsense(found, case) or _yaml_differs(found, case)


def _yaml_differs(found: DetectionSource, case: Case) -> str:
    """Classes have the names that the file gives, and a validation folder that it names is used."""
    try:
        told = yaml.load(case.content or b"", Loader=yaml.BaseLoader)  # names are text, as they are written
    except yaml.YAMLError:
        return "it is no YAML"
    names = told.get("names") if isinstance(told, dict) else None
    if isinstance(names, dict):
        names = [name for _, name in sorted(names.items(), key=lambda pair: (len(pair[0]), pair[0]))]
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        expected = [name.strip() for name in names]
        if list(found.train.classes) != expected:
            return f"the classes are {str(found.train.classes)[:60]}, and the file names {str(expected)[:60]}"
    val = told.get("val") if isinstance(told, dict) else None
    if isinstance(val, str) and val and (case.folder / val).is_dir() and found.val is None:
        return f"the validation images in {val[:60]} are not used"
    return ""


BOXES: dict[str, Target] = {
    "COCO": Target(
        lambda: files_of(write_coco),
        (".json",),
        _opener("coco"),
        _boxes_content,
        _coco_nonsense,
        reads_file=True,
        share=1.5,
    ),
    "COCO pictures": Target(
        lambda: files_of(write_coco), (".png",), _opener("coco"), _boxes_content, _boxes_nonsense, share=0.7
    ),
    "VOC": Target(
        lambda: files_of(_voc), (".xml",), _opener("voc"), _boxes_content, _voc_nonsense, reads_file=True, share=1.5
    ),
    "VOC lists": Target(lambda: files_of(_voc), (".txt",), _opener("voc"), _boxes_content, _boxes_nonsense),
    "YOLO": Target(
        lambda: files_of(_yolo),
        ("0.txt", "1.txt"),
        _opener("yolo"),
        _boxes_content,
        _yolo_nonsense,
        reads_file=True,
        share=1.5,
    ),
    "data.yaml": Target(
        lambda: files_of(_yolo), (".yaml",), _opener("yolo"), _boxes_content, _yaml_nonsense, reads_file=True
    ),
}
