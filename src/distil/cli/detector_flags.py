"""Flags of the commands on detectors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from distil.cli.flags import Device, option, switch
from distil.cli.settings_flags import flag_class
from distil.detector.presets import DETECTOR_METHODS
from distil.detector.settings import DetectorSettings
from distil.fields import leaves

DetectorKind = Literal["faster-rcnn", "retinanet", "fcos"]
KINDS: tuple[DetectorKind, ...] = get_args(DetectorKind)
SEVERAL = {"--scale": 2, "--milestones": None, "--losses": None}
"""Flags of several values, and how many; None: any number."""
SourceWord = Annotated[
    str,
    arg(metavar="SOURCE", help="Images with boxes: scenes, coco:FOLDER, voc:FOLDER, yolo:FOLDER, or such a folder."),
]
ModelWord = Annotated[
    str, arg(metavar="MODEL", help="A run folder, a .safetensors file of distil, or torchvision:NAME.")
]
Root = Annotated[Path | None, option("DIR", "Folder that a relative SOURCE lies in.")]
FixBoxes = Annotated[FlagCreatePairsOff[bool], switch("Clip boxes that reach outside their image, drop empty ones.")]
Download = Annotated[FlagCreatePairsOff[bool], switch("Fetch pretrained weights that are named.")]
MemoryCheck = Annotated[bool, arg(help="Refuse a step for which memory will not suffice, before the first one.")]
Split = Annotated[Literal["train", "val", "test"], arg(help="Which images of SOURCE.")]


def from_data(help: str) -> Any:
    """How tyro shows a flag whose default may depend on the data, and is then None."""
    return arg(
        metavar="PIXELS",
        help=help,
        help_behavior_hint=lambda default: "(from the data)" if default == "None" else f"(default: {default})",
    )


@dataclass(frozen=True)
class StudentFlags:
    """The detector that is trained."""

    detector: DetectorKind = "faster-rcnn"
    """Kind of the detector."""
    backbone: str = "resnet50"
    """A torchvision network (resnet18, resnet50, mobilenet_v3_large, ...), or a timm network after timm:."""
    pretrained: Annotated[
        str | None, option("FILE", "The backbone's first weights: a .safetensors file, or download.")
    ] = None
    head: Literal[1, 2] = 1
    """torchvision's heads: 2 are those of its ..._v2 detectors."""
    channels: int = 256
    """Channels of the feature pyramid."""
    min_size: Annotated[int | None, from_data("Shorter side of the resized image.")] = 800
    max_size: Annotated[int | None, from_data("Its longest side.")] = 1333
    norm: Literal["frozen", "batch", "group"] = "frozen"
    """Norms of the backbone. frozen needs pretrained weights; group trains from nothing."""
    finest: Annotated[int | None, option("STRIDE", "Stride of the finest level; the detector's own unless given.")] = (
        None
    )
    anchor: Annotated[float | None, from_data("Side of the smallest anchor.")] = 32.0
    head_convs: int = 4
    """Convolutions in each tower of a one-stage head."""
    representation: int = 1024
    """Length of Faster R-CNN's vector of a box."""
    proposals: Annotated[int | None, option("N", "Boxes from its first stage; 2000 unless given (1000 to test).")] = (
        None
    )
    sampled: Annotated[int | None, option("N", "Of them train its second stage; 512 unless given.")] = None


@dataclass(frozen=True)
class DataFlags:
    """Where images and models come from."""

    root: Root = None
    fix_boxes: FixBoxes = False
    download: Download = False
    device: Device = "auto"
    memory_check: MemoryCheck = True


@dataclass(frozen=True)
class PlaceFlags(DataFlags):
    """Where images come from and results go."""

    out: Annotated[Path | None, option("DIR", "Run folder; runs/SOURCE-METHOD-DETECTOR-seedS unless given.")] = None
    checkpoint_seconds: float = 120.0
    """Time between checkpoints."""


@dataclass(frozen=True)
class RunFlags(PlaceFlags):
    """Where images come from and results go, of a run that can be continued."""

    resume: Annotated[Path | None, option("DIR", "Continue the run in this folder; takes no SOURCE or settings.")] = (
        None
    )


@dataclass(frozen=True)
class TrainFlags(RunFlags):
    """Where images come from and results go, where no teacher has to be fetched."""

    download: tyro.conf.Suppress[tyro.conf.Fixed[bool]] = False


MethodWord = Annotated[
    str, arg(metavar="NAME", help=f"Whose values the settings start from: {', '.join(DETECTOR_METHODS)}.")
]
METAVARS = {"loss": "LOSSES"}
PLAIN, COMPARED, TAUGHT = "alone", "compared", "taught"


def settings_class(settings: DetectorSettings, use: str) -> type:
    """A dataclass of the settings as flags: of a detector that is trained alone, of students that are compared, whose
    losses another flag names, or of one student of a teacher."""
    hidden = {"method"}
    if use == COMPARED:
        hidden.add("loss")
    if use == PLAIN:
        hidden |= {leaf.name for leaf in leaves(settings.distillation)}
    return flag_class(settings, hidden, METAVARS)
