"""Detectors: plain torchvision objects, made from a description that fits in a file's header."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import torch
from torch import nn

from distil.checks import check_class_names, check_statistics, is_finite, is_integer, shown, unprintable
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.lookup import unknown
from distil.networks.backbones import Norm, build_backbone, group_norm, load_strictly
from distil.networks.pretrained import TORCHVISION_DETECTORS, torchvision_detector
from distil.rng import seed_at

__all__ = [
    "TORCHVISION_DETECTORS",
    "Architecture",
    "architecture_from_dict",
    "build_detector",
    "check_architecture",
    "load_detector",
    "save_detector",
    "torchvision_detector",
]

Kind = Literal["faster-rcnn", "retinanet", "fcos"]

KIND = "detector"
VERSION = 1
BODY_STRIDES = (4, 8, 16, 32)
FINEST = {"faster-rcnn": 4, "retinanet": 8, "fcos": 8}
ANCHOR = 32.0
"""Side of torchvision's smallest anchor, in pixels."""
LIMITS = {
    "channels": 4096,
    "min_size": 8192,
    "max_size": 8192,
    "head_convs": 32,
    "representation": 2**16,
    "proposals": 10**5,
    "sampled": 10**5,
}
"""More than these no machine can serve."""
MOST_CLASSES = 10**5
LARGEST_ANCHOR = 8192.0
POINTS_IN_ANCHOR = 4
"""FCOS has points in place of anchors; torchvision gives those of the first level a size of 8 = 32 / 4 pixels."""


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the shape of a detector and how it sees an image, but not its weights."""

    detector: Kind
    """Faster R-CNN (two stages, softmax), RetinaNet or FCOS (one stage, sigmoid)."""
    backbone: str
    """A torchvision network (resnet18, resnet50, mobilenet_v3_large, ...), or a timm network after "timm:"."""
    classes: tuple[str, ...]
    """Names of labels 1, 2, ...; the background is not among them."""
    version: Literal[1, 2] = 1
    """torchvision's heads: 2 are those of its ..._v2 detectors (FCOS has none)."""
    channels: int = 256
    """Channels of every level of the pyramid."""
    min_size: int | tuple[int, ...] = 800
    """Images are resized so that their shorter side has this length in pixels; of several, a random one in training
    and the last otherwise."""
    max_size: int = 1333
    """Largest length of the longer side in pixels; images that would exceed it are made smaller."""
    norm: Norm = "frozen"
    """Norms of the backbone. frozen: for pretrained weights, which then do not depend on the batch; with random ones
    nothing is normalized. group: to train from nothing. batch: needs large batches."""
    finest: int | None = None
    """Stride of the finest level in pixels; None: 4 for Faster R-CNN, 8 for the others. Its coarsest strides stay 64
    (Faster R-CNN) and 128."""
    anchor: float | None = None
    """Side of the smallest anchor in pixels of the resized image, doubled from level to level; None: 32. Lower it for
    small images. FCOS has points: on a level whose anchors would have side a, they answer for objects of about 2 a to
    4 a, on the finest level for all smaller ones too, on the coarsest for all larger ones."""
    head_convs: int = 4
    """3x3 convolutions in each tower of RetinaNet and FCOS, and in the box head of Faster R-CNN version 2."""
    representation: int = 1024
    """Length of Faster R-CNN's vector of a box."""
    proposals: int | None = None
    """Boxes of an image that Faster R-CNN's first stage hands to its second; None: torchvision's 2000 in training and
    1000 otherwise. Lower it for small images."""
    sampled: int | None = None
    """So many of them train the second stage, a quarter of them objects; None: 512."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted from the channels of images in [0, 1]."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """What they are then divided by."""


def build_detector(architecture: Architecture, *, seed: int, backbone_weights: Path | str | None = None) -> Any:
    """A plain torchvision FasterRCNN, RetinaNet or FCOS on the CPU, in training mode.

    Its random weights depend on (seed, detector, backbone) alone and torch's global generator is left as it was.
    backbone_weights: those of the backbone as a classifier of images: None for random ones, "download", or a
    .safetensors file with torchvision's or timm's names. As in torchvision, detectors have one class more than
    `classes`: label 0, the background, which RetinaNet and FCOS never train.

    Raises: DistilError on an architecture that cannot be built and on weights that do not fit.
    Source: Ren et al. 2015, Lin et al. 2017 (FPN, RetinaNet), Tian et al. 2019 (FCOS), in torchvision's modules.
    """
    check_architecture(architecture)
    make = MAKERS[architecture.detector]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_at(seed, "detector", architecture.detector, architecture.backbone))
        return make(architecture, backbone_weights)


def check_architecture(architecture: Architecture) -> None:
    """Refuse what cannot be built.

    Raises: DistilError that names the field, its value and what is accepted.
    """
    _check_fields(architecture)


def _check_fields(a: Any) -> None:
    """Refuse what cannot be built, whatever the types of the fields."""
    if a.detector not in get_args(Kind):
        raise unknown("detector", a.detector, get_args(Kind), field="detector")
    if not isinstance(a.backbone, str) or len(a.backbone) > 200 or unprintable(a.backbone):
        raise DistilError(
            f"{{backbone}} is {shown(a.backbone)}: give the name of a network, as resnet50.", field="backbone"
        )
    if not a.classes:
        raise DistilError("a detector needs at least one class: classes is empty.", field="classes")
    check_class_names(a.classes, repeatable=("N/A",))  # COCO's numbers without a class
    if len(a.classes) > MOST_CLASSES:
        raise DistilError(f"there are {len(a.classes)} classes: at most {MOST_CLASSES} are possible.")
    if not is_integer(a.version) or a.version not in (1, 2) or (a.detector == "fcos" and a.version == 2):
        raise DistilError(
            f"{a.detector} has no version {shown(a.version)}: torchvision's FCOS has version 1, the others 1 and 2."
        )
    if a.norm not in get_args(Norm):
        raise unknown("norm", a.norm, get_args(Norm), field="norm")
    if a.finest is not None and (not is_integer(a.finest) or a.finest not in BODY_STRIDES):
        raise DistilError(
            f"{{finest}} is {shown(a.finest)}: choose a stride from {', '.join(map(str, BODY_STRIDES))}.",
            field="finest",
        )
    if not isinstance(a.min_size, tuple) and not is_integer(a.min_size):
        raise DistilError(f"{{min_size}} is {shown(a.min_size)}: give a whole number, or several.", field="min_size")
    for what, value in (
        ("channels", a.channels),
        *(("min_size", size) for size in _sizes(a) or (0,)),
        ("max_size", a.max_size),
        ("head_convs", a.head_convs),
        ("representation", a.representation),
        ("proposals", a.proposals),
        ("sampled", a.sampled),
    ):
        if value is None and what in ("proposals", "sampled"):
            continue
        if not is_integer(value):
            raise DistilError(f"{{{what}}} is {shown(value)}: it must be a whole number.", field=what)
        if value < 1:
            raise DistilError(f"{{{what}}} is {shown(value)}: it must be at least 1.", field=what)
        if value > LIMITS[what]:
            raise DistilError(f"{{{what}}} is {shown(value)}: it must be at most {LIMITS[what]}.", field=what)
    grouped = a.detector == "fcos" or (a.detector == "retinanet" and a.version == 2)
    if grouped and (a.channels % 32 or a.channels < 64):  # with one channel in a group a single cell has no norm
        raise DistilError(
            f"{{channels}} is {a.channels}: the head's 32 groups need a multiple of 32, at least 64.", field="channels"
        )
    if a.detector == "retinanet" and a.head_convs > 4:
        raise DistilError(
            f"{{head_convs}} is {a.head_convs}: torchvision's RetinaNet has at most 4.", field="head_convs"
        )
    numbers = all(isinstance(x, tuple) and len(x) == 3 and all(map(is_finite, x)) for x in (a.mean, a.std))
    if not numbers or min(a.std) <= 0:
        raise DistilError(
            f"mean {shown(a.mean)} and std {shown(a.std)} must have 3 numbers each, those of std above 0."
        )
    check_statistics(a.mean, a.std, 3)
    if a.anchor is not None and (not is_finite(a.anchor) or a.anchor < 2):
        raise DistilError(
            f"{{anchor}} is {shown(a.anchor)}: the smallest anchor must have a side of at least 2 pixels.",
            field="anchor",
        )
    if _anchor(a) > LARGEST_ANCHOR:
        raise DistilError(
            f"{{anchor}} is {shown(a.anchor)}: the smallest anchor's side must be at most {LARGEST_ANCHOR:g} pixels.",
            field="anchor",
        )
    if a.detector == "fcos" and 3 * _anchor(a) / POINTS_IN_ANCHOR <= _strides(a)[0]:
        raise DistilError(
            f"{{anchor}} is {_anchor(a):g}: with points every {_strides(a)[0]} pixels some objects would have none "
            f"near their center. Give more than {POINTS_IN_ANCHOR * _strides(a)[0] / 3:.3g}, or a smaller {{finest}}.",
            field=("anchor", "finest"),
        )


def save_detector(
    model: nn.Module, architecture: Architecture, path: Path | str, *, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a detector's weights and architecture as one safetensors file, atomically.

    extra: anything else that JSON can hold, which `load_detector` gives back.
    Raises: DistilError when the path cannot be written.
    """
    header = {"kind": KIND, "version": VERSION, "architecture": asdict(architecture), "extra": dict(extra or {})}
    save_tensors(path, model.state_dict(), header)


