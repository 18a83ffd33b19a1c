"""Random real images."""

from distil.dataset.config import Selection
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL


def settings(key: str, ipc: int) -> Selection:
    return Selection(method="random", ipc=ipc)


METHOD = Method(
    name="random",
    title="random real images",
    kind="selection",
    paper="the control of every method",
    description="Draws real images of every class, uniformly.",
    cost="none",
    settings=settings,
    sources=GENERAL,
    published={"cifar10": (14.4, 26.0, 43.4), "cifar100": (4.2, 14.6, 30.0)},
)
