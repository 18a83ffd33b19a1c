"""FreD: trajectory matching of images that are few DCT coefficients each, at frequencies chosen by variance."""

from dataclasses import replace

from distil.dataset import config
from distil.dataset.methods import mtt
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import OWN
from distil.dataset.methods.trajectories import SOURCES, nearest_ipc


def by_ipc(key: str, ipc: int) -> tuple[int, int]:
    """(student's updates, epochs at which students start), as published; those of CIFAR-10 for other color."""
    nearest = nearest_ipc(ipc)
    if key in ("mnist", "fashionmnist"):
        return {1: (50, 5), 10: (30, 15), 50: (60, 15)}[nearest]
    if key == "cifar100":
        return {1: (50, 15), 10: (20, 40), 50: (80, 40)}[nearest]
    return {1: (50, 5), 10: (40 if key != "svhn" else 30, 15), 50: (30 if key != "svhn" else 40, 40)}[nearest]


def settings(key: str, ipc: int) -> config.Trajectory:
    base, (updates, first) = mtt.settings(key, ipc), by_ipc(key, ipc)
    made = replace(base, method="fred", parameterization=config.Fred())
    if key == "digits":
        return replace(made, parameterization=config.Fred(images=4))
    nearest = nearest_ipc(ipc)
    return replace(
        made,
        student_steps=updates,
        start_to=first - 1,
        student_lr=1e-3 if nearest == 50 else 1e-2,
        student_lr_lr=1e-7 if nearest == 1 and key != "cifar100" else 1e-5,
        optimizer=replace(base.optimizer, lr_space="pixel"),
    )


METHOD = Method(
    name="fred",
    title="FreD, frequency domain-based distillation",
    kind="matching",
    paper="Shin et al.: Frequency Domain-based Dataset Distillation. NeurIPS 2023",
    description="MTT of 16 images an item, each a few DCT coefficients at the frequencies that vary most in its class, "
    "the same for all color channels.",
    cost="as MTT's, with 16 times as many images",
    settings=settings,
    sources=SOURCES
    | {
        "parameterization": "FreD: coefficients at the frequencies that vary most",
        "images": "FreD's released code: 64 coefficients a channel for CIFAR-10, so 16 images in the numbers of one",
        "bits": f"{OWN}: FreD counts numbers, of four bytes each; an item of ours has the bytes of one real image",
        "student_steps": "FreD's released code: syn_steps",
        "span": "FreD's released code: expert_epochs 2",
        "start_to": "FreD's released code: max_start_epoch, which is not reached itself",
        "student_lr": "FreD's released code: lr_teacher",
        "student_lr_lr": "FreD's released code: lr_lr",
        "lr": f"{OWN}, as MTT's: not taken from FreD",
        "lr_space": "FreD learns coefficients",
    },
    has_fast=True,
)
