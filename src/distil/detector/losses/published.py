"""Weights and levels with which the authors of the losses released them: the one place of each.

They belong to `loss_form` "published"; the losses' own arguments have those of "distil". Which a pair of detectors
gets depends on its kinds: "two-stage", "retinanet" or "fcos"; a one-stage detector of another kind counts as RetinaNet.
"""

from typing import Any

from distil.detector.losses.maps import Kind, Pyramids, kind_of

FOUR = 4
"""PKD, and FGD and MGD of two-stage students, leave the fifth of the pyramid's levels out."""

PKD_ONE_STAGE, PKD = 10.0, 6.0
"""Of each level; between two one-stage detectors, and otherwise. Source: mmrazor's configs/distill/mmdet/pkd (Faster
R-CNN 6, Mask R-CNN to RetinaNet 6, RetinaNet, RepPoints and FCOS to RetinaNet 10)."""

FGD: dict[Kind, dict[str, float]] = {
    "two-stage": {"foreground": 5e-5, "background": 2.5e-5, "attention": 5e-5, "context": 5e-7, "temperature": 0.5},
    "retinanet": {"foreground": 1e-3, "background": 5e-4, "attention": 5e-4, "context": 5e-6, "temperature": 0.5},
    "fcos": {"foreground": 1.6e-3, "background": 8e-4, "attention": 8e-4, "context": 8e-6, "temperature": 0.8},
}
"""Of each level, by the student's kind. Source: configs/distillers/fgd of FGD's code."""

MGD: dict[Kind, dict[str, float]] = {
    "two-stage": {"weight": 5e-7, "masked": 0.45},
    "retinanet": {"weight": 2e-5, "masked": 0.65},
    "fcos": {"weight": 2e-5, "masked": 0.65},
}
"""Of each level, by the student's kind. Source: det/configs/distillers/mgd of MGD's code; FCOS has no settings there
and gets RetinaNet's."""

DEFEAT = {"foreground": 3.0, "background": 12.0}
"""Of the mean over levels. Source: DeFeat's code, Faster R-CNN on VOC, its only settings."""

CROSSKD: dict[Kind, dict[str, Any]] = {
    "retinanet": {"class_weight": 1.0, "box_weight": 1.0, "reused": 1},
    "fcos": {"class_weight": 0.4, "box_weight": 0.75, "reused": 2},
}
"""By the teacher's kind. Source: configs/crosskd of CrossKD's code, whose heads have four blocks: that of RetinaNet
shares all but three of them, that of FCOS all but two."""


def first_levels(pyramids: Pyramids, count: int) -> Pyramids:
    """The `count` finest of the common levels."""
    levels, strides = pyramids.levels[:count], pyramids.strides[:count]
    return Pyramids(pyramids.student_channels, pyramids.teacher_channels, levels, strides)


__all__ = ["kind_of"]
