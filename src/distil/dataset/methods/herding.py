"""Herding."""

from distil.dataset.config import Observer, Selection
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, OWN


def settings(key: str, ipc: int) -> Selection:
    return Selection(method="herding", ipc=ipc, observer=Observer(width=32 if key == "digits" else 128))


METHOD = Method(
    name="herding",
    title="herding",
    kind="selection",
    paper="Welling: Herding dynamical weights to learn. ICML 2009",
    description="Chooses real images whose running mean stays nearest to the mean embedding of the class.",
    cost="one network trained on the whole set",
    settings=settings,
    sources={**GENERAL, "network_epochs": OWN},
)
