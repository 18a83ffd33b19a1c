"""The image data sets that have a name: one table of their facts. Nothing here imports torch.

Another data set is one more row; it needs an opener (data/images/) only if no format here reads its files.
"""

from dataclasses import dataclass
from typing import Literal

NUMERALS = tuple("0123456789")


@dataclass(frozen=True)
class NamedSet:
    """What is known of a data set before it is opened."""

    key: str
    """The SOURCE word, and the name that settings are filed under."""
    title: str
    shape: tuple[int, int, int]
    """Channels, height and width of the images as they are opened."""
    class_count: int
    train: int
    """Number of training images."""
    test: int
    """Number of test images."""
    may_flip: bool
    """Whether a mirrored image still shows its class: digits do not."""
    origin: Literal["scikit-learn", "torchvision"]
    """The package that reads it."""
    dataset: str
    """Name of the class or function there."""
    classes: tuple[str, ...] = ()
    """Names of the classes, where the files do not name them."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, images in [0, 1]; None where it is measured. Source: the released code of DC and DM."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel, likewise."""
    files: tuple[str, ...] = ()
    """Further names of an .npz file of this set, beside the key."""

    @property
    def grey(self) -> bool:
        return self.shape[0] == 1

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel; None where they are measured."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)


CATALOG: dict[str, NamedSet] = {
    row.key: row
    for row in (
        NamedSet(
            key="digits",
            title="scikit-learn's digits",
            shape=(1, 16, 16),
            class_count=10,
            train=1_297,
            test=500,
            may_flip=False,
            origin="scikit-learn",
            dataset="load_digits",
            classes=NUMERALS,
        ),
        NamedSet(
            key="mnist",
            title="MNIST",
            shape=(1, 28, 28),
            class_count=10,
            train=60_000,
            test=10_000,
            may_flip=False,
            origin="torchvision",
            dataset="MNIST",
            classes=NUMERALS,
            mean=(0.1307,),
            std=(0.3081,),
        ),
        NamedSet(
            key="fashionmnist",
            title="FashionMNIST",
            shape=(1, 28, 28),
            class_count=10,
            train=60_000,
            test=10_000,
            may_flip=True,
            origin="torchvision",
            dataset="FashionMNIST",
            mean=(0.2861,),
            std=(0.3530,),
        ),
        NamedSet(
            key="svhn",
            title="SVHN",
            shape=(3, 32, 32),
            class_count=10,
            train=73_257,
            test=26_032,
            may_flip=False,
            origin="torchvision",
            dataset="SVHN",
            classes=NUMERALS,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
            files=("svhn_small",),
        ),
        NamedSet(
            key="cifar10",
            title="CIFAR-10",
            shape=(3, 32, 32),
            class_count=10,
            train=50_000,
            test=10_000,
            may_flip=True,
            origin="torchvision",
            dataset="CIFAR10",
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
        ),
        NamedSet(
            key="cifar100",
            title="CIFAR-100",
            shape=(3, 32, 32),
            class_count=100,
            train=50_000,
            test=10_000,
            may_flip=True,
            origin="torchvision",
            dataset="CIFAR100",
            mean=(0.5071, 0.4866, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
    )
}

NAMES = tuple(CATALOG)
"""SOURCE words of the named sets."""
CUSTOM = "custom"
"""The key of any other source."""
MEMORY = 2.0
"""Gigabytes that the decoded images of a source may take; those that exceed it stay in their files."""
UNLIMITED = 1e9
"""The same of runs from before there was a limit."""
UPRIGHT = tuple(key for key, row in CATALOG.items() if not row.may_flip)
"""Sets whose images change their meaning when they are mirrored."""
GREY = tuple(key for key, row in CATALOG.items() if row.grey)


def of_npz(stem: str) -> NamedSet | None:
    """The set that an .npz file of this name (without the ending) may hold; None if it is none of them."""
    downloaded = (row for row in CATALOG.values() if row.origin == "torchvision")
    return next((row for row in downloaded if stem == row.key or stem in row.files), None)
