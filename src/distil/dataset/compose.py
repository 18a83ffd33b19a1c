"""Parts from their settings. What is no settings of distil's is a part of the user's making, and stands as it is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from distil.checks import shown
from distil.data.images.image_set import ImageSet
from distil.dataset import config
from distil.dataset.interpolated import InterpolatedNetworks
from distil.dataset.matching import MatchingLoop
from distil.dataset.network_sources import FreshNetworks, RealNetworks, SyntheticNetworks, TargetNetworks
from distil.dataset.network_state import Progress, Training, fresh_network
from distil.dataset.objectives.characteristic import CharacteristicObjective
from distil.dataset.objectives.contrastive import ContrastiveObjective
from distil.dataset.objectives.feature import FeatureObjective
from distil.dataset.objectives.gradient import GradientObjective
from distil.dataset.pool import PoolNetworks
from distil.dataset.protocols import NetworkSource, Objective, Sampler, Selection, Task
from distil.dataset.restoring import remembering
from distil.dataset.sampling import KMeansSampler
from distil.dataset.selection.coefficient_policies import (
    JitterOfFrequencies,
    LowestFrequencies,
    RandomFrequencies,
    ResponseToFrequencies,
    VarianceOfFrequencies,
)
from distil.dataset.selection.coefficients import CoefficientSelection, coefficients_of_an_image
from distil.dataset.selection.fred import FredSelection, coefficients_of_a_channel
from distil.dataset.selection.grid import GridSelection, check_grid
from distil.dataset.selection.unchanging import UnchangingSelection
from distil.dataset.selection.window_policies import (
    FixedWindows,
    JitterOfWindows,
    RandomWindows,
    ResponseToWindows,
)
from distil.dataset.selection.windows import WindowSelection, check_windows
from distil.dataset.shared_selection import SharedSelection
from distil.dataset.side_losses import ClassTerm, ContrastiveLoss, MinedWindowsLoss, SideLoss
from distil.dataset.spreading import NetworksAhead, SharedStages
from distil.dataset.step import Draw, NetworkStage
from distil.dataset.trajectory import TrajectoryLoop
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.parameterizations.base import Parameterization
from distil.processes import ONE, Processes


def matching_loop(
    task: Task,
    settings: config.Matching,
    finish: Callable[[Tensor, Parameterization], DistilledSet],
    *,
    stages: Callable[[int], list[NetworkStage]] | None = None,
    preparing: Progress | None = None,
    processes: Processes = ONE,
) -> MatchingLoop:
    """The loop that these settings compose. finish: makes a distilled set of stored parameters. processes: those that
    share its work."""
    objective = objective_of(settings)
    loop = MatchingLoop(
        task,
        settings,
        selection_of(settings.parameterization, task),
        objective,
        networks_of(settings, task),
        sampler_of(settings.sampler, task),
        finish,
        side_losses=side_losses_of(settings, objective, task),
        stages=stages,
        preparing=preparing,
    )
    return loop if processes.count == 1 else shared_loop(loop, processes)


def shared_loop(loop: MatchingLoop, processes: Processes) -> MatchingLoop:
    """The same loop in several processes: trajectories are spread over them where nothing is remembered from one to the
    next, and the classes of every step."""
    settings, networks = loop.settings, loop.networks
    shared = replace(loop, selection=SharedSelection(loop.selection, processes, loop.task), processes=processes)
    how = (processes, settings.outer, settings.inner, loop.preparing)
    if remembering(loop) or loop.stages is not None:
        return shared
    if settings.target_reuse > 1:
        return replace(shared, stages=SharedStages(*how, loop.all_stages, networks.fresh))
    if getattr(networks, "ahead", False) and settings.inner > 1:
        return replace(shared, networks=NetworksAhead(*how, networks))
    return shared


def trajectory_loop(
    task: Task, settings: config.Trajectory, finish: Callable[[Tensor, Parameterization], DistilledSet]
) -> TrajectoryLoop:
    """The loop of a method that matches experts' training."""
    return TrajectoryLoop(task, settings, selection_of(settings.parameterization, task), finish)


def task_of(real: ImageSet, settings: config.Learning) -> Task:
    """What the parts of a run on these images share."""

    def network() -> nn.Module:
        where: dict[str, Any] = {"device": real.images.device, "seed": settings.seed, "address": ("initial", "network")}
        return fresh_network(settings.network, settings.width, real, **where).net

    outer = settings.steps if isinstance(settings, config.Trajectory) else settings.outer
    return Task(real, settings.ipc, settings.seed, outer, network=network)


def objective_of(settings: config.Matching) -> Objective:
    """What is matched."""
    chosen = settings.objective
    if isinstance(chosen, config.CharacteristicMatching):
        return CharacteristicObjective(chosen.frequencies, chosen.amplitude, chosen.phase, chosen.scale)
    if isinstance(chosen, config.GradientMatching):
        every = isinstance(settings.networks, config.TrainedOnTargets)
        return GradientObjective(chosen.distance, chosen.layers, every, means=settings.contrastive is not None)
    return FeatureObjective() if isinstance(chosen, config.FeatureMatching) else chosen


def sampler_of(chosen: Any, task: Task) -> Sampler:
    """Which real images are matched."""
    return KMeansSampler(chosen, task.real) if isinstance(chosen, config.KMeans) else chosen


