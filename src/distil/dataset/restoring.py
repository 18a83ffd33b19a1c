"""The state of a matching loop as the tensors of a checkpoint, and whether a run can continue from them."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from distil.dataset.config import Matching
from distil.dataset.image_optimizer import ImageOptimizer
from distil.dataset.network_state import NetworkState
from distil.dataset.protocols import Expected, NetworkSource, Remembers, Sampler, Selection, Task
from distil.dataset.step import NetworkStage
from distil.errors import DistilError
from distil.parameterizations.base import Parameterization

LARGEST = 1e4
"""A parameter beyond this, thousands of times what an image can hold, has run away."""
LARGEST_WEIGHT = 1e6
"""A network's weight or its momentum beyond this is damage, not training."""


def check_step(step: Any, steps: int) -> int:
    """The step that a checkpoint's header names. Raises: DistilError if a run of `steps` steps has no such step."""
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= steps:
        raise DistilError(f"its step is {step!r}, and the run has steps 0 to {steps}")
    return step


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Expected]) -> None:
    """Refuse tensors of other names, types, shapes or sizes.

    Raises: DistilError that names the tensor and what is wrong with it, without a full stop.
    """
    if wrong := sorted(expected.keys() ^ tensors.keys()):
        raise DistilError(f"it {'lacks' if wrong[0] in expected else 'holds an unknown'} tensor {wrong[0]!r}")
    for name, wanted in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != wanted.shape or tensor.dtype != wanted.dtype:
            raise DistilError(
                f"its {name} are {tensor.dtype} of shape {tuple(tensor.shape)}, where this run has {wanted.dtype} of "
                f"shape {wanted.shape}"
            )
        outside = tensor[~((tensor >= wanted.low) & (tensor <= wanted.high))]  # NaN is neither
        if len(outside):
            raise DistilError(
                f"its {name} hold {outside[0].item():g}, which is not between {wanted.low:g} and {wanted.high:g}"
            )


class Checked(Protocol):
    """The parts of a loop that tell what its state is like."""

    @property
    def selection(self) -> Selection: ...
    @property
    def networks(self) -> NetworkSource: ...
    @property
    def task(self) -> Task: ...
    @property
    def settings(self) -> Matching: ...
    @property
    def optimizer(self) -> ImageOptimizer: ...
    @property
    def sampler(self) -> Sampler: ...


class Stateful(Checked, Protocol):
    """The same, and the state itself."""

    done: int
    params: Tensor
    moments: dict[str, Tensor]
    placed: Parameterization
    held: list[NetworkStage]
    told: tuple[str, dict[str, Any]] | None


def remembering(loop: Checked) -> list[Remembers]:
    """The parts that carry something from step to step."""
    return [part for part in (loop.networks, loop.sampler) if isinstance(part, Remembers)]


def keeps_network(loop: Checked) -> bool:
    """Whether a checkpoint holds the network in training."""
    return loop.settings.target_reuse == 1 and not isinstance(loop.networks, Remembers)


def state_of(loop: Stateful) -> dict[str, Tensor]:
    """The state after a step by the names of a checkpoint."""
    network = network_tensors(loop.held[0].state) if keeps_network(loop) and loop.held else {}
    carried = {name: tensor for part in remembering(loop) for name, tensor in part.state().items()}
    carried = carried if loop.done else {}
    return {"canvases": loop.params, **loop.moments, **loop.placed.state(), **network, **carried}


def load_state(loop: Stateful, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Give a loop the state that another had after `step` steps; the tensors are on its device."""
    loop.done, loop.params = step, tensors["canvases"]
    loop.moments = {name: tensors[name] for name in loop.optimizer.moments}
    for part in remembering(loop) if step else []:
        part.restore(tensors)
    loop.placed, loop.held = loop.selection.restored(tensors), []
    loop.told = loop.selection.event(loop.placed)
    if "weight.0" in tensors:
        loop.held = [NetworkStage(load_network(loop.networks.fresh(0), tensors), {}, 0, 0)]


def check_state(loop: Checked, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that no state of a matching loop has after `step` steps.

    Raises: DistilError that names the tensor and what is wrong with it, without a full stop.
    """
    settings = loop.settings
    outer = None if step == 0 else (step - 1) // (settings.inner * settings.target_reuse)
    expected = loop.selection.expected(outer)
    for name, largest in loop.optimizer.largest(step, loop.task.real.std, LARGEST).items():
        expected[name] = Expected(expected["canvases"].shape, -largest, largest)
    if outer is not None:
        if keeps_network(loop):
            expected |= expected_network(loop.networks.fresh(0))
        for part in remembering(loop):
            expected |= part.expected(outer)
    check_tensors(tensors, expected)
    loop.selection.restored(tensors)


def network_tensors(state: NetworkState) -> dict[str, Tensor]:
    """A network's weights and momenta by the names of a checkpoint."""
    named: dict[str, Tensor] = {f"weight.{i}": weight for i, weight in enumerate(state.weights)}
    return named | {f"weight_momentum.{i}": m for i, m in enumerate(state.momenta)}


def expected_network(state: NetworkState) -> dict[str, Expected]:
    """What those tensors are like."""
    return {
        name: Expected(tuple(tensor.shape), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        for name, tensor in network_tensors(state).items()
    }


@torch.no_grad()
def load_network(state: NetworkState, tensors: Mapping[str, Tensor]) -> NetworkState:
    """The network with the weights and momenta of a checkpoint, which are on its device."""
    for i, weight in enumerate(state.weights):
        weight.copy_(tensors[f"weight.{i}"])
        state.momenta[i] = tensors[f"weight_momentum.{i}"]
    state.refresh_low()
    return state
