"""Detectors, their training runs, exported students and prototypes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.data.detection.opener import open_detection
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.settings import DetectorSettings
from distil.detector.training.train import train_detector
from distil.fields import with_values
from distil.networks.detectors import Architecture, build_detector, load_detector, save_detector
from distil.runs import MANIFEST

from .boxes import write_coco
from .target import (
    Case,
    Files,
    Target,
    bad_names,
    broken_state,
    command,
    digest,
    files_of,
    first_of,
    named_from_here,
    not_finite,
)

TINY = Architecture(
    detector="faster-rcnn",
    backbone="timm:test_efficientnet",
    classes=("red", "green"),
    channels=8,
    min_size=32,
    max_size=64,
    norm="group",
    anchor=8.0,
    representation=8,
    proposals=20,
    sampled=16,
)
PROBE = 24
"""Side of the image that a detector is tried on."""


def _detector_files(folder: Path) -> None:
    save_detector(build_detector(TINY, seed=1).eval(), TINY, folder / "student.safetensors", extra={"epoch": 3})


def _exported(folder: Path) -> None:
    _detector_files(folder)
    command("detector", "export", "student.safetensors", "--out", "exported.safetensors")
    (folder / "student.safetensors").unlink()


def _load_detector(folder: Path, name: str) -> Any:
    model, architecture, extra = load_detector(folder / name)
    with torch.no_grad():
        return model, architecture, extra, model([torch.full((3, PROBE, PROBE), 0.5)])[0]


def _detector_nonsense(found: Any, case: Case) -> str:
    model, architecture, extra, objects = found
    numbers = (*architecture.mean, *architecture.std, architecture.max_size, architecture.channels)
    inside = bool((objects["boxes"] >= 0).all() and (objects["boxes"] <= PROBE).all())
    labels = objects["labels"]
    return first_of(
        bad_names(architecture.classes),
        "a truth value in place of a number" if any(isinstance(x, bool) for x in numbers) else "",
        "means or deviations outside all sense"
        if max(abs(x) for x in (*architecture.mean, *architecture.std)) > 1e4
        else "",
        not_finite({**model.state_dict(), **objects}),
        "boxes outside the image" if not inside else "",
        "labels out of range" if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= 2 else "",
        "extra is no object" if not isinstance(extra, dict) else "",
    )


def _detector_content(found: Any) -> Any:
    model, architecture, extra, _ = found
    return digest(model.state_dict()), repr(architecture), json.dumps(extra, sort_keys=True)


def _prototypes(folder: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    PrototypeSet(
        student=torch.rand(4, 5, generator=generator),
        teacher=torch.rand(4, 6, generator=generator),
        levels=torch.tensor([0, 0, 1, 1]),
        labels=torch.tensor([1, 2, 1, 2]),
        images=torch.tensor([0, 3, 0, 5]),
        boxes=torch.tensor([[1.0, 2, 30, 40], [5, 5, 9, 9], [1, 2, 30, 40], [0, 0, 8, 8]]),
        classes=("red", "green"),
        strides=(8, 16),
        source="squares",
        epoch=2,
        identifiers=("0.png", "3.png", "0.png", "5.png"),
        notes=("green has few objects",),
    ).save(folder / "prototypes.safetensors")


def _read_prototypes(folder: Path, name: str) -> PrototypeSet:
    found = PrototypeSet.load(folder / name)
    found.describe()
    for level in range(len(found.strides)):
        found.of(level, 1)
    return found


def _prototypes_nonsense(found: PrototypeSet, case: Case) -> str:
    labels, levels, boxes = found.labels, found.levels, found.boxes
    whole = all(x.dtype == torch.int64 and x.shape == (len(found),) for x in (labels, levels, found.images))
    if not whole or boxes.shape != (len(found), 4) or found.student.ndim != 2 or found.teacher.ndim != 2:
        return "tensors have other shapes or types than prototypes have"
    if not len(found):
        return "no prototype"
    return first_of(
        bad_names(found.classes),
        not_finite({name: getattr(found, name) for name in ("student", "teacher", "boxes")}),
        "labels out of range" if not 1 <= int(labels.min()) <= int(labels.max()) <= len(found.classes) else "",
        "levels out of range" if not 0 <= int(levels.min()) <= int(levels.max()) < len(found.strides) else "",
        "images below 0" if int(found.images.min()) < 0 else "",
        "boxes without area" if not bool((boxes[:, 2:] > boxes[:, :2]).all()) else "",
        "strides are no whole numbers above 0" if not all(type(x) is int and x > 0 for x in found.strides) else "",
        "the epoch is no whole number" if type(found.epoch) is not int or found.epoch < 0 else "",
        "as many file names as prototypes are expected" if len(found.identifiers) not in (0, len(found)) else "",
        "file names or notes are no text"
        if not all(isinstance(x, str) for x in (*found.identifiers, *found.notes))
        else "",
    )


def _prototypes_content(found: PrototypeSet) -> Any:
    tensors = {name: getattr(found, name) for name in ("student", "teacher", "levels", "labels", "images", "boxes")}
    return digest(tensors), repr(
        [found.classes, found.strides, found.source, found.epoch, found.identifiers, found.notes]
    )


TRAINED = {"epochs": 3, "batch": 2, "optimizer": "adamw", "lr": 1e-3, "flip": 0.0, "warmup": 1, "validation": 0.0}
RETINANET = replace(TINY, detector="retinanet", head_convs=1, norm="frozen", finest=16, proposals=None, sampled=None)


def _detector_settings() -> DetectorSettings:
    return with_values(DetectorSettings(method="plain"), **TRAINED)


def _detector_run(folder: Path) -> None:
    """A training run after two of its three steps."""
    write_coco(folder / "squares")
    kept: Files = {}

    def keep(name: str, **fields: Any) -> None:
        if name == "checkpoint" and fields["step"] == 2:
            kept.update({path.name: path.read_bytes() for path in (folder / "run").glob("checkpoint*.safetensors")})

    _train(folder, events=keep, checkpoint_seconds=0.0)
    for path in (folder / "run").iterdir():
        path.unlink()
    for name, content in kept.items():
        (folder / "run" / name).write_bytes(content)


def _train(folder: Path, **options: Any) -> Path:
    data = open_detection(f"coco:{folder / 'squares'}").train
    return train_detector(RETINANET, data, _detector_settings(), out=folder / "run", **options)


def _resume_detector(folder: Path, name: str) -> dict[str, Tensor]:
    return load_detector(_train(folder, resume=True))[0].state_dict()


def _weights_nonsense(found: dict[str, Tensor], case: Case) -> str:
    reason = broken_state(case.content) if case.content is not None else ""
    return f"went on from a state in which {reason}" if reason else not_finite(found)


def _detector_command_run(folder: Path) -> None:
    write_coco(folder / "squares")
    words = "--detector retinanet --backbone timm:test_efficientnet --channels 8 --min-size 32 --max-size 64 --anchor 8"
    words += " --finest 16 --head-convs 1 --epochs 1 --batch 2 --validation 0 --device cpu"
    command("detector", "train", "coco:squares", "--out", "run", *words.split())
    (folder / "run" / "student.safetensors").unlink()
    named_from_here(folder)


def _resume_detector_command(folder: Path, name: str) -> dict[str, Tensor]:
    command("detector", "train", "--resume", "run")
    return load_detector(folder / "run" / "student.safetensors")[0].state_dict()


def _other_weights(found: dict[str, Tensor], case: Case) -> str:
    return "the run ended with other weights"


DETECTORS: dict[str, Target] = {
    "detector": Target(
        lambda: files_of(_detector_files),
        (".safetensors",),
        _load_detector,
        _detector_content,
        _detector_nonsense,
        share=0.7,
    ),
    "exported student": Target(
        lambda: files_of(_exported), (".safetensors",), _load_detector, _detector_content, _detector_nonsense, share=0.7
    ),
    "detector checkpoint": Target(
        lambda: files_of(_detector_run),
        ("run/checkpoint.safetensors", "run/checkpoint.previous.safetensors"),
        _resume_detector,
        digest,
        _weights_nonsense,
        falls_back=("run/checkpoint.safetensors", "run/checkpoint.previous.safetensors"),
        share=0.4,
    ),
    "detector run.json": Target(
        lambda: files_of(_detector_command_run),
        (MANIFEST,),
        _resume_detector_command,
        digest,
        _other_weights,
        share=0.4,
    ),
    "prototypes": Target(
        lambda: files_of(_prototypes), (".safetensors",), _read_prototypes, _prototypes_content, _prototypes_nonsense
    ),
}
