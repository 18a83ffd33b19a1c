"""K-center."""

from distil.dataset.config import Observer, Selection
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, OWN


def settings(key: str, ipc: int) -> Selection:
    return Selection(method="k-center", ipc=ipc, observer=Observer(width=32 if key == "digits" else 128))


METHOD = Method(
    name="k-center",
    title="k-center",
    kind="selection",
    paper="Sener, Savarese: Active learning for CNNs, a core-set approach. ICLR 2018",
    description="Chooses real images so that every other one is near a chosen one.",
    cost="one network trained on the whole set",
    settings=settings,
    sources={**GENERAL, "network_epochs": OWN},
)
