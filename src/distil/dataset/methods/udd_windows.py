"""UDD on pixels: windows of items where a proxy network responds least become further images; the contrastive loss."""

from dataclasses import replace

from distil.data.catalog import GREY
from distil.dataset import config
from distil.dataset.methods import idc, udd
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import RECONSTRUCTION


def settings(key: str, ipc: int) -> config.Matching:
    """Eight windows of half a cell's side, images like cells from the beginning; where objects fill their cells (GREY)
    one window of a cell's size, mined later (docs/results/udd.md)."""
    made, policy = idc.settings(key, ipc), config.Response(udd.proxy_steps(key))
    windows = config.Windows(factor=2, init="mix", policy=policy, refresh=2 if key == "digits" else 10)
    if key not in GREY:
        windows = replace(
            windows,
            windows=8,
            windows_factor=4,
            windows_init="real",
            windows_loss=config.Joint(),
            windows_start=0.0,
            windows_freeze=1.0,
        )
    return replace(made, method="udd-windows", parameterization=windows, contrastive=config.Contrastive(share=0.1))


METHOD = Method(
    name="udd-windows",
    title="UDD, mining underutilized windows by response",
    kind="matching",
    paper=udd.PAPER,
    description="A reconstruction nearer to the paper's words: IDC, windows where a proxy network responds least, "
    "and the contrastive loss.",
    cost="about 300 (IDC, the mined images and the contrastive loss)",
    settings=settings,
    sources=idc.SOURCES
    | {
        "policy": "UDD names the response-based and the data-jittering-based policy",
        "cfc_share": RECONSTRUCTION,
        "cfc_temperature": RECONSTRUCTION,
        "contrastive": "UDD names a category-wise feature contrastive loss",
    }
    | dict.fromkeys(
        (
            "parameterization",
            "windows",
            "windows_factor",
            "windows_init",
            "windows_loss",
            "windows_share",
            "windows_mask",
            "windows_start",
            "windows_freeze",
            "refresh",
            "proxy_steps",
        ),
        RECONSTRUCTION,
    ),
    recipe="fast",
    has_fast=True,
)
