"""The matching loop: DC, DSA, DM, IDC and UDD are settings of this one loop.

A loop's whole state is in `State`; every draw is addressed by (seed, name, step, class), so stopping, saving, loading
and going on gives the same canvases, bit for bit on the CPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import cos, pi

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.formation import Spectrum, spectral_canvases, views_of
from distil.dataset.initial import initial_canvases, paste_real
from distil.dataset.networks import (
    Learner,
    Progress,
    fresh_learner,
    train_by_gradient,
    train_on_real,
    train_on_views,
    training_of,
)
from distil.dataset.policies import Mined, cosines_kept_next, kept_cosines, mine
from distil.dataset.step import Age, matching_gradient, real_targets
from distil.functional.regions import grid_regions
from distil.rng import stream
from distil.settings import MatchingSettings
from distil.types import Batch, Regions

LARGEST = 1e4
"""A canvas's number beyond this, thousands of times what an image can hold, has run away."""


@dataclass
class State:
    """Everything that changes while canvases are learned."""

    step: int
    """Matching steps done."""
    canvases: Float[Tensor, "n c h w"]
    momentum: Float[Tensor, "n c h w"]
    learner: Learner | None = None
    mined: Mined | None = None
    spectrum: Spectrum | None = None
    """With formation spectrum: what the canvases' numbers multiply."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Losses of the last step, on the device."""

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""
        named = {"canvases": self.canvases, "momentum": self.momentum}
        if self.mined is not None:
            named |= {"windows": self.mined.windows, "utilisation": self.mined.utilisation}
        if self.spectrum is not None:
            named["cosines"] = self.spectrum.kept
        if self.learner is not None:
            named |= {f"weight.{i}": weight for i, weight in enumerate(self.learner.weights)}
            named |= {f"weight_momentum.{i}": m for i, m in enumerate(self.learner.momenta)}
        return named


def initial_state(real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None = None) -> State:
    """The state before the first step. proxy: network trained on real images, for the policies that need one."""
    spectrum = None
    if settings.formation == "spectrum":
        spectrum = Spectrum(kept_cosines(real, settings, proxy).to(real.images.device), (real.channels, *real.size))
        canvases = spectral_canvases(real, spectrum, settings)
    else:
        canvases = initial_canvases(real, settings.ipc, settings.init, settings.factor, settings.seed)
    return State(0, canvases, torch.zeros_like(canvases), spectrum=spectrum)


def restored_state(
    step: int, tensors: dict[str, Tensor], real: ImageSet, settings: MatchingSettings, device: torch.device | str
) -> State:
    """The state that `tensors` of a checkpoint describe; `restoring.check_state` tells whether they are sound."""
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    state = State(step, tensors["canvases"], tensors["momentum"])
    if "cosines" in tensors:
        state.spectrum = Spectrum(tensors["cosines"], (real.channels, *real.size))
    if "windows" in tensors:
        state.mined = Mined(tensors["windows"], tensors["utilisation"])
    if "weight.0" in tensors:
        state.learner = _fresh(real, settings, 0, device)
        with torch.no_grad():
            for i, weight in enumerate(state.learner.weights):
                weight.copy_(tensors[f"weight.{i}"])
                state.learner.momenta[i] = tensors[f"weight_momentum.{i}"]
        state.learner.refresh_low()
    return state


def total_steps(settings: MatchingSettings) -> int:
    """Matching steps of a whole run."""
    return settings.outer * settings.inner * settings.target_updates


