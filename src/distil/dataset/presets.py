"""METHODS: what each method is and its published settings, every number with its source. Nothing here imports torch."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from distil.errors import DistilError
from distil.settings import CoresetSettings, MatchingSettings, Settings

DATASETS = ("mnist", "fashionmnist", "svhn", "cifar10", "cifar100", "digits")
"""Data sets with settings of their own; any other source uses those of CIFAR-10 (colour or larger) as "custom"."""

RECIPES = ("published", "fast")
"""Whose numbers a preset holds: the papers', or ours for little time."""

DSA_OPERATIONS = "color_crop_cutout_flip_scale_rotate"
UPRIGHT = ("mnist", "svhn", "digits")
"""Digits: a mirrored one is another sign, so nothing is flipped."""

GREY = ("mnist", "fashionmnist", "digits")
"""Smaller canvases without colour: udd-windows mines one window of a cell's size, since objects fill their cells
(docs/methods/udd-experiments.md)."""

SCALED: dict[str, Any] = {"gradient_scale": "canvas", "lr_image": 0.018, "lr_schedule": "cosine"}
"""Steps in units of pixels (docs/speed.md)."""

SMALL_WINDOWS: dict[str, Any] = {
    "windows": 8,
    "windows_factor": 4,
    "windows_init": "real",
    "windows_loss": "joint",
    "windows_start": 0.0,
    "windows_freeze": 1.0,
}
"""Of udd-windows: eight windows of half a cell's side, views like cells from the beginning."""

Accuracies = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Method:
    """One entry of METHODS."""

    name: str
    title: str
    kind: str
    """`coreset` (chooses real images) or `matching` (learns canvases)."""
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
    return stem if word.endswith(".npz") and stem in DATASETS and stem != "digits" else "custom"


