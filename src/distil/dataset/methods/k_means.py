"""K-means."""

from distil.dataset.config import Observer, Selection
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, OWN


def settings(key: str, ipc: int) -> Selection:
    return Selection(method="k-means", ipc=ipc, observer=Observer(width=32 if key == "digits" else 128))


METHOD = Method(
    name="k-means",
    title="k-means",
    kind="selection",
    paper="used by Liu et al.: DREAM. ICCV 2023",
    description="Chooses the real image nearest to each k-means center of its class.",
    cost="one network trained on the whole set",
    settings=settings,
    sources={**GENERAL, "network_epochs": OWN},
)