def advance(
    state: State,
    real: ImageSet,
    settings: MatchingSettings,
    proxy: nn.Module | None,
    ages: Callable[[int], list[Age]] | None = None,
    preparing: Progress | None = None,
) -> Iterator[State]:
    """Run the loop from `state` to the end, changing it in place and yielding it after every matching step.

    real: training images, on the device that everything runs on. proxy: network trained on real images, for the
    policies that need one. ages: with target_updates above 1, gives the networks and targets of an outer iteration,
    which several runs with the same data, seed and network settings can share; None computes them (`all_ages`) and
    calls `preparing` after each, at moments when the state is that after a whole step.

    Each of `outer` fresh networks serves `inner` matching steps. In a step every class's real batch and synthetic
    views, augmented alike, are matched and all canvases move once; then the network is trained. The canvases are
    clamped to [0, 1] with each fresh network and at the end.

    With target_updates above 1, a network's real targets at all its `inner` ages are computed first, since they do not
    depend on the canvases, and then each serves so many steps, in random order.

    Differs: IDC moves the canvases after every class; with the network fixed within the step only the moment at which
    the momentum acts differs. DC, DSA and DM work on normalised pixels without a clamp; here the learning rate carries
    the normalisation.
    """
    device = real.images.device
    scale = torch.ones(1, 1, 1, 1, device=device)
    if settings.lr_space == "normalised" and state.spectrum is None:
        scale = torch.tensor(real.std, device=device).view(1, -1, 1, 1).square()
    held: list[Age] = []
    while state.step < total_steps(settings):
        outer, within = divmod(state.step, settings.inner * settings.target_updates)
        if settings.target_updates > 1 and (within == 0 or not held):
            held = ages(outer) if ages else all_ages(real, settings, outer, preparing)
        if within == 0:
            _clamp(state)
            if _cosines_due(settings, outer):
                choose_cosines_again(state, real, settings, proxy, outer)
            if _windows_due(settings, outer, state.mined is None):
                before, state.mined = state.mined, chosen_windows(state.canvases, real, settings, proxy, outer)
                if settings.windows_init == "real":
                    fresh = _not_among(state.mined.windows, before)
                    paste_real(state.canvases, state.mined.windows, fresh, real, settings.seed, outer)
        if settings.target_updates == 1:
            if within == 0:
                state.learner = _fresh(real, settings, outer, device)
            if state.learner is None:
                raise ValueError("a state in the middle of an outer iteration has no network")
            age = Age(state.learner, real_targets(state.learner, real, settings, outer, within), outer, within)
        else:
            visit, turn = divmod(within, settings.inner)
            age = held[torch.randperm(settings.inner, generator=stream(settings.seed, "visit", outer, visit))[turn]]
        gradient, state.losses = matching_gradient(state.canvases, state.mined, age, real, settings, state.spectrum)
        if settings.gradient_scale == "canvas":
            gradient = gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        state.momentum.mul_(settings.momentum_image).add_(gradient)
        state.canvases.sub_(lr_image_at(state.step, settings) * scale * state.momentum)
        if settings.target_updates == 1 and within < settings.inner - 1:
            _train(age, state, real, settings)
        state.step += 1
        if state.step == total_steps(settings):
            _clamp(state)
        yield state


def all_ages(real: ImageSet, settings: MatchingSettings, outer: int, preparing: Progress | None = None) -> list[Age]:
    """A fresh network at every age that the matching steps of an outer iteration see, and its real targets there."""
    learner = _fresh(real, settings, outer, real.images.device)
    ages = []
    for inner in range(settings.inner):
        age = Age(learner, real_targets(learner, real, settings, outer, inner), outer, inner)
        ages.append(replace(age, learner=learner.frozen()))
        if preparing:
            preparing(inner + 1, settings.inner)
        if inner < settings.inner - 1:
            _train(age, None, real, settings)
    return ages


def _train(age: Age, state: State | None, real: ImageSet, settings: MatchingSettings) -> None:
    """Train the network from one age to the next; `state` is needed where it learns the synthetic views."""
    training = training_of(settings)
    address = ("network", age.outer, age.inner)
    if settings.network_data == "real":
        train_on_real(age.learner, real, settings.network_samples, training, settings.seed, *address)
    elif settings.network_data == "matched":
        train_by_gradient(age.learner, age.targets.descent, training)
    elif settings.network_data == "synthetic" and state is not None:
        views = decode(state.canvases, state.mined, settings, len(real.classes), state.spectrum)
        train_on_views(age.learner, views, settings.network_epochs, training, real, settings.seed, *address)


def _clamp(state: State) -> None:
    """Hold pixels within [0, 1]; coefficients are free."""
    if state.spectrum is None:
        state.canvases.clamp_(0, 1)


def lr_image_at(step: int, settings: MatchingSettings) -> float:
    """Learning rate of the canvases in the matching step that is number `step` (from 0)."""
    if settings.lr_schedule == "constant":
        return settings.lr_image
    return settings.lr_image * (1 + cos(pi * step / total_steps(settings))) / 2


