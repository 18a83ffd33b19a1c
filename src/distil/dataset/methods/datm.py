"""DATM: trajectories of the difficulty that the number of images can hold, with learned labels."""

from dataclasses import replace

from distil.dataset import config
from distil.dataset.methods import mtt
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import OWN
from distil.dataset.methods.trajectories import SOURCES, fast, nearest_ipc

RANGES = {
    "cifar10": {1: (0, 4, 4), 10: (0, 10, 20), 50: (0, 20, 40)},
    "cifar100": {1: (0, 10, 20), 10: (0, 30, 50), 50: (20, 70, 70)},
}
"""(first epoch, last epoch at first, last epoch at the end) at which students start."""


def settings(key: str, ipc: int) -> config.Trajectory:
    nearest, base = nearest_ipc(ipc), mtt.settings("cifar10" if key == "digits" else key, ipc)
    start, first, last = RANGES.get(key, RANGES["cifar10"])[nearest]
    made = replace(
        base,
        method="datm",
        parameterization=config.Grid(factor=1, init="real", init_from="recognized"),
        labels=config.LearnedLabels(label_lr={1: 2.0, 10: 5.0, 50: 10.0}[nearest], label_momentum=0.9),
        student_steps=80,
        span=2,
        start_from=start,
        start_to_first=first,
        start_to=last,
        skip_above=1.0,
        experts=replace(base.experts, epochs=max(50, last + 10)),
    )
    return _for_digits(made) if key == "digits" else made


def _for_digits(made: config.Trajectory) -> config.Trajectory:
    short = fast(made)
    experts = replace(mtt.settings("digits", 1).experts, runs=5)
    return replace(short, width=32, steps=200, student_steps=10, experts=experts, augment=experts.augment)


METHOD = Method(
    name="datm",
    title="DATM, difficulty-aligned trajectory matching",
    kind="matching",
    paper="Guo et al.: Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching. ICLR 2024",
    description="MTT with segments of training that are as late as the number of images allows, images that experts "
    "recognize to begin with, and labels that begin as the experts' predictions and are learned.",
    cost="as MTT's, with 80 updates a step",
    settings=settings,
    sources=SOURCES
    | {
        "init_from": "DATM's released code: images that experts recognize",
        "labels": "DATM: soft labels, learned",
        "label_lr": f"DATM's released code: 2 to 10; {OWN} within that",
        "label_momentum": "DATM's released code: 0.9",
        "student_steps": "DATM's released code: 80",
        "span": "DATM's released code: 2",
        "start_from": "DATM's released code",
        "start_to": f"DATM's released code; CIFAR-100 at 1 image per class: {OWN}",
        "start_to_first": "DATM's released code: grows over the run",
        "skip_above": "DATM's released code: a step with a loss above 1 is skipped",
        "expert_epochs": f"{OWN}: ten beyond the last at which students start, at least 50",
    },
    published={"cifar10": (46.9, 66.8, 76.1), "cifar100": (27.9, 47.2, 55.0)},
    has_fast=True,
)