def selection_of(chosen: Any, task: Task) -> Selection:
    """Which parameters there are. Of the user's making: a parameterization, which stays as it is, or a selection, which
    is called with the task."""
    match chosen:
        case config.Windows():
            return WindowSelection(chosen, window_policy(chosen.policy), task)
        case config.Grid():
            return GridSelection(chosen, task)
        case config.Dct():
            policy = coefficient_policy(chosen.policy)
            starts = {"policy": policy, "fixed": LowestFrequencies(), "random": RandomFrequencies()}
            return CoefficientSelection(chosen, policy, starts[chosen.start], task)
        case config.Fred():
            return FredSelection(chosen, task)
        case _:
            return UnchangingSelection(chosen, task) if hasattr(chosen, "decode") else chosen(task)


def window_policy(chosen: Any) -> Any:
    """How windows are chosen."""
    match chosen:
        case config.Fixed():
            return FixedWindows()
        case config.Random():
            return RandomWindows()
        case config.Response():
            return ResponseToWindows()
        case config.WindowJitter():
            return JitterOfWindows(chosen.jitter, chosen.jitter_draws)
        case _:
            return chosen


def coefficient_policy(chosen: Any) -> Any:
    """How coefficients are chosen."""
    known = {
        config.Fixed: LowestFrequencies,
        config.Random: RandomFrequencies,
        config.Variance: VarianceOfFrequencies,
        config.Response: ResponseToFrequencies,
        config.Jitter: JitterOfFrequencies,
    }
    return known[type(chosen)]() if type(chosen) in known else chosen


def networks_of(settings: config.Matching, task: Task) -> NetworkSource:
    """Where networks come from."""
    chosen, low = settings.networks, settings.bfloat16 != "none"
    drawn = FreshNetworks(settings.network, settings.width, task.real, task.seed, low)
    if isinstance(chosen, config.Fresh):
        return drawn
    if isinstance(chosen, config.Interpolated):
        return InterpolatedNetworks(task, drawn)
    known = (config.TrainedOnReal, config.TrainedOnSynthetic, config.TrainedOnTargets, config.Pool)
    if not isinstance(chosen, known):
        return chosen
    in_low = "network" in settings.bfloat16
    training = Training(chosen.lr, chosen.momentum, chosen.weight_decay, bfloat16=in_low)
    if isinstance(chosen, config.TrainedOnTargets):
        return TargetNetworks(drawn, training)
    one, batches = settings.augment_one, {"batch": chosen.batch, "augment": chosen.augment, "cutmix": chosen.cutmix}
    training = replace(training, augment_one=one, **batches)
    if isinstance(chosen, config.Pool):
        return PoolNetworks(chosen, drawn, training)
    if isinstance(chosen, config.TrainedOnReal):
        return RealNetworks(drawn, training, chosen.samples)
    return SyntheticNetworks(drawn, training, chosen.epochs)


def side_losses_of(settings: config.Matching, objective: Objective, task: Task) -> list[SideLoss]:
    """Losses beside the objective."""
    losses: list[SideLoss] = []
    matched = getattr(settings.parameterization, "windows_loss", None)
    if isinstance(matched, config.Apart):
        draw = Draw(settings.batch_synthetic, "views")
        losses.append(MinedWindowsLoss(objective, matched.windows_share, matched.windows_mask, draw))
    if settings.classification is not None:
        term, draw = settings.classification, Draw(settings.batch_synthetic, "views")
        losses.append(ClassTerm(term.weight, term.by_accuracy, draw))
    if settings.contrastive is not None:
        contrast = ContrastiveObjective(settings.contrastive.temperature)
        shared = isinstance(objective, (GradientObjective, FeatureObjective))  # whose targets hold the means
        targets = "loss" if shared else "contrast"
        losses.append(ContrastiveLoss(contrast, settings.contrastive.share, task.classes, targets=targets))
    return losses


def check_parameterization(chosen: Any, channels: int, size: tuple[int, int]) -> None:
    """Refuse a parameterization that images of this shape cannot have. Raises: DistilError that names the field."""
    if isinstance(chosen, config.Dct):
        coefficients_of_an_image((channels, *size), chosen)
    if isinstance(chosen, config.Fred):
        coefficients_of_a_channel((channels, *size), chosen)
    if isinstance(chosen, config.Grid):
        check_grid(chosen, size)
    if isinstance(chosen, config.Windows):
        check_windows(chosen, size)
    if (
        not isinstance(chosen, (config.Dct, config.Fred, config.Grid))
        and not hasattr(chosen, "decode")
        and not callable(chosen)
    ):
        raise DistilError(
            f"parameterization is {shown(type(chosen).__name__)}, which can neither decode nor be called with the "
            "task: give a parameterization, or what makes a selection."
        )


def real_images_of_a_class(chosen: Any) -> int:
    """Real images of a class that each item begins with and that must be different ones; 0: none."""
    if isinstance(chosen, config.Grid) and chosen.init == "noise":
        return 0
    if isinstance(chosen, config.Dct) and chosen.init == "noise":
        return 0
    return chosen.factor**2 if isinstance(chosen, config.Grid) and chosen.init == "mix" else 1
