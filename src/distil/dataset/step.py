"""One matching step: the real targets in the present network, and the gradient that they give every canvas."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from distil.data.images.image_set import ImageSet
from distil.dataset.formation import Spectrum, views_of, views_on
from distil.dataset.networks import Learner
from distil.dataset.objectives import feature_matching, gradient_matching, real_gradients
from distil.dataset.policies import Mined
from distil.functional.augment import augment, normalize
from distil.functional.contrast import contrastive_loss
from distil.functional.gradients import matched_names
from distil.functional.regions import grid_regions
from distil.rng import stream
from distil.settings import MatchingSettings
from distil.types import Regions

CONTRAST_VIEWS = 1024
"""At most so many synthetic views take part in one evaluation of the contrastive loss."""

VIEWS_AT_ONCE = {"cpu": 128}
VIEWS_AT_ONCE_ELSEWHERE = 4096
REAL_IMAGES_AT_ONCE = {"cpu": 1}
REAL_IMAGES_AT_ONCE_ELSEWHERE = 4096
"""Classes share a pass as long as their images number no more than this: beyond it only memory is used. On the CPU real
batches are large enough alone."""


@dataclass(frozen=True)
class Targets:
    """What the real images of every class ask for, in one network under one augmentation."""

    gradients: dict[str, Float[Tensor, "k ..."]]
    """Gradient of each matched weight, one a class, in its own precision; empty when embeddings are matched."""
    centres: Float[Tensor, "k d"]
    """Mean embedding of each class."""
    descent: tuple[Tensor, ...]
    """Mean over classes of the gradient of every weight; empty unless the network is trained by it."""


@dataclass(frozen=True)
class Age:
    """A network after `inner` rounds of training, number `outer` of the run, and its real targets."""

    learner: Learner
    targets: Targets
    outer: int
    inner: int

    def address(self, name: str) -> tuple[str | int, ...]:
        """Where the draws of a class are made."""
        return ("step", self.outer, self.inner, name)


def real_targets(learner: Learner, real: ImageSet, settings: MatchingSettings, outer: int, inner: int) -> Targets:
    """Targets of the step (outer, inner): each class's real batch, drawn and augmented at the class's address."""
    net = learner.computing("real" in settings.bfloat16)
    parameters = dict(net.named_parameters())
    matched = matched_names(net, settings.layers)
    trained = settings.network_data == "matched"
    names = list(parameters) if trained else matched
    dtype = next(iter(parameters.values())).dtype
    most = REAL_IMAGES_AT_ONCE.get(real.images.device.type, REAL_IMAGES_AT_ONCE_ELSEWHERE)
    gradients: list[list[Tensor]] = []
    centres = []
    for classes in _together(len(real.classes), settings.batch_real, most):
        batches = []
        for label in classes:
            address = ("step", outer, inner, real.classes[label])
            images = real.sample_class(label, settings.batch_real, stream(settings.seed, *address, "real"))
            batches.append(prepare(images, real, settings, address).to(dtype))
        labels = torch.tensor(classes, device=real.images.device)
        if settings.objective == "feature":
            with torch.no_grad():
                centres += [net.embed(images).float().mean(0)[None] for images in batches]  # pyright: ignore[reportCallIssue]
        else:
            rows, centre = real_gradients(net, names, torch.stack(batches), labels)
            gradients.append(rows)
            centres.append(centre)
    stacked = {name: torch.cat(rows) for name, rows in zip(names, zip(*gradients, strict=True), strict=False)}
    descent = tuple(rows.float().mean(0) for rows in stacked.values()) if trained else ()
    return Targets({name: stacked[name] for name in matched if name in stacked}, torch.cat(centres), descent)


def prepare(
    images: Float[Tensor, "n c h w"], real: ImageSet, settings: MatchingSettings, address: tuple[str | int, ...]
) -> Float[Tensor, "n c h w"]:
    """Normalise and augment images of one class; equal addresses give equal draws (siamese augmentation)."""
    images = normalize(images, real.mean, real.std)
    generator = stream(settings.seed, *address, "augment")
    return augment(images, settings.augment, generator, shared=True, one=settings.augment_one)


def matching_gradient(
    canvases: Float[Tensor, "n c h w"],
    mined: Mined | None,
    age: Age,
    real: ImageSet,
    settings: MatchingSettings,
    spectrum: Spectrum | None = None,
) -> tuple[Float[Tensor, "n c h w"], dict[str, Tensor]]:
    """Gradient of one matching step with respect to all canvases, and the losses that make it up (sums over classes).

    The matching loss L_g of every class over the grid's views, and with windows_loss "joint" those of mined windows;
    with "apart" these have a matching loss of their own, whose gradient is multiplied by 1 - utilisation so that it
    moves idle pixels; with cfc_share > 0, the contrastive loss L_c across classes. The last two gradients are scaled to
    windows_share and cfc_share of the first one's norm. With a spectrum, its views take the place of the grid's.
    """
    cells = spectrum or grid_regions(settings.factor, real.size, device=canvases.device)[None]
    if mined is not None and isinstance(cells, Tensor) and settings.windows_loss == "joint":
        views = torch.cat([cells.expand(len(canvases), -1, -1), mined.windows], 1)
        mined = None
    else:
        views = cells
    total, loss = _views_gradient(canvases, views, age, real, settings)
    losses = {"loss": loss}
    extra = torch.zeros_like(total)
    if mined is not None:
        gradient, losses["mined"] = _views_gradient(canvases, mined.windows, age, real, settings)
        if settings.windows_mask:
            gradient = gradient * (1 - mined.utilisation)[:, None]
        extra = extra + _share_of(total, gradient, settings.windows_share)
    if settings.cfc_share > 0:
        gradient, losses["contrast"] = contrast_gradient(canvases, age, real, settings, spectrum)
        extra = extra + _share_of(total, gradient, settings.cfc_share)
    return total + extra, losses


def _views_gradient(
    canvases: Tensor,
    regions: Regions | Spectrum,
    age: Age,
    real: ImageSet,
    settings: MatchingSettings,
) -> tuple[Tensor, Tensor]:
    """Gradient of the matching loss of the views of `regions`, or of a spectrum, with respect to the canvases, and the
    loss."""
    net = age.learner.computing("synthetic" in settings.bfloat16)
    dtype = next(net.parameters()).dtype
    total = torch.zeros_like(canvases)
    losses = []
    count = min(settings.ipc * views_on(canvases, regions), settings.batch_views)
    most = VIEWS_AT_ONCE.get(canvases.device.type, VIEWS_AT_ONCE_ELSEWHERE)
    for classes in _together(len(real.classes), count, most):
        first, last = classes[0] * settings.ipc, (classes[-1] + 1) * settings.ipc
        leaf = canvases[first:last].detach().requires_grad_()
        views = [
            _some_views(
                leaf[i * settings.ipc : (i + 1) * settings.ipc], rows, real, settings, age.address(real.classes[label])
            )
            for i, (label, rows) in enumerate(zip(classes, _rows(regions, classes, settings.ipc), strict=True))
        ]
        if settings.objective == "gradient":
            labels = torch.tensor(classes, device=canvases.device)
            wanted = {name: rows[classes[0] : classes[-1] + 1] for name, rows in age.targets.gradients.items()}
            loss = gradient_matching(net, wanted, torch.stack(views).to(dtype), labels, settings.distance)
        else:
            pairs = zip(classes, views, strict=True)
            loss = torch.stack([feature_matching(net, age.targets.centres[c], x.to(dtype)) for c, x in pairs]).sum()
        total[first:last] = torch.autograd.grad(loss, leaf)[0]
        losses.append(loss.detach())
    return total, torch.stack(losses).sum()


def _together(classes: int, images: int, most: int) -> Iterator[list[int]]:
    """Runs of classes that share a pass: together `most` images at most, or one class."""
    size = max(1, most // images)
    for first in range(0, classes, size):
        yield list(range(first, min(classes, first + size)))


def _rows(regions: Regions | Spectrum, classes: list[int], ipc: int) -> Sequence[Regions | Spectrum]:
    """The regions of each class's canvases."""
    if isinstance(regions, Spectrum) or len(regions) == 1:
        return [regions] * len(classes)
    return [regions[label * ipc : (label + 1) * ipc] for label in classes]


