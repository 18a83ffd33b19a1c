"""DC, dataset condensation: gradient matching from noise, in networks that are trained on the synthetic images."""

from distil.dataset import config
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, for_digits


def loops(ipc: int) -> tuple[int, int]:
    """(matching steps a network, passes over the synthetic set after each), published for 1, 10, 20, 30, 40 and 50."""
    table = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    return table[min(table, key=lambda known: abs(known - ipc))]


def settings(key: str, ipc: int) -> config.Matching:
    inner, epochs = loops(ipc)
    made = config.Matching(
        method="dc",
        ipc=ipc,
        outer=1000,
        inner=inner,
        parameterization=config.Grid(init="noise"),
        objective=config.GradientMatching(distance="cosine", layers="all"),
        sampler=config.Uniform(batch=256),
        batch_synthetic=256,
        optimizer=config.ImageSGD(lr=0.1, lr_space="normalized", momentum=0.5),
        networks=config.TrainedOnSynthetic(
            epochs=epochs, batch=256, lr=0.01, momentum=0.0, weight_decay=0.0, cutmix=0.0, augment="none"
        ),
        augment="none",
        augment_one=True,
    )
    return for_digits(made) if key == "digits" else made


SOURCES = GENERAL | {
    "objective": "DC, equation 7",
    "factor": "no multi-formation",
    "distance": "DC, equation 10",
    "layers": "DC's released code: every weight of two or more dimensions",
    "outer": "DC's released code: Iteration 1000",
    "inner": "DC's released code, get_loops: outer_loop 1 / 10 / 50 at 1 / 10 / 50 images per class",
    "batch": "DC's released code: batch_real 256",
    "batch_synthetic": "not limited in DC's code",
    "lr": "DC's released code: lr_img 0.1",
    "lr_space": "DC's code learns normalized pixels",
    "momentum": "DC's released code: momentum 0.5",
    "networks": "DC's released code: the inner network is trained on the synthetic set",
    "network_epochs": "DC's released code, get_loops: inner_loop 1 / 50 / 10 at 1 / 10 / 50 images per class",
    "network_batch": "DC's released code: batch_train 256",
    "network_lr": "DC's released code: lr_net 0.01",
    "network_momentum": "DC's released code: plain SGD",
    "network_weight_decay": "DC's released code: plain SGD",
    "network_cutmix": "DC's released code: none",
    "augment_one": "DSA's released code: one operation a call (aug_mode S)",
}

METHOD = Method(
    name="dc",
    title="DC, dataset condensation",
    kind="matching",
    paper="Zhao, Mopuri, Bilen: Dataset Condensation with Gradient Matching. ICLR 2021",
    description="Matches the gradients of real and synthetic images, from noise, without augmentation.",
    cost="1 (at 1 image per class: 1,000 matching steps)",
    settings=settings,
    sources=SOURCES
    | {
        "init": "DC's released code: --init noise",
        "augment": "DC: no augmentation",
        "network_augment": "DC: no augmentation",
    },
    published={
        "mnist": (91.7, 97.4, 98.8),
        "fashionmnist": (70.5, 82.3, 83.6),
        "svhn": (31.2, 76.1, 82.3),
        "cifar10": (28.3, 44.9, 53.9),
        "cifar100": (12.8, 25.2, None),
    },
    has_fast=True,
)
