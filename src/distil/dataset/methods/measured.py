"""What this library measured of each method: a row for each data set and number of images per class, with its page.

A number stands here only if a results page has it, for the method as its preset is today; a benchmark adds its rows.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Conditions:
    """How numbers were found. page: in docs/results."""

    text: str
    page: str


@dataclass(frozen=True)
class Measured:
    """Accuracy (%) of one method on one data set: mean and standard deviation over seeds."""

    ipc: int
    mean: float
    std: float
    seeds: int
    bytes: int
    conditions: Conditions


UDD_PAGE = "docs/results/udd.md#one-image-per-class"
LABORATORY = Conditions(
    "fast recipe, ConvNet-3 of width 32, 500 steps; two networks of quick (600 updates) on held-out training images",
    UDD_PAGE,
)
LONG = Conditions(
    "fast recipe, ConvNet-3 of width 32, 200 steps; two networks of 2,400 updates on held-out training images", UDD_PAGE
)
CRAMPED = Conditions(
    "1,000 images in all; fast recipe, ConvNet-3 of width 32, 500 steps; two networks of quick (600 updates) on 300 "
    "held-out training images",
    UDD_PAGE,
)
FIRST = Conditions(
    "20,000 training images, ConvNet-3 of width 32, 300 steps (dm: 600); three networks of quick v1 (300 updates) on "
    "the test images",
    "docs/results/fashionmnist.md",
)

MEASURED: dict[str, dict[str, tuple[Measured, ...]]] = {
    "random": {"fashionmnist": (Measured(1, 51.0, 2.9, 3, 7866, FIRST),)},
    "dsa": {"fashionmnist": (Measured(1, 68.5, 0.5, 3, 7866, FIRST),)},
    "dm": {"fashionmnist": (Measured(1, 68.3, 0.8, 3, 7866, FIRST),)},
    "idc": {
        "mnist": (Measured(1, 92.0, 1.7, 3, 7914, LABORATORY),),
        "fashionmnist": (Measured(1, 76.5, 1.8, 5, 7914, LABORATORY), Measured(1, 75.3, 0.5, 3, 7914, FIRST)),
        "svhn": (Measured(1, 62.8, 2.2, 3, 30794, CRAMPED),),
        "cifar10": (Measured(1, 43.4, 0.8, 5, 30794, LABORATORY),),
        "cifar100": (Measured(1, 15.6, 0.9, 5, 307364, LONG),),
    },
    "udd": {
        "mnist": (Measured(1, 94.1, 1.4, 3, 8438, LABORATORY),),
        "fashionmnist": (Measured(1, 78.6, 1.1, 5, 8438, LABORATORY),),
        "svhn": (Measured(1, 74.9, 1.3, 3, 31882, CRAMPED),),
        "cifar10": (Measured(1, 49.6, 0.9, 5, 31882, LABORATORY),),
        "cifar100": (Measured(1, 25.3, 0.7, 5, 308452, LONG),),
    },
}
"""method -> data set -> numbers."""
