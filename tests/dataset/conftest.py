"""A small real image set with made-up pixels, and what the tests of the loop share."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from distil.cli.flags import flag_of
from distil.cli.settings_flags import choices, with_choices
from distil.data.images.image_set import ImageSet
from distil.dataset.compose import matching_loop, task_of
from distil.dataset.config import Experts, experts_of
from distil.dataset.distil import finished
from distil.dataset.experts import train_experts
from distil.dataset.methods import preset
from distil.dataset.step import NetworkStage
from distil.fields import leaves, with_value


def make_images(classes=3, each=12, side=8, channels=1, seed=0) -> ImageSet:
    """Noise about a class's own pattern, so that classes can be told apart."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, 1, channels, side, side, generator=generator)
    noise = torch.rand(classes, each, channels, side, side, generator=generator)
    images = (255 * (0.7 * patterns + 0.3 * noise)).to(torch.uint8).flatten(0, 1)
    return ImageSet(
        images=images,
        labels=torch.arange(classes).repeat_interleave(each),
        classes=tuple("abcdefgh"[:classes]),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        name="made up",
    )


@pytest.fixture
def real() -> ImageSet:
    return make_images()


def changed(settings: Any, **changes) -> Any:
    """Settings with other values by the names of their flags; choices between parts by the words that name them."""
    words = {flag_of(name): word for name, word in changes.items() if isinstance(word, str)}
    settings = with_choices(settings, words)
    chosen = choices(settings)
    paths = {leaf.name: leaf.path for leaf in leaves(settings)}
    for name, value in changes.items():
        if name not in chosen:
            settings = with_value(settings, paths[name], value)
    return settings


def changed_where(settings: Any, **changes) -> Any:
    """The same, passing over names that these settings do not have."""
    names = {leaf.name for leaf in leaves(settings)} | set(choices(settings))
    return changed(settings, **{name: value for name, value in changes.items() if name in names})


TINY = {"width": 4, "outer": 2, "inner": 3, "batch": 4, "validation": 0.0}


def tiny(method="idc", **changes) -> Any:
    """A method's published settings, made small."""
    settings = changed(preset(method, "custom", 1, "published"), network="convnet2", **TINY)
    small = {"refresh": 1, "windows_start": 0.0, "proxy_steps": 2, "network_samples": 4, "network_batch": 4}
    small |= {"expert_runs": 2, "expert_epochs": 1, "expert_batch": 12, "frequencies": 32}
    small |= {"cluster_every": 3, "network_steps": 2, "network_most": 4, "network_every": 2}
    names = {leaf.name for leaf in leaves(settings)}
    if "network_trained" in names or "expert_runs" in names:
        small |= {"outer": 6, "inner": 1}
    if method != "udd-windows":
        small.pop("refresh")
    settings = changed(settings, **{name: value for name, value in small.items() if name in names})
    settings = changed(settings, **{k: v for k, v in changes.items() if k in choices(settings)})
    for name, value in changes.items():
        if name in choices(settings):
            settings = changed(settings, **{name: value})
    names = {leaf.name for leaf in leaves(settings)}
    again = {name: value for name, value in small.items() if name in names and name not in changes}
    return changed(settings, **(again | changes))


TINY_EXPERTS = Experts(runs=2, epochs=4, lr=0.2, batch=12, augment="none")
TINY_TRAJECTORY = {"network": "convnet1", "width": 4, "steps": 3, "student_steps": 3, "span": 1, "start_to": 2}


def tiny_trajectory(method="mtt", ipc=1, **changes) -> Any:
    """The published settings of a method that matches trajectories, made small."""
    base = replace(preset(method, "custom", ipc, "published"), experts=TINY_EXPERTS, start_to_first=None)  # pyright: ignore
    return changed(changed(base, validation=0.0, **TINY_TRAJECTORY), **changes)


def loop_of(real, settings, proxy=None, **more) -> Any:
    """The loop of these settings, before its first step."""
    task = task_of(real, settings)
    task.proxy = proxy
    if (wanted := experts_of(settings)) is not None:
        made_by = {"network": settings.network, "width": settings.width, "seed": settings.seed}
        task.experts = train_experts(real, wanted, None, **made_by)
    loop = matching_loop(task, settings, partial(finished, real=real, settings=settings), **more)
    loop.begin()
    return loop


def finished_loop(real, settings, proxy=None, **more) -> Any:
    """The same after its last step."""
    loop = loop_of(real, settings, proxy, **more)
    while loop.done < loop.steps:
        loop.step()
    return loop


def stage_of(loop, state, outer=0, inner=0) -> NetworkStage:
    """A network as a stage of the loop, with its real targets."""
    return loop.with_targets(NetworkStage(state, {}, outer, inner))