def _fresh(real: ImageSet, settings: MatchingSettings, outer: int, device: torch.device | str) -> Learner:
    return fresh_learner(
        settings.network,
        settings.width,
        real,
        device=device,
        seed=settings.seed,
        address=("network", outer),
        bfloat16=settings.bfloat16 != "none",
    )


def _not_among(windows: Regions, before: Mined | None) -> Bool[Tensor, "n r"]:
    """Which windows of each canvas were not chosen before."""
    if before is None:
        return torch.ones(windows.shape[:2], dtype=torch.bool, device=windows.device)
    return ~(windows[:, :, None] == before.windows[:, None]).all(3).any(2)


def _windows_due(settings: MatchingSettings, outer: int, none_yet: bool) -> bool:
    last = settings.outer - 1
    if (
        settings.policy == "none"
        or settings.formation == "spectrum"
        or outer < min(settings.windows_start * settings.outer, last)
    ):
        return False
    frozen = outer >= (1 - settings.windows_freeze) * settings.outer
    return none_yet or (outer % settings.refresh == 0 and not frozen and settings.policy != "fixed")


def mines_by(step: int, settings: MatchingSettings) -> bool:
    """Whether windows have been chosen when `step` steps are done."""
    last_outer = (step - 1) // (settings.inner * settings.target_updates)
    return step > 0 and _windows_due(settings, last_outer, none_yet=True)


def _cosines_due(settings: MatchingSettings, outer: int) -> bool:
    if settings.formation != "spectrum" or not settings.spectral_refresh or outer == 0:
        return False
    frozen = outer >= (1 - settings.windows_freeze) * settings.outer
    return outer % settings.spectral_refresh == 0 and not frozen


def choose_cosines_again(
    state: State, real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None, outer: int
) -> None:
    """Put idle cosines in the place of underutilized ones, for network number `outer`: changes the state in place.

    What is new begins with the coefficients of the images that the views began with, and without momentum.
    """
    if state.spectrum is None:
        raise ValueError("only views that are made of cosines can choose them again")
    before = state.spectrum
    views = views_of(state.canvases, before, real.size)
    kept = cosines_kept_next(views, before.kept, real, settings, proxy, outer)
    if torch.equal(kept, before.kept):
        return
    state.spectrum = replace(before, kept=kept)
    fresh = spectral_canvases(real, state.spectrum, settings)
    stay = torch.isin(kept, before.kept)
    places = torch.searchsorted(before.kept, kept[stay])
    for now, new in ((state.canvases, fresh), (state.momentum, torch.zeros_like(fresh))):
        used = now[0].numel() // len(kept) * len(kept)
        old = now.flatten(1)[:, :used].unflatten(1, (-1, len(kept)))
        numbers = new.flatten(1)[:, :used].unflatten(1, (-1, len(kept)))
        numbers[..., stay] = old[..., places]
        now.flatten(1)[:, :used] = numbers.flatten(1)


def chosen_windows(
    canvases: Tensor, real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None, outer: int
) -> Mined:
    """The windows that the policy chooses on the canvases as they are, for network number `outer`."""
    return mine(
        settings.policy,
        canvases,
        proxy,
        factor=settings.factor,
        count=settings.windows,
        mean=real.mean,
        std=real.std,
        jitter=settings.jitter,
        jitter_draws=settings.jitter_draws,
        generator=stream(settings.seed, "windows", outer),
        windows_factor=settings.windows_factor,
        apart=settings.windows_init == "real",
    )


@torch.no_grad()
def decode(
    canvases: Tensor, mined: Mined | None, settings: MatchingSettings, classes: int, spectrum: Spectrum | None = None
) -> Batch:
    """All views of all canvases, grid cells then mined windows or those of the spectrum, with their classes' labels."""
    size = (canvases.shape[-2], canvases.shape[-1])
    regions = spectrum or all_regions(mined, settings.factor, size, canvases.device)
    views = views_of(canvases, regions, size)
    labels = torch.arange(classes, device=canvases.device).repeat_interleave(len(views) // classes)
    return Batch(views, labels)


def all_regions(
    mined: Mined | None, factor: int, size: tuple[int, int], device: torch.device | str
) -> Float[Tensor, "n r 4"]:
    """The grid's cells and the mined windows; one row for all canvases when nothing is mined."""
    cells = grid_regions(factor, size, device=device)[None]
    if mined is None:
        return cells
    return torch.cat([cells.expand(len(mined.windows), -1, -1), mined.windows], dim=1)
