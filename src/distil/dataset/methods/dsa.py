"""DSA, differentiable siamese augmentation: DC with one augmentation drawn for real and synthetic images."""

from dataclasses import replace

from distil.data.catalog import UPRIGHT
from distil.dataset import config
from distil.dataset.methods import dc
from distil.dataset.methods.method import Method

OPERATIONS = "color_crop_cutout_flip_scale_rotate"


def operations(key: str) -> str:
    """The operations for a data set."""
    return OPERATIONS.replace("_flip", "") if key in UPRIGHT else OPERATIONS


def settings(key: str, ipc: int) -> config.Matching:
    made, augment = dc.settings(key, ipc), operations(key)
    return replace(
        made,
        method="dsa",
        parameterization=config.Grid(init="real"),
        augment=augment,
        networks=replace(made.networks, augment=augment),
    )


METHOD = Method(
    name="dsa",
    title="DSA, differentiable siamese augmentation",
    kind="matching",
    paper="Zhao, Bilen: Dataset Condensation with Differentiable Siamese Augmentation. ICML 2021",
    description="DC with the same augmentation drawn for real and synthetic images, from real images.",
    cost="1 (as DC)",
    settings=settings,
    sources=dc.SOURCES
    | {
        "init": "DSA's readme: --init real",
        "augment": "DSA's readme: color_crop_cutout_flip_scale_rotate; no flip for MNIST and SVHN",
        "network_augment": "DSA's released code: the same operations, drawn image by image",
    },
    published={
        "mnist": (88.7, 97.8, 99.2),
        "fashionmnist": (70.6, 84.6, 88.7),
        "svhn": (27.5, 79.2, 84.4),
        "cifar10": (28.8, 52.1, 60.6),
        "cifar100": (13.9, 32.3, 42.8),
    },
    has_fast=True,
)
