"""How long a run will take, measured on its first steps."""

import time
from dataclasses import replace

from distil.data.images.image_set import ImageSet
from distil.dataset.compose import matching_loop, task_of
from distil.dataset.config import Matching
from distil.dataset.protocols import Task
from distil.dataset.proxies import trained_proxy
from distil.distilled_set.record import DistilledSet

MEASURED = 3
"""Steps, network stages and updates of the proxy network that are measured; the first of each does not count."""


def seconds_of_run(real: ImageSet, settings: Matching) -> float:
    """Seconds that all steps of a run take on the device of the images, its networks' training and the proxy's
    included; validations are not."""
    steps = getattr(getattr(settings.parameterization, "policy", None), "proxy_steps", None)
    task = task_of(real, settings)
    each = 0.0
    if steps is not None:
        proxy = (settings.network, settings.width, real)
        options = {"device": real.images.device, "seed": settings.seed}
        moments = [time.monotonic()]
        task.proxy = trained_proxy(*proxy, MEASURED, progress=lambda *_: moments.append(time.monotonic()), **options)
        each = (moments[-1] - moments[1]) / (len(moments) - 2) * steps
    if settings.target_reuse == 1:
        short = replace(settings, outer=MEASURED, inner=min(settings.inner, MEASURED))
        return each + settings.outer * settings.inner * _seconds_of_a_step(task, short)
    short = replace(settings, outer=1, inner=MEASURED, target_reuse=2)
    moments = [time.monotonic()]
    loop = matching_loop(task, short, _unmade, preparing=lambda *_: moments.append(time.monotonic()))
    loop.begin()
    loop.step()
    stage = (moments[-1] - moments[1]) / (len(moments) - 2)
    step = _timed(loop.step)
    return each + settings.outer * settings.inner * (stage + settings.target_reuse * step)


def _seconds_of_a_step(task: Task, settings: Matching) -> float:
    loop = matching_loop(task, settings, _unmade)
    loop.begin()
    loop.step()
    return min(_timed(loop.step) for _ in range(MEASURED - 1))


def _timed(step: object) -> float:
    start = time.monotonic()
    step()  # pyright: ignore[reportCallIssue]
    return time.monotonic() - start


def _unmade(*_: object) -> DistilledSet:
    raise AssertionError("an estimate makes no set")
