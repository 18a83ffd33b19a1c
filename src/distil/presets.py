"""METHODS: what each method is and its published settings, every number with its source. Nothing here imports torch."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from distil.errors import DistilError
from distil.settings import CoresetSettings, MatchingSettings, Settings

DATASETS = ("mnist", "fashionmnist", "svhn", "cifar10", "cifar100", "digits")
"""Data sets with settings of their own; any other source uses those of CIFAR-10 (colour or larger) as "custom"."""

CLASSES = {"cifar100": 100}

DSA_OPERATIONS = "color_crop_cutout_flip_scale_rotate"
UPRIGHT = ("mnist", "svhn", "digits")
"""Digits: a mirrored one is another sign, so nothing is flipped."""

Accuracies = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Method:
    """One entry of METHODS."""

    name: str
    title: str
    kind: str
    """"coreset" (chooses real images) or "matching" (learns canvases)."""
    paper: str
    description: str
    cost: str
    """What a run costs, in words."""
    settings: Callable[[str, int], Settings] = field(repr=False)
    """(data set, images per class) -> settings."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each setting that the method fixes comes from."""
    published: dict[str, Accuracies] = field(default_factory=dict)
    """Test accuracy (%) with ConvNet-3 at 1, 10 and 50 images per class, as published."""


def source_key(spec: str) -> str:
    """Which data set's settings a SOURCE word means, without opening it: a name in DATASETS, or "custom"."""
    word = spec.lower()
    if word in DATASETS:
        return word
    stem = PurePath(word).stem
    stem = "svhn" if stem == "svhn_small" else stem
    return stem if word.endswith(".npz") and stem in DATASETS else "custom"


def preset(method: str, key: str, ipc: int) -> Settings:
    """The settings of a method for a data set and a number of images per class.

    key: a name in DATASETS, or "custom". Raises: DistilError on an unknown method, with the nearest name.
    """
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DistilError(f"unknown method {method!r}.{hint} Methods: {', '.join(METHODS)}.")
    if ipc < 1:
        raise DistilError(f"--ipc is {ipc}: ask for at least 1 image per class.")
    return METHODS[method].settings(key, ipc)


def _coreset(rule: str) -> Callable[[str, int], CoresetSettings]:
    def settings(key: str, ipc: int) -> CoresetSettings:
        width = 32 if key == "digits" else 128
        return CoresetSettings(method=rule, ipc=ipc, width=width)  # pyright: ignore[reportArgumentType]

    return settings


def _dc_loops(ipc: int) -> tuple[int, int]:
    """(matching steps a network, passes over the synthetic set after each), published for 1, 10, 20, 30, 40 and 50."""
    table = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    return table[min(table, key=lambda known: abs(known - ipc))]


def _dsa_operations(key: str) -> str:
    return DSA_OPERATIONS.replace("_flip", "") if key in UPRIGHT else DSA_OPERATIONS


def _dc(key: str, ipc: int) -> MatchingSettings:
    inner, epochs = _dc_loops(ipc)
    settings = MatchingSettings(
        method="dc",
        ipc=ipc,
        init="noise",
        distance="cosine",
        layers="all",
        outer=1000,
        inner=inner,
        batch_real=256,
        batch_views=256,
        lr_image=0.1,
        lr_space="normalised",
        momentum_image=0.5,
        network_data="synthetic",
        network_epochs=epochs,
        network_batch=256,
        network_lr=0.01,
        network_momentum=0.0,
        network_weight_decay=0.0,
        network_cutmix=0.0,
        augment="none",
        augment_network="none",
        augment_one=True,
    )
    return _for_digits(settings) if key == "digits" else settings


def _dsa(key: str, ipc: int) -> MatchingSettings:
    operations = _dsa_operations(key)
    return replace(_dc(key, ipc), method="dsa", init="real", augment=operations, augment_network=operations)


def _dm(key: str, ipc: int) -> MatchingSettings:
    settings = MatchingSettings(
        method="dm",
        ipc=ipc,
        init="real",
        objective="feature",
        layers="all",
        outer=20000,
        inner=1,
        batch_real=256,
        batch_views=256,
        lr_image=1.0 if ipc < 100 else 10.0,
        lr_space="normalised",
        momentum_image=0.5,
        network_data="none",
        augment=_dsa_operations(key),
        augment_network="none",
        augment_one=True,
    )
    return _for_digits(settings) if key == "digits" else settings


def _idc(key: str, ipc: int) -> MatchingSettings:
    grey = key in ("mnist", "fashionmnist")
    mnist = key in ("mnist", "digits")
    base = 1e-4 if grey else 5e-3
    shrink = (28 / 32) ** 2 if key == "fashionmnist" else 1.0
    settings = MatchingSettings(
        method="idc",
        ipc=ipc,
        factor=2,
        init="mix",
        distance="l1" if grey else "squared",
        layers="convolutions",
        outer=2000,
        inner=100,
        batch_real=64,
        batch_views=128,
        lr_image=base * (ipc / 10) * shrink,
        momentum_image=0.5,
        network_data="real",
        network_samples=2000 if key in ("cifar10", "cifar100", "custom") else 500,
        network_batch=64,
        network_lr=0.01,
        network_momentum=0.9,
        network_weight_decay=5e-4,
        network_cutmix=0.0 if mnist else 0.5,
        augment="color_crop" if mnist else "color_crop_cutout",
        augment_network="color_crop",
        augment_one=False,
    )
    return _for_digits(settings) if key == "digits" else settings


def _udd(policy: str, name: str) -> Callable[[str, int], MatchingSettings]:
    def settings(key: str, ipc: int) -> MatchingSettings:
        return replace(
            _idc(key, ipc),
            method=name,
            policy=policy,
            windows=1,
            windows_weight=1.0,
            windows_mask=True,
            windows_start=0.2,
            windows_freeze=0.1,
            refresh=10,
            cfc_share=0.1,
            cfc_temperature=0.1,
        )

    return settings


def _for_digits(settings: MatchingSettings) -> MatchingSettings:
    """Our own settings for the embedded digits, sized for two CPU cores."""
    return settings


_DC_PAPER = "Zhao, Mopuri, Bilen: Dataset Condensation with Gradient Matching. ICLR 2021"
_DSA_PAPER = "Zhao, Bilen: Dataset Condensation with Differentiable Siamese Augmentation. ICML 2021"
_DM_PAPER = "Zhao, Bilen: Dataset Condensation with Distribution Matching. WACV 2023"
_IDC_PAPER = "Kim et al.: Dataset Condensation via Efficient Synthetic-Data Parameterization. ICML 2022"
_UDD_PAPER = "UDD: dataset distillation via mining underutilized regions (abstract and summaries only)"

METHODS: dict[str, Method] = {}
