"""UDD, dataset distillation via mining underutilized regions, in the frequency domain: DCT coefficients that a proxy
network responds to are kept, the numbers of all others serve further images."""

from dataclasses import replace

from distil.data.catalog import GREY
from distil.dataset import config
from distil.dataset.methods import idc
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import RECONSTRUCTION, SCALED

PAPER = "UDD: dataset distillation via mining underutilized regions (abstract and summaries only)"


def images_per_item(key: str, ipc: int) -> int:
    """The fewer numbers an item has and the more items there are, the fewer images in each: docs/methods/udd.md."""
    if key == "digits":
        return 8
    few, many = (16, 8) if key in GREY else (32, 16)
    if key == "cifar100":
        many = 8
    return few if ipc < 10 else many


def proxy_steps(key: str) -> int:
    """Updates of the proxy network."""
    return 300 if key == "digits" else 1000


def settings(key: str, ipc: int) -> config.Matching:
    made = idc.settings(key, ipc)
    return replace(
        made,
        method="udd",
        parameterization=config.Dct(images=images_per_item(key, ipc), bits=4, policy=config.Response(proxy_steps(key))),
        optimizer=replace(made.optimizer, **SCALED),
    )


SOURCES = idc.SOURCES | {
    "parameterization": RECONSTRUCTION,
    "images": RECONSTRUCTION,
    "bits": RECONSTRUCTION,
    "init": "real images of the class, as the kept frequencies show them; " + RECONSTRUCTION,
    "start": RECONSTRUCTION,
    "refresh": RECONSTRUCTION,
    "freeze": RECONSTRUCTION,
    "policy": "UDD names the response-based and the data-jittering-based policy",
    "proxy_steps": RECONSTRUCTION,
    "lr": RECONSTRUCTION,
    "lr_schedule": RECONSTRUCTION,
    "gradient_scale": RECONSTRUCTION,
}

METHOD = Method(
    name="udd",
    title="UDD, mining underutilized regions of the frequency domain by response",
    kind="matching",
    paper=PAPER,
    description="A reconstruction: IDC, whose images are the DCT coefficients to which a proxy network responds; the "
    "numbers of all others, which are underutilized, serve further images.",
    cost="about 270 (IDC with 8 times as many images; its networks' training, which is most of it, stays)",
    settings=settings,
    sources=SOURCES,
    recipe="fast",
    has_fast=True,
)