def _some_views(
    canvases: Tensor,
    regions: Regions | Spectrum,
    real: ImageSet,
    settings: MatchingSettings,
    address: tuple[str | int, ...],
) -> Tensor:
    """The augmented views of one class, at most batch_views of them, drawn at the class's address."""
    views = views_of(canvases, regions, real.size)
    if len(views) > settings.batch_views:
        order = torch.randperm(len(views), generator=stream(settings.seed, *address, "views"))
        views = views[order[: settings.batch_views].to(views.device)]
    return prepare(views, real, settings, address)


def _share_of(whole: Tensor, part: Tensor, share: float) -> Tensor:
    """`part` scaled so that its norm is `share` of that of `whole`; zeros stay zeros."""
    return part * (share * whole.norm() / part.norm().clamp_min(1e-12))


def contrast_gradient(
    canvases: Float[Tensor, "n c h w"],
    age: Age,
    real: ImageSet,
    settings: MatchingSettings,
    spectrum: Spectrum | None = None,
) -> tuple[Float[Tensor, "n c h w"], Tensor]:
    """Gradient of the contrastive loss with respect to all canvases, and the loss.

    The views meet the mean embeddings of the real batches, under each class's augmentation on both sides.
    With very many views a random part of each class's stands for it (CONTRAST_VIEWS in all).
    """
    net = age.learner.computing("synthetic" in settings.bfloat16)
    dtype = next(net.parameters()).dtype
    ipc = settings.ipc
    cells = spectrum or grid_regions(settings.factor, real.size, device=canvases.device)[None]
    most = max(1, CONTRAST_VIEWS // len(real.classes))
    leaf = canvases.detach().requires_grad_()
    means = []
    for label, name in enumerate(real.classes):
        address = age.address(name)
        views = views_of(leaf[label * ipc : (label + 1) * ipc], cells, real.size)
        if len(views) > most:
            kept = torch.randperm(len(views), generator=stream(settings.seed, *address, "contrast"))[:most]
            views = views[kept.to(views.device)]
        views = prepare(views, real, settings, address).to(dtype)
        means.append(net.embed(views).float().mean(0))  # pyright: ignore[reportCallIssue]
    loss = contrastive_loss(torch.stack(means), age.targets.centres, settings.cfc_temperature)
    return torch.autograd.grad(loss, leaf)[0], loss.detach()
