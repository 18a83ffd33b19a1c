"""IDC: gradient matching of the cells of each item, enlarged, in networks that are trained on real images."""

from distil.dataset import config
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, for_digits


def settings(key: str, ipc: int) -> config.Matching:
    grey, mnist = key in ("mnist", "fashionmnist"), key in ("mnist", "digits")
    shrink = (28 / 32) ** 2 if key == "fashionmnist" else 1.0
    made = config.Matching(
        method="idc",
        ipc=ipc,
        outer=2000,
        inner=100,
        parameterization=config.Grid(factor=2, init="mix"),
        objective=config.GradientMatching(distance="l1" if grey else "squared", layers="convolutions"),
        sampler=config.Uniform(batch=64),
        batch_synthetic=128,
        optimizer=config.ImageSGD(lr=(1e-4 if grey else 5e-3) * (ipc / 10) * shrink, momentum=0.5),
        networks=config.TrainedOnReal(
            samples=2000 if key in ("cifar10", "cifar100", "custom") else 500,
            batch=64,
            lr=0.01,
            momentum=0.9,
            weight_decay=5e-4,
            cutmix=0.0 if mnist else 0.5,
            augment="color_crop",
        ),
        augment="color_crop" if mnist else "color_crop_cutout",
        augment_one=False,
    )
    return for_digits(made) if key == "digits" else made


SOURCES = GENERAL | {
    "objective": "IDC, section 4: gradient matching",
    "factor": "IDC, section 5: factor 2 for 32 x 32 and 28 x 28 images",
    "init": "IDC's released code: mix whenever factor > 1",
    "distance": "IDC's released code, reproduce.py: mse for CIFAR and SVHN, l1 for MNIST and FashionMNIST",
    "layers": "IDC's released code: bias and classifier excluded",
    "outer": "IDC's released code, reproduce.py: niter 2000",
    "inner": "IDC's released code: inner_loop 100",
    "batch": "IDC's released code: batch_real 64",
    "batch_synthetic": "IDC's released code: batch_syn_max 128",
    "lr": "IDC's released code: 5e-3 (mse) or 1e-4 (l1), times ipc / 10, times (side / base)^2",
    "lr_space": "IDC's code learns pixels in [0, 1]",
    "momentum": "IDC's released code: mom_img 0.5",
    "networks": "IDC, section 4.2: networks are trained on real images",
    "network_samples": "IDC's released code, reproduce.py: n_data 2000 for CIFAR, 500 elsewhere",
    "network_batch": "IDC's released code: batch_size 64",
    "network_lr": "IDC's released code: lr 0.01",
    "network_momentum": "IDC's released code: 0.9",
    "network_weight_decay": "IDC's released code: 5e-4",
    "network_cutmix": "IDC's released code: mix_p 0.5; none for MNIST with factor > 1",
    "augment": "IDC's released code: color_crop_cutout; color_crop for MNIST with factor > 1",
    "network_augment": "IDC's released code: the same without cutout",
    "augment_one": "IDC's released code: color, flip and cutout always, plus one of the rest",
}

METHOD = Method(
    name="idc",
    title="IDC, multi-formation",
    kind="matching",
    paper="Kim et al.: Dataset Condensation via Efficient Synthetic-Data Parameterization. ICML 2022",
    description="Gradient matching of the cells of each item, enlarged, in networks trained on real images.",
    cost="200 (200,000 matching steps and, on CIFAR, 6.4 million network steps)",
    settings=settings,
    sources=SOURCES,
    published={
        "mnist": (94.2, 98.4, 99.1),
        "fashionmnist": (81.0, 86.0, 86.2),
        "svhn": (68.5, 87.5, 90.1),
        "cifar10": (50.6, 67.5, 74.5),
        "cifar100": (None, 45.1, None),
    },
    has_fast=True,
)