def preset(method: str, key: str, ipc: int, recipe: str = "published") -> Settings:
    """The settings of a method for a data set and a number of images per class.

    key: a name in DATASETS, or "custom". recipe: "published", or "fast" for our own settings of IDC and UDD, which get
    near it in minutes (docs/speed.md). Raises: DistilError on an unknown method, with the nearest name, on an unknown
    key, and on a recipe that the method does not have.
    """
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DistilError(f"unknown method {method!r}.{hint} Methods: {', '.join(METHODS)}.")
    if key not in (*DATASETS, "custom"):
        near = difflib.get_close_matches(key.lower(), DATASETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DistilError(f"no data set {key!r} has settings.{hint} Known: {', '.join(DATASETS)}, custom.")
    if ipc < 1:
        raise DistilError(f"--ipc is {ipc}: ask for at least 1 image per class.")
    settings = METHODS[method].settings(key, ipc)
    if recipe == "published":
        return settings
    if recipe not in RECIPES:
        raise DistilError(f"unknown recipe {recipe!r}. Recipes: {', '.join(RECIPES)}.")
    if not isinstance(settings, MatchingSettings) or settings.network_data != "real":
        having = [name for name in METHODS if name.startswith(("idc", "udd"))]
        raise DistilError(f"{method} has no recipe {recipe!r}: {', '.join(having)} have one.")
    return _fast(settings)


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


def _spectral_views(key: str, ipc: int) -> int:
    """The fewer numbers a canvas has and the more canvases there are, the fewer views of each: docs/methods/udd.md."""
    if key == "digits":
        return 8
    few, many = (16, 8) if key in GREY else (32, 16)
    if key == "cifar100":
        many = 8
    return few if ipc < 10 else many


def _udd(policy: str, name: str) -> Callable[[str, int], MatchingSettings]:
    def settings(key: str, ipc: int) -> MatchingSettings:
        return replace(
            _idc(key, ipc),
            method=name,
            formation="spectrum",
            factor=1,
            init="real",
            spectral_views=_spectral_views(key, ipc),
            storage="uint4",
            policy=policy,  # pyright: ignore[reportArgumentType]
            proxy_steps=300 if key == "digits" else 1000,
            **SCALED,
        )

    return settings


def _udd_windows(key: str, ipc: int) -> MatchingSettings:
    udd = replace(_idc(key, ipc), method="udd-windows", policy="response", cfc_share=0.1)
    if key == "digits":
        return replace(udd, refresh=2, proxy_steps=300)
    return udd if key in GREY else replace(udd, **SMALL_WINDOWS)


def _fast(settings: MatchingSettings) -> MatchingSettings:
    """Our own settings for minutes instead of days, chosen on held-out training images: docs/speed.md."""
    return replace(
        settings,
        distance="squared",
        outer=min(settings.outer, 20),
        inner=20,
        target_updates=5,
        bfloat16="real_network_synthetic",
        **SCALED,
    )


def _for_digits(settings: MatchingSettings) -> MatchingSettings:
    """Our own settings for the embedded digits, sized for two CPU cores: about a minute a run."""
    if settings.objective == "feature":
        return replace(settings, width=32, outer=300, batch_real=64, lr_image=0.3)
    if settings.distance == "cosine":
        outer = max(1, 200 // settings.inner)
        return replace(settings, width=32, outer=outer, batch_real=64, lr_image=0.3)
    return replace(settings, width=32, outer=10, inner=10, lr_image=0.02 * settings.ipc, network_samples=256)


_DC_PAPER = "Zhao, Mopuri, Bilen: Dataset Condensation with Gradient Matching. ICLR 2021"
_DSA_PAPER = "Zhao, Bilen: Dataset Condensation with Differentiable Siamese Augmentation. ICML 2021"
_DM_PAPER = "Zhao, Bilen: Dataset Condensation with Distribution Matching. WACV 2023"
_IDC_PAPER = "Kim et al.: Dataset Condensation via Efficient Synthetic-Data Parameterization. ICML 2022"
_UDD_PAPER = "UDD: dataset distillation via mining underutilized regions (abstract and summaries only)"


_OURS_ALONE = "ours"

_COMMON_SOURCES = {
    "formation": "a grid of pixels in all the papers",
    "spectral_views": "not used",
    "spectral_start": "not used",
    "spectral_refresh": "not used",
    "network": "ConvNet-3 in all the papers",
    "width": "128 channels in all the papers",
    "validation": "ours; the papers learn from every training image, as --validation 0 does",
    "validations": _OURS_ALONE,
    "storage": "ours; the papers keep four bytes a value",
    "target_updates": "one in all the papers",
    "lr_schedule": "constant in all the papers",
    "gradient_scale": "as it is in all the papers",
    "bfloat16": "none in all the papers",
    "seed": _OURS_ALONE,
}

_CORESET_SOURCES = _COMMON_SOURCES | {"network_epochs": _OURS_ALONE}

_GRADIENT_SOURCES = _COMMON_SOURCES | {
    "objective": "DC, equation 7",
    "network_samples": "not used",
    "factor": "no multi-formation",
    "distance": "DC, equation 10",
    "layers": "DC's released code: every weight of two or more dimensions",
    "outer": "DC's released code: Iteration 1000",
    "inner": "DC's released code, get_loops: outer_loop 1 / 10 / 50 at 1 / 10 / 50 images per class",
    "batch_real": "DC's released code: batch_real 256",
    "batch_views": "not limited in DC's code",
    "lr_image": "DC's released code: lr_img 0.1",
    "lr_space": "DC's code learns normalised pixels",
    "momentum_image": "DC's released code: momentum 0.5",
    "network_data": "DC's released code: the inner network is trained on the synthetic set",
    "network_epochs": "DC's released code, get_loops: inner_loop 1 / 50 / 10 at 1 / 10 / 50 images per class",
    "network_batch": "DC's released code: batch_train 256",
    "network_lr": "DC's released code: lr_net 0.01",
    "network_momentum": "DC's released code: plain SGD",
    "network_weight_decay": "DC's released code: plain SGD",
    "network_cutmix": "DC's released code: none",
    "augment_one": "DSA's released code: one operation a call (aug_mode S)",
}

_IDC_SOURCES = _COMMON_SOURCES | {
    "objective": "IDC, section 4: gradient matching",
    "lr_space": "IDC's code learns pixels in [0, 1]",
    "network_epochs": "not used",
    "factor": "IDC, section 5: factor 2 for 32 x 32 and 28 x 28 images",
    "init": "IDC's released code: mix whenever factor > 1",
    "distance": "IDC's released code, reproduce.py: mse for CIFAR and SVHN, l1 for MNIST and FashionMNIST",
    "layers": "IDC's released code: bias and classifier excluded",
    "outer": "IDC's released code, reproduce.py: niter 2000",
    "inner": "IDC's released code: inner_loop 100",
    "batch_real": "IDC's released code: batch_real 64",
    "batch_views": "IDC's released code: batch_syn_max 128",
    "lr_image": "IDC's released code: 5e-3 (mse) or 1e-4 (l1), times ipc / 10, times (side / base)^2",
    "momentum_image": "IDC's released code: mom_img 0.5",
    "network_data": "IDC, section 4.2: networks are trained on real images",
    "network_samples": "IDC's released code, reproduce.py: n_data 2000 for CIFAR, 500 elsewhere",
    "network_batch": "IDC's released code: batch_size 64",
    "network_lr": "IDC's released code: lr 0.01",
    "network_momentum": "IDC's released code: 0.9",
    "network_weight_decay": "IDC's released code: 5e-4",
    "network_cutmix": "IDC's released code: mix_p 0.5; none for MNIST with factor > 1",
    "augment": "IDC's released code: color_crop_cutout; color_crop for MNIST with factor > 1",
    "augment_network": "IDC's released code: the same without cutout",
    "augment_one": "IDC's released code: colour, flip and cutout always, plus one of the rest",
}

_OURS = "our reconstruction, see docs/methods/udd.md"

_UDD_WINDOWS_SOURCES = _IDC_SOURCES | {
    "policy": "UDD names the response-based and the data-jittering-based policy",
    "windows": _OURS,
    "windows_factor": _OURS,
    "windows_init": _OURS,
    "windows_loss": _OURS,
    "windows_share": _OURS,
    "windows_mask": _OURS,
    "windows_start": _OURS,
    "windows_freeze": _OURS,
    "refresh": _OURS,
    "proxy_steps": _OURS,
    "jitter": _OURS,
    "jitter_draws": _OURS,
    "cfc_share": _OURS,
    "cfc_temperature": _OURS,
}

_UDD_SOURCES = _IDC_SOURCES | {
    "formation": _OURS,
    "factor": "not used",
    "init": "real images of the class, as the cosines show them; ours",
    "spectral_views": _OURS,
    "spectral_start": _OURS,
    "spectral_refresh": _OURS,
    "storage": _OURS,
    "gradient_scale": _OURS,
    "lr_image": _OURS,
    "lr_schedule": _OURS,
    "policy": "UDD names the response-based and the data-jittering-based policy",
    "windows": "not used",
    "windows_factor": "not used",
    "windows_init": "not used",
    "windows_loss": "not used",
    "windows_share": "not used",
    "windows_mask": "not used",
    "windows_start": "not used",
    "windows_freeze": "ours: share of the run's end in which --spectral-refresh changes nothing",
    "refresh": "not used",
    "proxy_steps": _OURS,
    "jitter": "not used",
    "jitter_draws": "not used",
    "cfc_share": _OURS,
    "cfc_temperature": _OURS,
}

_METHOD_LIST = (
    Method(
        name="random",
        title="random real images",
        kind="coreset",
        paper="the control of every method",
        description="Draws real images of every class, uniformly.",
        cost="none",
        settings=_coreset("random"),
        sources=_CORESET_SOURCES,
        published={"cifar10": (14.4, 26.0, 43.4), "cifar100": (4.2, 14.6, 30.0)},
    ),
    Method(
        name="herding",
        title="herding",
        kind="coreset",
        paper="Welling: Herding dynamical weights to learn. ICML 2009",
        description="Chooses real images whose running mean stays nearest to the class's mean embedding.",
        cost="one network trained on the whole set",
        settings=_coreset("herding"),
        sources=_CORESET_SOURCES,
    ),
    Method(
        name="k-center",
        title="k-center",
        kind="coreset",
        paper="Sener, Savarese: Active learning for CNNs, a core-set approach. ICLR 2018",
        description="Chooses real images so that every other one is near a chosen one.",
        cost="one network trained on the whole set",
        settings=_coreset("k-center"),
        sources=_CORESET_SOURCES,
    ),
    Method(
        name="k-means",
        title="k-means",
        kind="coreset",
        paper="used by Liu et al.: DREAM. ICCV 2023",
        description="Chooses the real image nearest to each k-means centre of its class.",
        cost="one network trained on the whole set",
        settings=_coreset("k-means"),
        sources=_CORESET_SOURCES,
    ),
    Method(
        name="dc",
        title="DC, dataset condensation",
        kind="matching",
        paper=_DC_PAPER,
        description="Matches the gradients of real and synthetic images, from noise, without augmentation.",
        cost="1 (at 1 image per class: 1,000 matching steps)",
        settings=_dc,
        sources=_GRADIENT_SOURCES
        | {
            "init": "DC's released code: --init noise",
            "augment": "DC: no augmentation",
            "augment_network": "DC: no augmentation",
        },
        published={
            "mnist": (91.7, 97.4, 98.8),
            "fashionmnist": (70.5, 82.3, 83.6),
            "svhn": (31.2, 76.1, 82.3),
            "cifar10": (28.3, 44.9, 53.9),
            "cifar100": (12.8, 25.2, None),
        },
    ),
    Method(
        name="dsa",
        title="DSA, differentiable siamese augmentation",
        kind="matching",
        paper=_DSA_PAPER,
        description="DC with the same augmentation drawn for real and synthetic images, from real images.",
        cost="1 (as DC)",
        settings=_dsa,
        sources=_GRADIENT_SOURCES
        | {
            "init": "DSA's readme: --init real",
            "augment": "DSA's readme: color_crop_cutout_flip_scale_rotate; no flip for MNIST and SVHN",
            "augment_network": "DSA's released code: the same operations, drawn image by image",
        },
        published={
            "mnist": (88.7, 97.8, 99.2),
            "fashionmnist": (70.6, 84.6, 88.7),
            "svhn": (27.5, 79.2, 84.4),
            "cifar10": (28.8, 52.1, 60.6),
            "cifar100": (13.9, 32.3, 42.8),
        },
    ),
    Method(
        name="dm",
        title="DM, distribution matching",
        kind="matching",
        paper=_DM_PAPER,
        description="Matches mean embeddings in fresh random networks; no second-order gradients, so it is cheap.",
        cost="about 9 (20,000 steps, each about half of a gradient-matching step)",
        settings=_dm,
        sources=_COMMON_SOURCES
        | {
            "factor": "no multi-formation",
            "distance": "not used by this objective",
            "network_samples": "not used",
            "network_epochs": "not used",
            "network_batch": "not used",
            "network_lr": "not used",
            "network_momentum": "not used",
            "network_weight_decay": "not used",
            "network_cutmix": "not used",
            "init": "DM's released code: --init real",
            "objective": "DM, equation 4",
            "layers": "not used by this objective",
            "outer": "DM's released code: Iteration 20000",
            "inner": "DM's released code: a fresh network each iteration",
            "batch_real": "DM's released code: batch_real 256",
            "batch_views": "not limited in DM's code",
            "lr_image": "DM's readme: --lr_img 1 at 1, 10 and 50 images per class, 10 at 100 and more",
            "lr_space": "DM's code learns normalised pixels",
            "momentum_image": "DM's released code: momentum 0.5",
            "network_data": "DM's released code: networks stay random",
            "augment": "DM's released code: color_crop_cutout_flip_scale_rotate; no flip for MNIST and SVHN",
            "augment_network": "not used",
            "augment_one": "DM's released code: one operation a call",
        },
        published={"cifar10": (26.0, 48.9, 63.0), "cifar100": (11.4, 29.7, 43.6)},
    ),
    Method(
        name="idc",
        title="IDC, multi-formation",
        kind="matching",
        paper=_IDC_PAPER,
        description="Gradient matching of the cells of each canvas, enlarged, in networks trained on real images.",
        cost="200 (200,000 matching steps and, on CIFAR, 6.4 million network steps)",
        settings=_idc,
        sources=_IDC_SOURCES,
        published={
            "mnist": (94.2, 98.4, 99.1),
            "fashionmnist": (81.0, 86.0, 86.2),
            "svhn": (68.5, 87.5, 90.1),
            "cifar10": (50.6, 67.5, 74.5),
            "cifar100": (None, 45.1, None),
        },
    ),
    Method(
        name="udd",
        title="UDD, underutilized part of the spectrum by response",
        kind="matching",
        paper=_UDD_PAPER,
        description="A reconstruction: IDC, whose views are the cosines to which a proxy network responds; the numbers "
        "of all others, which are underutilized, serve further views.",
        cost="about 270 (IDC with 8 times as many views; its networks' training, which is most of it, stays)",
        settings=_udd("response", "udd"),
        sources=_UDD_SOURCES,
    ),
    Method(
        name="udd-jitter",
        title="UDD, underutilized part of the spectrum by jitter",
        kind="matching",
        paper=_UDD_PAPER,
        description="A reconstruction: as udd, with the cosines whose jitter changes the proxy's predictions.",
        cost="about 270 (IDC with 8 times as many views; its networks' training, which is most of it, stays)",
        settings=_udd("jitter", "udd-jitter"),
        sources=_UDD_SOURCES,
    ),
    Method(
        name="udd-windows",
        title="UDD, underutilized windows by response",
        kind="matching",
        paper=_UDD_PAPER,
        description="A reconstruction nearer to the paper's words: IDC, windows where a proxy network responds least, "
        "and the contrastive loss.",
        cost="about 300 (IDC, the mined views and the contrastive loss)",
        settings=_udd_windows,
        sources=_UDD_WINDOWS_SOURCES,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHOD_LIST}
"""Every method by name, in the order in which they are best read."""
