"""The matching loop: DC, DSA, DM, IDC and UDD are settings of this one loop.

A loop's whole state is in `State`; every draw is addressed by (seed, name, step, class), so stopping, saving, loading
and going on gives the same canvases, bit for bit on the CPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.dataset.initial import initial_canvases
from distil.dataset.networks import (
    Learner,
    fresh_learner,
    train_on_real,
    train_on_views,
    training_of,
)
from distil.dataset.objectives import feature_matching, gradient_matching, real_gradient
from distil.dataset.policies import Mined, mine
from distil.functional.augment import augment, normalise
from distil.functional.contrast import contrastive_loss
from distil.functional.gradients import matched_names
from distil.functional.regions import crop_resize, grid_regions
from distil.rng import stream
from distil.settings import MatchingSettings
from distil.sources.images import ImageSet
from distil.types import Batch

CONTRAST_VIEWS = 1024
"""At most so many synthetic views take part in one evaluation of the contrastive loss."""


@dataclass
class State:
    """Everything that changes while canvases are learned."""

    step: int
    """Matching steps done."""
    canvases: Float[Tensor, "n c h w"]
    momentum: Float[Tensor, "n c h w"]
    learner: Learner | None = None
    mined: Mined | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Losses of the last step, on the device."""

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""
        named = {"canvases": self.canvases, "momentum": self.momentum}
        if self.mined is not None:
            named |= {"windows": self.mined.windows, "utilisation": self.mined.utilisation}
        if self.learner is not None:
            named |= {f"weight.{i}": weight for i, weight in enumerate(self.learner.weights)}
            named |= {f"weight_momentum.{i}": m for i, m in enumerate(self.learner.momenta)}
        return named


def initial_state(real: ImageSet, settings: MatchingSettings) -> State:
    """The state before the first step."""
    canvases = initial_canvases(real, settings.ipc, settings.init, settings.factor, settings.seed)
    return State(0, canvases, torch.zeros_like(canvases))


def restored_state(
    step: int, tensors: dict[str, Tensor], real: ImageSet, settings: MatchingSettings, device: torch.device | str
) -> State:
    """The state that `tensors` of a checkpoint describe."""
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    state = State(step, tensors["canvases"], tensors["momentum"])
    if "windows" in tensors:
        state.mined = Mined(tensors["windows"], tensors["utilisation"])
    if "weight.0" in tensors:
        state.learner = _fresh(real, settings, 0, device)
        with torch.no_grad():
            for i, weight in enumerate(state.learner.weights):
                weight.copy_(tensors[f"weight.{i}"])
                state.learner.momenta[i] = tensors[f"weight_momentum.{i}"]
    return state


def total_steps(settings: MatchingSettings) -> int:
    """Matching steps of a whole run."""
    return settings.outer * settings.inner


def advance(state: State, real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None) -> Iterator[State]:
    """Run the loop from `state` to the end, changing it in place and yielding it after every matching step.

    real: training images, on the device that everything runs on. proxy: network trained on real images, for the
    policies that need one.

    Each of `outer` fresh networks serves `inner` matching steps. In a step every class's real batch and synthetic
    views, augmented alike, are matched and all canvases move once; then the network is trained. The canvases are
    clamped to [0, 1] with each fresh network and at the end.
    Differs: IDC moves the canvases after every class; with the network fixed within the step only the moment at which
    the momentum acts differs. DC, DSA and DM work on normalised pixels without a clamp; here the learning rate carries
    the normalisation.
    """
    device = real.images.device
    scale = torch.ones(1, real.channels, 1, 1, device=device)
    if settings.lr_space == "normalised":
        scale = torch.tensor(real.std, device=device).view(1, -1, 1, 1).square()
    training = training_of(settings)
    while state.step < total_steps(settings):
        outer, inner = divmod(state.step, settings.inner)
        if inner == 0:
            state.learner = _fresh(real, settings, outer, device)
            state.canvases.clamp_(0, 1)
            if _windows_due(settings, outer, state.mined is None):
                state.mined = _mine(state.canvases, real, settings, proxy, outer)
        learner = state.learner
        if learner is None:
            raise ValueError("a state in the middle of an outer iteration has no network")
        gradient, state.losses = matching_gradient(
            state.canvases, state.mined, learner.net, real, settings, outer, inner
        )
        state.momentum.mul_(settings.momentum_image).add_(gradient)
        state.canvases.sub_(settings.lr_image * scale * state.momentum)
        if inner < settings.inner - 1:
            if settings.network_data == "real":
                train_on_real(learner, real, settings.network_samples, training, settings.seed, "network", outer, inner)
            elif settings.network_data == "synthetic":
                views = decode(state.canvases, state.mined, settings, len(real.classes))
                train_on_views(
                    learner, views, settings.network_epochs, training, real, settings.seed, "network", outer, inner
                )
        state.step += 1
        if state.step == total_steps(settings):
            state.canvases.clamp_(0, 1)
        yield state


