"""UDD with the data-jittering-based policy."""

from dataclasses import replace

from distil.dataset import config
from distil.dataset.methods import udd
from distil.dataset.methods.method import Method


def settings(key: str, ipc: int) -> config.Matching:
    made = udd.settings(key, ipc)
    policy = config.Jitter(udd.proxy_steps(key))
    return replace(made, method="udd-jitter", parameterization=replace(made.parameterization, policy=policy))


METHOD = Method(
    name="udd-jitter",
    title="UDD, mining underutilized regions of the frequency domain by jitter",
    kind="matching",
    paper=udd.PAPER,
    description="A reconstruction: as udd, with the coefficients whose jitter changes the proxy's predictions.",
    cost="about 270 (IDC with 8 times as many images; its networks' training, which is most of it, stays)",
    settings=settings,
    sources=udd.SOURCES,
    recipe="fast",
    has_fast=True,
)
