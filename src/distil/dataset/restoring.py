"""Whether a run can go on from the tensors of a checkpoint."""

import math
from typing import Any

import torch
from torch import Tensor

from distil.data.images.image_set import ImageSet
from distil.dataset.formation import cosines_of_a_view, numbers_on_a_canvas
from distil.dataset.matching import LARGEST, lr_image_at, mines_by, total_steps
from distil.dataset.networks import fresh_learner
from distil.errors import DistilError
from distil.settings import MatchingSettings

LARGEST_WEIGHT = 1e6
"""A network's weight or its momentum beyond this is damage, not training."""


def check_step(step: Any, settings: MatchingSettings) -> int:
    """The step that a checkpoint's header names. Raises: DistilError if a run of these settings has no such step."""
    steps = total_steps(settings)
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= steps:
        raise DistilError(f"its step is {step!r}, and the run has steps 0 to {steps}")
    return step


def check_state(step: int, tensors: dict[str, Tensor], real: ImageSet, settings: MatchingSettings) -> None:
    """Refuse tensors that no run of these settings can have after `step` steps.

    Checked: names, types and shapes; that numbers are finite and of a size that training can reach; cosines in rising
    order, windows inside their canvas, utilisation between 0 and 1.

    Raises: DistilError that names the tensor and what is wrong with it, without a full stop.
    """
    expected = _shapes(step, real, settings)
    if wrong := sorted(expected.keys() ^ tensors.keys()):
        raise DistilError(f"it {'lacks' if wrong[0] in expected else 'holds an unknown'} tensor {wrong[0]!r}")
    bounds = _bounds(step, real, settings)
    for name, shape in expected.items():
        tensor = tensors[name]
        dtype = torch.int64 if name == "cosines" else torch.float32
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise DistilError(
                f"its {name} are {tensor.dtype} of shape {tuple(tensor.shape)}, where this run has {dtype} of shape "
                f"{shape}"
            )
        low, high = bounds.get(name, (-LARGEST_WEIGHT, LARGEST_WEIGHT))
        outside = tensor[~((tensor >= low) & (tensor <= high))]  # NaN is neither
        if len(outside):
            raise DistilError(f"its {name} hold {outside[0].item():g}, which is not between {low:g} and {high:g}")
    if "cosines" in tensors and not bool((tensors["cosines"].diff() > 0).all()):
        raise DistilError("its cosines are not in rising order")
    if "windows" in tensors:
        _check_windows(tensors["windows"], real.size)


def _shapes(step: int, real: ImageSet, settings: MatchingSettings) -> dict[str, tuple[int, ...]]:
    """The names that `State.tensors` has after `step` steps, with their shapes."""
    count, (height, width) = len(real.classes) * settings.ipc, real.size
    channels, spectral = real.channels, settings.formation == "spectrum"
    if spectral:
        channels = numbers_on_a_canvas((channels, height, width), settings) // (height * width)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("canvases", "momentum"), (count, channels, height, width))
    if spectral:
        shapes["cosines"] = (cosines_of_a_view((real.channels, height, width), settings),)
    if mines_by(step, settings):
        shapes |= {"windows": (count, settings.windows, 4), "utilisation": (count, height, width)}
    if step > 0 and settings.target_updates == 1:
        net = fresh_learner(settings.network, settings.width, real, device="cpu", seed=0, address=()).net
        for i, weight in enumerate(net.parameters()):
            shapes |= dict.fromkeys((f"weight.{i}", f"weight_momentum.{i}"), tuple(weight.shape))
    return shapes


def _bounds(step: int, real: ImageSet, settings: MatchingSettings) -> dict[str, tuple[float, float]]:
    """What the numbers of a tensor lie between.

    The canvases stay below LARGEST, so the momentum that has moved them is below 2 LARGEST / learning rate.
    """
    scale = 1.0
    if settings.lr_space == "normalised" and settings.formation == "grid":
        scale = max(min(real.std) ** 2, 1e-12)
    momentum = 2 * LARGEST / (lr_image_at(max(step - 1, 0), settings) * scale)
    return {
        "canvases": (-LARGEST, LARGEST),
        "momentum": (-momentum, momentum),
        "cosines": (0, math.prod((real.channels, *real.size)) - 1),
        "windows": (0, max(real.size)),
        "utilisation": (0, 1),
    }


def _check_windows(windows: Tensor, size: tuple[int, int]) -> None:
    x1, y1, x2, y2 = windows.unbind(-1)
    if not bool(((x1 < x2) & (y1 < y2) & (x2 <= size[1]) & (y2 <= size[0])).all()):
        raise DistilError("its windows are not inside their canvases")