def _fresh(real: ImageSet, settings: MatchingSettings, outer: int, device: torch.device | str) -> Learner:
    return fresh_learner(
        settings.network, settings.width, real, device=device, seed=settings.seed, address=("network", outer)
    )


def _windows_due(settings: MatchingSettings, outer: int, none_yet: bool) -> bool:
    last = settings.outer - 1
    if settings.policy == "none" or outer < min(settings.windows_start * settings.outer, last):
        return False
    frozen = outer >= (1 - settings.windows_freeze) * settings.outer
    return none_yet or (outer % settings.refresh == 0 and not frozen and settings.policy != "fixed")


def _mine(canvases: Tensor, real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None, outer: int) -> Mined:
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
    )


@torch.no_grad()
def decode(canvases: Tensor, mined: Mined | None, settings: MatchingSettings, classes: int) -> Batch:
    """All views of all canvases, grid cells then mined windows, with their classes' labels."""
    size = (canvases.shape[-2], canvases.shape[-1])
    regions = all_regions(mined, settings.factor, size, canvases.device)
    labels = torch.arange(classes, device=canvases.device).repeat_interleave(settings.ipc * regions.shape[1])
    return Batch(crop_resize(canvases, regions, size), labels)


def all_regions(
    mined: Mined | None, factor: int, size: tuple[int, int], device: torch.device | str
) -> Float[Tensor, "n r 4"]:
    """The grid's cells and the mined windows; one row for all canvases when nothing is mined."""
    cells = grid_regions(factor, size, device=device)[None]
    if mined is None:
        return cells
    return torch.cat([cells.expand(len(mined.windows), -1, -1), mined.windows], dim=1)


