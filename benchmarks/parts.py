"""What the benchmarks share: settings changed by the names of their flags, loops and proxies without a run folder."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from distil import DistilledSet, ImageSet, Matching
from distil.cli.flags import flag_of
from distil.cli.settings_flags import choices, with_choices
from distil.dataset.compose import matching_loop, task_of
from distil.dataset.distil import finished
from distil.dataset.matching import MatchingLoop
from distil.dataset.proxies import trained_proxy
from distil.dataset.upgrade import RENAMED
from distil.fields import leaves, with_value
from distil.parameterizations.base import Parameterization

WORDS = {"spectrum": "dct", "matched": "targets", "canvas": "item", "normalised": "normalized"}
"""Values of version 0.1, in which results before 0.2 name their settings, that are spelled otherwise today."""
BITS = {"uint4": 4, "uint8": 8, "float32": 32}


def changed(settings: Any, changes: dict[str, Any]) -> Any:
    """Settings with other values by the names of their flags, those of version 0.1 included; a choice between parts is
    named by its word."""
    new: dict[str, Any] = {}
    for name, value in changes.items():
        name = RENAMED.get(name, name)
        new[name] = WORDS.get(value, value) if isinstance(value, str) else value
    if new.get("networks") == "none":
        new["networks"] = "fresh"
    if "cfc_share" in new:
        new.setdefault("contrastive", "cfc" if new["cfc_share"] else "none")
    now = choices(settings)["parameterization"][2] if "parameterization" in choices(settings) else ""
    if "policy" in new and new.get("parameterization", now) == "grid":
        new["parameterization"] = "grid" if new["policy"] == "none" else "windows"
    if new.get("parameterization", now) == "dct":
        if "storage" in new:
            new["bits"] = BITS[new.pop("storage")]
        if "windows_freeze" in new:
            new["freeze"] = new.pop("windows_freeze")
        if new.get("policy") == "none":
            new["policy"] = "fixed"
    words = {flag_of(name): value for name, value in new.items() if isinstance(value, str)}
    settings = with_choices(settings, words)
    paths = {leaf.name: leaf.path for leaf in leaves(settings)}
    for name, value in new.items():
        if name in choices(settings) or (name == "cfc_share" and not value) or (name == "policy" and value == "none"):
            continue
        if name not in paths:
            raise SystemExit(f"{settings.method} with these parts has no setting {name}: {', '.join(paths)}")
        settings = with_value(settings, paths[name], value)
    return settings


def proxy_of(real: ImageSet, settings: Matching) -> nn.Module | None:
    """The proxy network of the settings' policy, trained; None where the policy needs none."""
    steps = getattr(getattr(settings.parameterization, "policy", None), "proxy_steps", None)
    if steps is None:
        return None
    where: dict[str, Any] = {"device": real.images.device, "seed": settings.seed}
    return trained_proxy(settings.network, settings.width, real, steps, **where)


def loop_of(
    real: ImageSet, settings: Matching, proxy: nn.Module | None = None, *, whole: ImageSet | None = None, **more: Any
) -> MatchingLoop:
    """The loop of these settings, before its first step. whole: the images of which `real` are the kept ones."""
    task = task_of(real, settings)
    task.proxy = proxy
    loop = matching_loop(task, settings, partial(finished, real=whole or real, settings=settings), **more)
    loop.begin()
    return loop


def set_of(loop: MatchingLoop, placed: Parameterization, params: Tensor) -> DistilledSet:
    """The distilled set of a loop with these parameters in the place of its own."""
    return loop.finish(*loop.selection.finished(placed, params).quantize(params))
