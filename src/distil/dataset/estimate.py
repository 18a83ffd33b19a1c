"""How long a run will take, measured on its first steps."""

import time
from dataclasses import replace

from distil.data.images.image_set import ImageSet
from distil.dataset.compose import matching_loop, task_of, trajectory_loop
from distil.dataset.config import (
    Experts,
    HardLabels,
    KMeans,
    Learning,
    Matching,
    Trajectory,
    experts_of,
    kept_epochs,
)
from distil.dataset.experts import training_of
from distil.dataset.network_state import fresh_network, train_batch
from distil.dataset.protocols import Task
from distil.dataset.proxies import trained_proxy
from distil.distilled_set.record import DistilledSet
from distil.networks.experts import Experts as TrainedExperts
from distil.rng import stream

MEASURED = 3
"""Steps, network stages and updates of the proxy network that are measured; the first of each does not count, but where
it alone finds clusters (DREAM): they take as long as it takes longer."""


def seconds_of_run(real: ImageSet, settings: Learning) -> float:
    """Seconds that all steps of a run take on the device of the images, its networks' training and the proxy's
    included; validations and the training of experts (`seconds_of_experts`) are not."""
    steps = getattr(getattr(settings.parameterization, "policy", None), "proxy_steps", None)
    task = task_of(real, settings)
    each = 0.0
    if steps is not None:
        proxy = (settings.network, settings.width, real)
        options = {"device": real.images.device, "seed": settings.seed}
        moments = [time.monotonic()]
        task.proxy = trained_proxy(*proxy, MEASURED, progress=lambda *_: moments.append(time.monotonic()), **options)
        each = (moments[-1] - moments[1]) / (len(moments) - 2) * steps
    if (wanted := experts_of(settings)) is not None:
        task.experts = _untrained(task, kept_epochs(wanted))
    if isinstance(settings, Trajectory):
        short = replace(settings, labels=HardLabels(), skip_above=0.0)
        short = _with_any_start(short)
        loop = trajectory_loop(task, short, _unmade)
        loop.begin()
        loop.step()
        return each + settings.steps * min(_timed(loop.step) for _ in range(MEASURED - 1))
    if settings.target_reuse == 1:
        short = replace(settings, outer=MEASURED, inner=min(settings.inner, MEASURED))
        share = _share_with_clusters(settings)
        return each + settings.outer * settings.inner * _seconds_of_a_step(task, short, share)
    if settings.inner == 1:
        stage, step = _seconds_of_another_network(task, replace(settings, outer=MEASURED, target_reuse=2))
        return each + settings.outer * (stage + settings.target_reuse * step)
    short = replace(settings, outer=1, inner=MEASURED, target_reuse=2)
    moments: list[float] = []
    loop = matching_loop(task, short, _unmade, preparing=lambda *_: moments.append(time.monotonic()))
    loop.begin()
    moments.append(time.monotonic())
    loop.step()
    stage = (moments[-1] - moments[1]) / (len(moments) - 2)
    stage += _share_with_clusters(settings) * max(0.0, moments[1] - moments[0] - stage)
    step = _timed(loop.step)
    return each + settings.outer * settings.inner * (stage + settings.target_reuse * step)


def seconds_of_experts(real: ImageSet, settings: Experts, network: str, width: int) -> float:
    """Seconds that the training of experts takes on the device of the images."""
    state = fresh_network(network, width, real, device=real.images.device, seed=0, address=("estimate",))
    training = training_of(settings)

    def update() -> None:
        generator = stream(0, "estimate")
        train_batch(state, real.sample(settings.batch, generator), training, real, generator)

    update()
    updates = settings.runs * settings.epochs * -(-len(real) // settings.batch)
    return updates * min(_timed(update) for _ in range(MEASURED))


def _untrained(task: Task, epochs: tuple[int, ...]) -> TrainedExperts:
    """An expert that has moved at random, in the place of trained ones: steps take the same time with it."""
    assert task.network is not None
    first = [weight.detach().cpu() for weight in task.network().parameters()]
    return TrainedExperts(epochs, 1, lambda run, at: [weight * (1 + 0.01 * at) for weight in first])


def _with_any_start(settings: Trajectory) -> Trajectory:
    """The settings with real images to start from that no expert has to recognize."""
    chosen = settings.parameterization
    if getattr(chosen, "init_from", "random") != "recognized":
        return settings
    return replace(settings, parameterization=replace(chosen, init_from="random"))


def _share_with_clusters(settings: Matching) -> float:
    """Share of the matching steps on a network before which clusters are found."""
    if not isinstance(settings.sampler, KMeans):
        return 0.0
    return -(-settings.inner // settings.sampler.cluster_every) / settings.inner


def _seconds_of_a_step(task: Task, settings: Matching, clusters: float) -> float:
    loop = matching_loop(task, settings, _unmade)
    loop.begin()
    first = _timed(loop.step)
    others = min(_timed(loop.step) for _ in range(MEASURED - 1))
    return others + clusters * max(0.0, first - others)


def _seconds_of_another_network(task: Task, settings: Matching) -> tuple[float, float]:
    """(seconds until a network's targets are there, seconds of a step with them)."""
    loop = matching_loop(task, settings, _unmade)
    loop.begin()
    times = [_timed(loop.step) for _ in range(2 * MEASURED)]
    step = min(times[1::2])
    return min(times[2::2]) - step, step


def _timed(step: object) -> float:
    start = time.monotonic()
    step()  # pyright: ignore[reportCallIssue]
    return time.monotonic() - start


def _unmade(*_: object) -> DistilledSet:
    raise AssertionError("an estimate makes no set")