def load_detector(path: Path | str) -> tuple[Any, Architecture, dict[str, Any]]:
    """What save_detector wrote: the detector on the CPU in eval mode, its architecture, and `extra`.

    Raises: DistilError that names the file when it is missing, cut short, damaged or no detector, when its architecture
    cannot be built, and when a weight is missing, left over, of another shape or not finite.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != KIND:
        kind = shown(header["kind"])[1:-1] if isinstance(header.get("kind"), str) else "something else"
        raise DistilError(f"{path} holds no detector but {kind}: give another file.")
    if header.get("version") != VERSION:
        raise DistilError(f"{path} was made by another version of distil: make it again with this one.")
    extra = header.get("extra", {})
    if not isinstance(extra, dict):
        raise DistilError(
            f"{path}: extra is {shown(extra)}, expected an object. Copy the file again, or make it again."
        )
    try:
        architecture = architecture_from_dict(header.get("architecture"))
        outline = _outline(architecture)
    except DistilError as error:
        raise DistilError(f"{path}: {error}") from error
    load_strictly(outline, tensors, path)
    model = build_detector(architecture, seed=0)
    load_strictly(model, tensors, path)
    return model.eval(), architecture, extra


def _outline(architecture: Architecture) -> nn.Module:
    """The detector without memory for its weights, so that a file's weights can be compared with it first."""
    try:
        with torch.device("meta"):
            return build_detector(architecture, seed=0)
    except NotImplementedError as error:  # a network that reads its weights while it is built
        raise DistilError(f"{architecture.backbone} cannot be a backbone ({error}).") from error


