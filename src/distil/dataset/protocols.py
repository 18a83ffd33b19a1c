"""The roles that a method is composed of. Whatever has these methods can stand where the parts of distil stand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.network_state import NetworkState
from distil.distilled_set.record import DistilledSet
from distil.networks.experts import Experts
from distil.parameterizations.base import Parameterization
from distil.types import Batch

Targets = Mapping[str, Tensor]
"""What real images ask for, by name; every tensor has one row for each class."""


@dataclass
class Task:
    """What the parts of one run share."""

    real: ImageSet
    """Training images, on the device that everything runs on."""
    ipc: int
    """Items per class."""
    seed: int
    outer: int
    """Network trajectories of the whole run."""
    proxy: nn.Module | None = None
    """A network trained on the real images, for policies that need one; None until it is trained."""
    network: Callable[[], nn.Module] | None = None
    """Makes a fresh network of the kind in which images are matched, always the same."""
    experts: Experts | None = None
    """Networks trained beforehand, for methods that need them; None until they are there."""

    @property
    def classes(self) -> int:
        return len(self.real.classes)

    @property
    def device(self) -> torch.device:
        return self.real.images.device

    def rows(self, label: int) -> slice:
        """The items of a class."""
        return slice(label * self.ipc, (label + 1) * self.ipc)


class Objective(Protocol):
    """What is matched. Several classes at once; a class is a row."""

    def targets(
        self, net: nn.Module, images: Float[Tensor, "k n c h w"], labels: Int[Tensor, " k"], seed: int
    ) -> Targets:
        """What the real images of k classes ask for in this network, constant. seed: of what an objective draws by
        itself; all classes of a step have the same, each step another."""
        ...

    def loss(
        self, net: nn.Module, images: Float[Tensor, "k v c h w"], labels: Int[Tensor, " k"], targets: Targets
    ) -> Float[Tensor, ""]:
        """How far the synthetic images are from that, summed over classes; differentiable in the images."""
        ...


class Sampler(Protocol):
    """Which real images take part in a step."""

    @property
    def batch(self) -> int:
        """How many images of a class at most."""
        ...

    def __call__(
        self, real: ImageSet, label: int, net: nn.Module, generator: torch.Generator, inner: int
    ) -> Float[Tensor, "b c h w"]:
        """Images of one class in [0, 1]. net: the network in which they will be matched. generator: for the draws.
        inner: matching steps that this network has served before."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A network source or a sampler that carries something from step to step: a checkpoint keeps it."""

    def state(self) -> dict[str, Tensor]:
        """It as named tensors."""
        ...

    def expected(self, outer: int) -> dict[str, "Expected"]:
        """What those tensors are like once a step of outer iteration `outer` has been done."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave, on the device of the run."""
        ...


class NetworkSource(Protocol):
    """The networks in which images are matched."""

    def fresh(self, outer: int) -> NetworkState:
        """The network with which outer iteration `outer` begins."""
        ...

    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        """Train the network in place after matching step `inner`. targets: the objective's, of that step. synthetic:
        gives all synthetic images as they are; None where stages are computed before the images are known."""
        ...


class Selection(Protocol):
    """Which parameters there are: the parameterization of a run, now and later. UDD's policies work in it."""

    def initial(self) -> tuple[Parameterization, Float[Tensor, "n ..."]]:
        """The parameterization and the parameters before the first step."""
        ...

    def refresh(
        self, outer: int, placed: Parameterization, params: Tensor, moments: Sequence[Tensor]
    ) -> Parameterization:
        """The parameterization from outer iteration `outer` on, `placed` itself if it stays; parameters and what the
        optimizer keeps of each of them are changed in place where that is needed."""
        ...

    def finished(self, placed: Parameterization, params: Tensor) -> Parameterization:
        """The parameterization as a distilled set keeps it."""
        ...

    def expected(self, outer: int | None) -> dict[str, "Expected"]:
        """What the state's tensors are like after outer iteration `outer` has begun (None: before the first step):
        canvases and those of the parameterization."""
        ...

    def restored(self, tensors: Mapping[str, Tensor]) -> Parameterization:
        """The parameterization of a checkpoint's tensors. Raises: DistilError if they contradict each other."""
        ...

    def event(self, placed: Parameterization) -> tuple[str, dict[str, Any]] | None:
        """(name, fields) of the event that tells what has been chosen; None if there is nothing to tell."""
        ...


@dataclass(frozen=True)
class Expected:
    """What a tensor of a checkpoint must be like."""

    shape: tuple[int, ...]
    low: float
    high: float
    dtype: torch.dtype = torch.float32


class Loop(Protocol):
    """What `run.drive` drives: steps towards a distilled set."""

    steps: int
    """Steps of the whole run."""
    done: int
    """Steps done."""

    def begin(self) -> None:
        """Make the state before the first step."""
        ...

    def step(self) -> dict[str, Tensor]:
        """Do one step; its losses by name, on the device."""
        ...

    def sound(self) -> Tensor:
        """Whether the numbers are still of a size that makes sense, as a boolean on the device."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state as named tensors."""
        ...

    def check(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Raises: DistilError if no state after `step` steps has these tensors."""
        ...

    def load_state_dict(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Continue from the state that `state_dict` gave after `step` steps."""
        ...

    def snapshot(self) -> DistilledSet:
        """The distilled set as it is now."""
        ...

    def event(self) -> tuple[str, dict[str, Any]] | None:
        """(name, fields) of the last choice that is to be told of; the same object as long as nothing changes."""
        ...
