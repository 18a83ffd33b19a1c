"""Settings of detector training and distillation by name, with their sources. Nothing here imports torch."""

from typing import Any

from distil.detector.settings import DetectorSettings, Distillation
from distil.fields import with_values
from distil.lookup import chosen

DETECTOR_METHODS: dict[str, str] = {
    "plain": "No teacher: the detector's own losses.",
    "gkd": "Global knowledge: prototypes, reliability, global, local and soft-label terms, weighed as we found best.",
    "gkd-published": "The same with the published weights, which fall to zero, the global term on every level, and the "
    "released code's masks, box levels and sums.",
    "gkd-released": "Global knowledge as the released code really runs: its settings never reach the global term.",
}
"""What each preset is."""

DETECTOR_SOURCES: dict[str, str] = {
    "epochs": "24, the 2x schedule of Distilling Object Detectors With Global Knowledge (ECCV 2022), released code",
    "batch": "released code: 16",
    "optimizer": "released code: SGD",
    "lr": "released code: 0.02",
    "momentum": "released code: 0.9",
    "weight_decay": "released code: 1e-4",
    "milestones": "released code: epochs 16 and 22 of 24",
    "warmup": "released code: 500 steps",
    "decay": "released code",
    "reliability": "the paper's 1 - |q^s - q^t|",
    "use_global": "the paper's term; the released code's settings never reach it",
    "global_levels": "released code: every level",
    "loss_form": "released code: levels of boxes, masks, sums over the levels of one-stage detectors",
    "adapting_kernel": "released code: 3 x 3 convolutions",
    "penalty": "summaries of the paper: lambda = 10; not used by the projection cosine",
    "global_weight": "released code: 5 x (1 - epoch / epochs)",
    "foreground_weight": "released code: 1 x (1 - epoch / epochs)",
    "background_weight": "released code: 4 x (1 - epoch / epochs)",
    "soft_weight": "released code: 1",
    "temperature": "released code: 2",
    "prototype_count": "released code: 10 of each class and level, chosen anew before every epoch",
    "prototype_alpha": "released code: 10",
    "prototype_quantile": "released code: 0.4",
    "prototype_bandwidth": "released code: 0.1",
    "prototype_images": "released code: 800 images of a class",
    "prototype_side": "released code: 30 pixels",
    "prototype_start": "ours: the released student starts from a finished detector, ours from nothing",
    "local_scale": "ours: raw features of a teacher without norms drown the student's losses; gkd-released has raw",
    "prototype_features": "ours: a pass over the images costs about half an epoch; gkd-released makes it",
    "projection": "released code: cosine (summaries of the paper speak of a pursuit)",
}
"""Sources of the published values, and of ours where there are none."""

OURS: dict[str, Any] = {
    "global_levels": "own",
    "global_weight": 1.0,
    "foreground_weight": 2.0,
    "background_weight": 8.0,
    "decay": False,
    "loss_form": "distil",
}
"""What gkd has in place of the published values."""

OURS_SOURCES: dict[str, str] = {
    "global_levels": "ours: coarse levels, to which no object belongs, outweigh the others; published: all",
    "global_weight": "ours: 5 outweighs the student's own losses; published: 5",
    "foreground_weight": "ours (docs/results/detector.md); published: 1",
    "background_weight": "ours (docs/results/detector.md); published: 4",
    "decay": "ours (docs/results/detector.md); published: weights fall to zero",
    "loss_form": "ours (docs/detector.md): one weight serves every pair of detectors; published: the released code's",
}

FROM_NOTHING: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "milestones": (0.7, 0.9),
    "warmup": 50,
    "clip": 10.0,
}
"""Ours, for small detectors that begin with random weights."""

SCENES: dict[str, Any] = {
    **FROM_NOTHING,
    "epochs": 12,
    "batch": 16,
    "flip": 0.0,
    "prototype_side": 12.0,
    "prototype_images": 200,
    "prototype_every": 2,
}
"""Ours, sized for two CPU cores: digits are never mirrored, and images are 128 pixels wide."""


SCRATCH: dict[str, Any] = {
    **FROM_NOTHING,
    "epochs": 24,
    "batch": 8,
    "color": 0.2,
    "scale": (0.8, 1.25),
    "prototype_side": 12.0,
}
"""For other data without pretrained weights: what blood cells were measured with (docs/results/detector.md)."""


def detector_preset(method: str, key: str) -> DetectorSettings:
    """The settings of a method. key: "scenes"; "custom" for any other data, with pretrained weights; or "scratch" for
    any other data and random weights.

    Raises: DistilError on an unknown method, with the nearest name.
    """
    chosen("method", method, DETECTOR_METHODS, field="method")
    values = {"scenes": SCENES, "scratch": SCRATCH}.get(key, {})
    if method == "plain":
        return with_values(DetectorSettings(method=method), **values)
    settings = with_values(DetectorSettings(method=method, distillation=Distillation(loss_form="published")), **values)
    if method == "gkd-released":
        return with_values(settings, use_global=False, local_scale="raw", prototype_start=0)
    changes = OURS if method == "gkd" else {}
    return with_values(settings, local_scale="teacher", prototype_features="training", **changes)


def student_preset(detector: str, key: str, *, teacher: bool) -> dict[str, Any]:
    """Fields of an architecture that suit the data. teacher: for a detector that is trained alone.

    key: as of detector_preset. For scenes: small networks from random weights. With "scratch" the same, and min_size,
    max_size and anchor are None, to be taken from the data (`distil.detector.sizes`). With "custom" torchvision's own
    (ResNet-50, 800 pixels).
    """
    values: dict[str, Any] = {"detector": detector}
    if key in ("scenes", "scratch"):
        values |= {"backbone": "timm:resnet10t" if teacher else "timm:test_resnet", "norm": "group"}
        values |= {"channels": 64 if teacher or detector == "fcos" else 48, "head_convs": 1}
        values |= {"representation": 256 if teacher else 128}
    if key == "scenes":
        values |= {"min_size": 128, "max_size": 128, "anchor": 16.0}
    if key == "scratch":
        values |= {"min_size": None, "max_size": None, "anchor": None, "proposals": 300, "sampled": 128}
    return values