def architecture_from_dict(values: Any) -> Architecture:
    """The architecture that `dataclasses.asdict` and JSON made a dict of.

    Raises: DistilError if it is no dict, a field is missing or unknown to this version, or has a value that cannot be
    built.
    """
    if not isinstance(values, Mapping):
        raise DistilError(f"the architecture is {shown(values)}: expected a value for each of its fields.")
    known = {field.name for field in fields(Architecture)}
    if unknown := sorted(map(str, set(values) - known)):
        raise DistilError(f"unknown field {shown(unknown[0])} of an architecture: another version of distil wrote it.")
    if missing := [name for name in ("detector", "backbone", "classes") if name not in values]:
        raise DistilError(f"an architecture without {missing[0]!r} cannot be built: give it.")
    restored: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
    defaults = {field.name: field.default for field in fields(Architecture)}
    _check_fields(SimpleNamespace(**{**defaults, **restored}))
    return Architecture(**restored)


def _faster_rcnn(a: Architecture, weights: Path | str | None) -> nn.Module:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    strides, side = _strides(a), 7
    head_norm = None if a.version == 1 else (group_norm if a.norm == "group" else nn.BatchNorm2d)
    backbone = build_backbone(
        a.backbone,
        strides,
        channels=a.channels,
        norm=a.norm,
        extra="pool",
        pyramid_norm=head_norm,
        weights=weights,
    )
    scales = tuple((_anchor(a) * 2**i,) for i in range(len(strides) + 1))
    anchors = AnchorGenerator(scales, ((0.5, 1.0, 2.0),) * len(scales))
    if a.version == 1:
        box_head: nn.Module = TwoMLPHead(a.channels * side**2, a.representation)
    else:
        widths = [a.channels] * a.head_convs
        box_head = FastRCNNConvFCHead((a.channels, side, side), widths, [a.representation], norm_layer=head_norm)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(a.channels, anchors.num_anchors_per_location()[0], conv_depth=a.version),
        box_roi_pool=MultiScaleRoIAlign([str(i) for i in range(len(strides))], side, 2),
        box_head=box_head,
        box_predictor=FastRCNNPredictor(a.representation, len(a.classes) + 1),
        **proposing(a),
        **seeing(a),
    )


