"""What every parameterization can do, and the checks that they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from distil.checks import shown
from distil.errors import DistilError

Items = slice | Sequence[int]
"""Which items, of all classes one after another."""


@dataclass(frozen=True)
class Pictured:
    """What there is to draw of an item beside its decoded images."""

    item: Float[Tensor, "c h w"] | None = None
    """The item itself, where it is an image."""
    boxes: tuple[tuple[float, ...], ...] = ()
    """Its regions, (x1, y1, x2, y2) in its pixels, those that a policy has mined last."""
    mined: int = 0
    """How many of them are mined."""
    utilization: Float[Tensor, "h w"] | None = None
    """How much a network uses each pixel."""
    maps: tuple[Float[Tensor, "1 h w"], ...] = ()
    """Maps that all items share."""
    maps_title: str = ""


class Parameterization(Protocol):
    """What the numbers of items mean. Frozen: the stored parameters are passed in.

    An item is what is counted as one image per class; it holds `images_per_item` decoded images. Parameters are learned
    as floating point numbers; `quantize` gives what is stored of them, and the parameterization that decodes that.
    """

    kind: ClassVar[str]
    """Its name in a file's header."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a decoded image."""
        ...

    @property
    def images_per_item(self) -> int: ...

    def channels(self, params: Tensor) -> int:
        """Color channels of the decoded images."""
        ...

    def encode(self, images: Float[Tensor, "n v c h w"]) -> Float[Tensor, "n ..."]:
        """Parameters of n items that decode to images near those given, v for each."""
        ...

    def decode(self, params: Float[Tensor, "n ..."]) -> Float[Tensor, "images c h w"]:
        """All images, item by item, of learned or of stored parameters; about [0, 1]. Differentiable."""
        ...

    def select(self, items: Items) -> "Parameterization":
        """The parameterization of some items alone."""
        ...

    @classmethod
    def joined(cls, parts: "Sequence[tuple[Parameterization, int]]") -> "Parameterization":
        """The parameterization of the stored items of several sets, one after another: of each set its own, and how
        many items it has; the first is of this class. Raises: DistilError that says why there is none."""
        ...

    def project_(self, params: Tensor) -> None:
        """Bring learned parameters back to where they may be, in place."""
        ...

    def normalized_scale(self, params: Tensor, std: Sequence[float]) -> Tensor:
        """What multiplies a learning rate that is meant for images divided by `std`; broadcasts with the parameters."""
        ...

    @property
    def matched(self) -> "Parameterization":
        """The images that the objective compares with real ones."""
        ...

    @property
    def unmined(self) -> "Parameterization":
        """The images that no policy has added."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a policy has chosen, by the names that a checkpoint has."""
        ...

    def quantize(self, params: Tensor) -> tuple[Tensor, "Parameterization"]:
        """(stored parameters, the parameterization that decodes them)."""
        ...

    def checked(self, params: Tensor) -> "Parameterization":
        """The parameterization as a distilled set keeps it. Raises: DistilError if it does not fit the parameters."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds beside the stored parameters and the labels."""
        ...

    accounts: ClassVar[dict[str, str]]
    """The tensors among them that training needs: by name, the entry of a set's `bytes` that each counts in."""
    types: ClassVar[dict[str, tuple[str, ...]]]
    """Names of all tensors that a file may hold beside parameters and labels, and the types that each may have."""

    def header(self) -> dict[str, Any]:
        """What a file's header says of it; "decode" tells in words how a file is decoded."""
        ...

    @classmethod
    def load(cls, params: Tensor, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Parameterization":
        """The parameterization that a file's tensors and header describe. Raises: DistilError."""
        ...

    def describe(self) -> str:
        """One line for people: what an item holds."""
        ...

    def pictured(self, params: Tensor, index: int) -> Pictured:
        """What there is to draw of an item, on the CPU."""
        ...


def alike(what: str, values: Sequence[object]) -> None:
    """Raises: DistilError that names `what`, if it is not the same in all sets that are to be joined."""
    for index, value in enumerate(values[1:], 2):
        if value != values[0]:
            raise DistilError(f"set 1 and set {index} cannot be joined ({what}: {shown(values[0])}, {shown(value)}).")


def require(condition: bool, message: str) -> None:
    """Raises: DistilError with the message unless the condition holds."""
    if not condition:
        raise DistilError(message)


def plain(tensor: object, name: str) -> Tensor:
    """The tensor without its history. Raises: DistilError if it is none of real numbers in plain memory."""
    if not isinstance(tensor, Tensor):
        raise DistilError(f"{name} are {shown(type(tensor).__name__)}: give a torch tensor.")
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.dtype == torch.bool or tensor.is_quantized:
        raise DistilError(f"{name} are {tensor.dtype} ({tensor.layout}): give a dense tensor of real numbers.")
    return tensor.detach()


def check_range(values: Tensor, name: str, reason: str) -> None:
    """Raises: DistilError if values are not finite or outside [0, 1]."""
    if not bool(values.isfinite().all()):
        raise DistilError(f"{name} hold {int((~values.isfinite()).sum())} values that are NaN or infinite.")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise DistilError(f"{name} reach from {low:.4g} to {high:.4g}: expected [0, 1], {reason}.")
