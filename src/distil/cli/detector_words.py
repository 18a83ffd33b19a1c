"""What words of the commands on detectors mean: models, data, folders."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.cli.detector_flags import DataFlags, StudentFlags
from distil.errors import DistilError
from distil.processes import is_first
from distil.runs import silent

if TYPE_CHECKING:
    from distil.data.detection.detection_set import DetectionSet, DetectionSource
    from distil.networks.detectors import Architecture

STUDENT = "student.safetensors"
READ = ("train", "val", "test", "dev", "eval", "annotation", "image", "label", "jpegimages", "voc")
"""How the names of folders begin in which readers of boxes look for pictures and annotations."""


def architecture_of(student: StudentFlags, data: "DetectionSet") -> "Architecture":
    """What is to be trained; sizes that are not given are taken from the training images, which is told."""
    from distil.detector.sizes import sizes_for
    from distil.networks.detectors import Architecture, check_architecture

    values = {name: value for name, value in asdict(student).items() if name not in ("pretrained", "head")}
    sizes = {name: values[name] for name in ("min_size", "max_size", "anchor")}
    if None in sizes.values():
        values |= sizes_for(data, student.detector, finest=student.finest, **sizes)
    architecture = Architecture(classes=data.classes, version=student.head, **values)
    check_architecture(architecture)
    taken = [f"--{name.replace('_', '-')} {values[name]:g}" for name, given in sizes.items() if given is None]
    if taken and is_first():
        print(
            f"Note: without --pretrained the defaults are those for random weights, here {values['backbone']} with "
            f"{values['norm']} norms, and from the data {' '.join(taken)}. --pretrained download starts from a "
            "resnet50 that knows ImageNet, with the published settings.",
            flush=True,
        )
    return architecture


def pretrained_word(student: StudentFlags) -> str | None:
    """What the --pretrained word means from any working folder."""
    if student.pretrained is None:
        if student.norm == "frozen" and is_first():
            print("Note: random weights with --norm frozen have no norms at all: --norm group trains from nothing.")
        return None
    if student.pretrained == "download":
        return "download"
    path = Path(student.pretrained)
    if not path.is_file():
        raise DistilError(f"--pretrained {path}: no such file. Give a .safetensors file, or download.")
    return str(path.absolute())


def first_weights(architecture: "Architecture", pretrained: str | None, seed: int) -> Any:
    """The student's first weights where its backbone's are given; None where all are random."""
    from distil.networks.detectors import build_detector

    if pretrained is None:
        return None
    return build_detector(architecture, seed=seed, backbone_weights=pretrained).state_dict()


def model_file(word: str, accepted: str = "a run folder, a .safetensors file, or torchvision:NAME") -> Path:
    """The weights that a MODEL word means, if it is a folder or a file."""
    path = Path(word)
    if path.is_dir():
        for name in (STUDENT, "best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise DistilError(f"{path} holds no detector yet: finish its run, or give a .safetensors file.")
    if not path.is_file():
        raise DistilError(f"no such file or folder: {path}. Give {accepted}.")
    return path


def adapter_named(word: str, place: DataFlags) -> tuple[Any, tuple[str, ...]]:
    """The adapter of a MODEL word, and the names of its classes."""
    from distil.detector.adapters import adapt
    from distil.networks.detectors import load_detector

    if word.startswith("torchvision:"):
        from distil.networks.pretrained import torchvision_detector

        if not place.download:
            raise DistilError(f"{word} has to be fetched: allow it with --download (kept by torch for the next time).")
        model, classes = torchvision_detector(word.removeprefix("torchvision:"), "download")
        return adapt(model), classes
    model, architecture, _ = load_detector(model_file(word))
    return adapt(model), architecture.classes


def open_boxes(source: str, root: Path | None, fix_boxes: bool) -> "DetectionSource":
    """The data of a SOURCE word; the first process shows that it is opened, and prints what was read of it."""
    from distil.data.detection.opener import open_detection
    from distil.report.progress import show_progress

    scenes = source.partition(":")[0] == "scenes"
    with show_progress(source) if is_first() and not scenes else nullcontext(silent) as shown:
        shown("preparing", what="opening")
        data = open_detection(source, root=root, fix_boxes=fix_boxes)
    if is_first():
        print(data.inventory, flush=True)
    return data


def split_named(data: "DetectionSource", split: str, source: str) -> "DetectionSet":
    chosen = {"train": data.train, "val": data.val, "test": data.test}[split]
    if chosen is None:
        having = [name for name in ("train", "val", "test") if getattr(data, name) is not None]
        raise DistilError(f"{source} has no {split} images: give --split {' or '.join(having)}.")
    return chosen


def folder_name(source: str, label: str, detector: str, seed: int) -> str:
    name = source.removeprefix("coco:").removeprefix("voc:").removeprefix("yolo:")
    stem = "scenes" if source.split(":")[0] == "scenes" else Path(name).resolve().name
    parts = f"{stem}-{label}-{detector}-seed{seed}"
    return "".join(letter if letter.isalnum() or letter in "-_.," else "-" for letter in parts)


def refuse_among_data(folder: Path, source: str, root: Path | None, flag: str = "--out") -> None:
    """Refuse a folder for results, named by `flag`, where a reader would take them for data the next time.

    Raises: DistilError when it is the folder of SOURCE itself or lies in a part of it that is read.
    """
    kind, colon, rest = source.partition(":")
    place = Path(rest if colon and kind in ("coco", "voc", "yolo") else source).expanduser()
    place = (place if root is None else root.expanduser() / place).resolve()
    if kind == "scenes" or not place.exists():
        return
    data, target = (place if place.is_dir() else place.parent), folder.expanduser().resolve()
    if not target.is_relative_to(data):
        return
    first = target.relative_to(data).parts[:1]
    if not first or first[0].lower().startswith(READ):
        raise DistilError(
            f"{folder} lies among the data of {source}: what is written there would be read as data the next time. "
            f"Choose another folder with {flag}."
        )


def lasting(word: str) -> str:
    """A SOURCE or TEACHER word that means the same from any working folder."""
    kind, colon, rest = word.partition(":")
    if colon and kind in ("coco", "voc", "yolo") and Path(rest).exists():
        return f"{kind}:{Path(rest).absolute()}"
    return str(Path(word).absolute()) if kind != "scenes" and Path(word).exists() else word


def tell_notes(name: str, **fields: Any) -> None:
    """Events that print every note."""
    if name == "note":
        print(f"Note: {fields['text']}", flush=True)