def _retinanet(a: Architecture, weights: Path | str | None) -> nn.Module:
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNetHead

    strides = _strides(a)
    extra = "pyramid" if a.version == 1 else "body"
    backbone = build_backbone(a.backbone, strides, channels=a.channels, norm=a.norm, extra=extra, weights=weights)
    sides = [_anchor(a) * 2**i for i in range(len(strides) + 2)]
    scales = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides)
    anchors = AnchorGenerator(scales, ((0.5, 1.0, 2.0),) * len(scales))
    norm = None if a.version == 1 else partial(nn.GroupNorm, 32)
    head = RetinaNetHead(a.channels, anchors.num_anchors_per_location()[0], len(a.classes) + 1, norm_layer=norm)
    for tower in (head.classification_head, head.regression_head):
        tower.conv = tower.conv[: a.head_convs]
    if a.version == 2:
        head.regression_head._loss_type = "giou"
    return RetinaNet(backbone, len(a.classes) + 1, anchor_generator=anchors, head=head, **seeing(a))


def _fcos(a: Architecture, weights: Path | str | None) -> nn.Module:
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSHead

    strides = _strides(a)
    backbone = build_backbone(a.backbone, strides, channels=a.channels, norm=a.norm, extra="pyramid", weights=weights)
    sizes = tuple((_anchor(a) / POINTS_IN_ANCHOR * 2**i,) for i in range(len(strides) + 2))
    points = AnchorGenerator(sizes, ((1.0,),) * len(sizes))
    head = FCOSHead(a.channels, 1, len(a.classes) + 1, a.head_convs)
    return FCOS(backbone, len(a.classes) + 1, anchor_generator=points, head=head, **seeing(a))


MAKERS = {"faster-rcnn": _faster_rcnn, "retinanet": _retinanet, "fcos": _fcos}


def _strides(a: Any) -> tuple[int, ...]:
    """Strides of the levels that are made of the backbone's own maps."""
    finest = FINEST[a.detector] if a.finest is None else a.finest
    return tuple(stride for stride in BODY_STRIDES if stride >= finest)


def _anchor(a: Any) -> float:
    return ANCHOR if a.anchor is None else a.anchor


def _sizes(a: Any) -> tuple[int, ...]:
    return (a.min_size,) if isinstance(a.min_size, int) else tuple(a.min_size)


def proposing(a: Architecture) -> dict[str, int]:
    """Arguments of torchvision's two stages; none where its own are wanted."""
    names = [f"rpn_{when}_nms_top_n_{mode}" for when in ("pre", "post") for mode in ("train", "test")]
    values = dict.fromkeys(names, a.proposals) if a.proposals else {}
    return values | ({"box_batch_size_per_image": a.sampled} if a.sampled else {})


def seeing(a: Architecture) -> dict[str, Any]:
    """Arguments of torchvision's transform."""
    mean, std = list(a.mean), list(a.std)
    return {"min_size": _sizes(a), "max_size": a.max_size, "image_mean": mean, "image_std": std}