def matching_gradient(
    canvases: Float[Tensor, "n c h w"],
    mined: Mined | None,
    net: nn.Module,
    real: ImageSet,
    settings: MatchingSettings,
    outer: int,
    inner: int,
) -> tuple[Float[Tensor, "n c h w"], dict[str, Tensor]]:
    """Gradient of one matching step with respect to all canvases, and the losses that make it up (sums over classes).

    The matching loss L_g of every class over the grid's views; with mined windows, their own matching loss, whose
    gradient is multiplied by 1 - utilisation so that it moves idle pixels; with cfc_share > 0, the contrastive loss L_c
    across classes. The last two gradients are scaled to windows_share and cfc_share of the first one's norm.
    """
    seed, ipc = settings.seed, settings.ipc
    size = real.size
    cells = grid_regions(settings.factor, size, device=canvases.device)[None]
    parameters = dict(net.named_parameters())
    weights = [parameters[name] for name in matched_names(net, settings.layers)]
    total, mined_total = torch.zeros_like(canvases), torch.zeros_like(canvases)
    zero = torch.zeros((), device=canvases.device)
    losses = {"loss": zero}
    centres = []

    for label, name in enumerate(real.classes):
        address = ("step", outer, inner, name)
        rows = slice(label * ipc, (label + 1) * ipc)

        def prepare(images: Tensor, address: tuple[str | int, ...] = address) -> Tensor:
            generator = stream(seed, *address, "augment")
            images = normalise(images, real.mean, real.std)
            return augment(images, settings.augment, generator, shared=True, one=settings.augment_one)

        images = prepare(real.sample_class(label, settings.batch_real, stream(seed, *address, "real")))
        batch = Batch(images, torch.full((len(images),), label, device=images.device))
        target = None
        if settings.objective == "gradient":
            target, centre = real_gradient(net, weights, batch)
            centres.append(centre)

        def match(views: Tensor, batch: Batch = batch, target=target, label: int = label) -> Tensor:
            synthetic = Batch(views, torch.full((len(views),), label, device=views.device))
            if target is None:
                return feature_matching(net, batch, synthetic)
            return gradient_matching(net, weights, target, synthetic, settings.distance)

        leaf = canvases[rows].detach().requires_grad_()
        views = crop_resize(leaf, cells, size)
        if len(views) > settings.batch_views:
            kept = torch.randperm(len(views), generator=stream(seed, *address, "views"))[: settings.batch_views]
            views = views[kept.to(views.device)]
        loss = match(prepare(views))
        total[rows] = torch.autograd.grad(loss, leaf)[0]
        losses["loss"] = losses["loss"] + loss.detach()

        if mined is not None:
            leaf = canvases[rows].detach().requires_grad_()
            loss = match(prepare(crop_resize(leaf, mined.windows[rows], size)))
            gradient = torch.autograd.grad(loss, leaf)[0]
            if settings.windows_mask:
                gradient = gradient * (1 - mined.utilisation[rows])[:, None]
            mined_total[rows] = gradient
            losses["mined"] = losses.get("mined", zero) + loss.detach()

    extra = _share_of(total, mined_total, settings.windows_share)
    if settings.cfc_share > 0 and settings.objective == "gradient":
        gradient, losses["contrast"] = contrast_gradient(
            canvases, torch.stack(centres), net, real, settings, outer, inner
        )
        extra = extra + _share_of(total, gradient, settings.cfc_share)
    return total + extra, losses


def _share_of(whole: Tensor, part: Tensor, share: float) -> Tensor:
    """`part` scaled so that its norm is `share` of that of `whole`; zeros stay zeros."""
    return part * (share * whole.norm() / part.norm().clamp_min(1e-12))


def contrast_gradient(
    canvases: Float[Tensor, "n c h w"],
    centres: Float[Tensor, "k d"],
    net: nn.Module,
    real: ImageSet,
    settings: MatchingSettings,
    outer: int,
    inner: int,
) -> tuple[Float[Tensor, "n c h w"], Tensor]:
    """Gradient of the contrastive loss with respect to all canvases, and the loss.

    centres: mean embedding of each class's real batch under that class's augmentation; the views are augmented alike.
    With very many views a random part of each class's stands for it (CONTRAST_VIEWS in all).
    """
    seed, ipc, size = settings.seed, settings.ipc, real.size
    cells = grid_regions(settings.factor, size, device=canvases.device)[None]
    most = max(1, CONTRAST_VIEWS // len(real.classes))
    leaf = canvases.detach().requires_grad_()
    means = []
    for label, name in enumerate(real.classes):
        address = ("step", outer, inner, name)
        views = crop_resize(leaf[label * ipc : (label + 1) * ipc], cells, size)
        if len(views) > most:
            kept = torch.randperm(len(views), generator=stream(seed, *address, "contrast"))[:most]
            views = views[kept.to(views.device)]
        views = normalise(views, real.mean, real.std)
        generator = stream(seed, *address, "augment")
        views = augment(views, settings.augment, generator, shared=True, one=settings.augment_one)
        means.append(net.embed(views).mean(0))  # pyright: ignore[reportCallIssue]
    loss = contrastive_loss(torch.stack(means), centres, settings.cfc_temperature)
    return torch.autograd.grad(loss, leaf)[0], loss.detach()
