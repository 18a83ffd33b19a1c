"""torchvision's own trained detectors, from its servers or from a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.errors import DistilError
from distil.lookup import chosen
from distil.networks.backbones import download, load_strictly, read_weights, replace_norms
from distil.rng import seed_at

TORCHVISION_DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)
PLAIN_NORMS = ("fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2")
"""Detectors that torchvision trained with batch norms; those of the others were frozen."""
WITHOUT_EPSILON = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Detectors whose weights torchvision made, and uses, with an epsilon of 0 in their frozen batch norms."""


def torchvision_detector(
    name: str, weights: Path | str | None, *, classes: Sequence[str] | None = None, seed: int = 0
) -> tuple[Any, tuple[str, ...]]:
    """One of torchvision's detectors on the CPU in eval mode, and the names of its classes 1, 2, ...

    name: one of TORCHVISION_DETECTORS. weights: "download" for torchvision's weights of COCO; a .safetensors file with
    torchvision's names, as its weights converted or a detector fine-tuned from them; None for random weights, drawn at
    the seed's address. classes: names of the classes that the weights know, where they are not COCO's 90. COCO's
    numbers without a class are named "N/A".

    Raises: DistilError on an unknown name, weights that do not fit or are pickled, and classes that are not as many as
    the weights know.
    """
    from torchvision.models import get_model, get_model_weights
    from torchvision.models.detection._utils import overwrite_eps

    chosen("detector", name, TORCHVISION_DETECTORS)
    coco = tuple(get_model_weights(name).DEFAULT.meta["categories"][1:])  # pyright: ignore[reportAttributeAccessIssue]
    names = coco if classes is None else tuple(classes)
    tensors = None if weights in (None, "download") else read_weights(weights)
    known = len(coco) if weights == "download" else len(names) if tensors is None else _class_count(tensors, weights)
    if known != len(names):
        raise DistilError(
            f"the weights in {weights} know {known} classes, but {len(names)} names are given"
            f"{' (those of COCO)' if classes is None else ''}. Give the {known} names with `classes`."
        )
    if weights == "download":
        return download(name, lambda: get_model(name, weights="DEFAULT")).eval(), names
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_at(seed, "detector", name))
        model: Any = get_model(name, weights=None, weights_backbone=None, num_classes=known + 1)
    if tensors is not None:
        if name not in PLAIN_NORMS:
            replace_norms(model, "frozen")
        load_strictly(model, tensors, str(weights))
        if name in WITHOUT_EPSILON:
            overwrite_eps(model, 0.0)
    return model.eval(), names


def _class_count(tensors: dict[str, Tensor], path: Path | str | None) -> int:
    """Classes that a file's weights know, without the background, from the shapes of its last layers."""
    scores = tensors.get("roi_heads.box_predictor.cls_score.weight")
    if scores is not None and scores.ndim == 2 and len(scores) > 1:
        return len(scores) - 1
    logits = tensors.get("head.classification_head.cls_logits.weight")
    boxes = tensors.get("head.regression_head.bbox_reg.weight")
    if logits is None or boxes is None or logits.ndim != 4 or boxes.ndim != 4 or len(boxes) < 4:
        raise DistilError(f"{path} holds no detector with torchvision's names of weights: give another file.")
    return len(logits) // (len(boxes) // 4) - 1
