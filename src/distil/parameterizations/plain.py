"""What a parameterization does whose parameters are stored as bytes and need nothing beside them."""

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from distil.parameterizations.base import Items, Pictured, alike, require

Self = TypeVar("Self", bound="PlainParameterization")


class PlainParameterization:
    """Inherit it for a parameterization of your own, and write `kind`, `size`, `images_per_item`, `encode`, `decode`,
    `header`, `load` and `describe` (`distil.parameterizations.base.Parameterization` tells what they return).

    Learned parameters lie in [0, 1] and have the axes items, channels, height and width, with the channels of the
    decoded images. Stored ones are bytes: `decode` is given either. All items mean the same, and nothing is chosen
    during a run.
    """

    accounts: ClassVar[dict[str, str]] = {}
    types: ClassVar[dict[str, tuple[str, ...]]] = {}

    def channels(self, params: Tensor) -> int:
        return params.shape[1]

    def pixels(self, params: Tensor) -> Tensor:
        """The parameters in [0, 1], learned or stored."""
        return params.float() / 255 if params.dtype == torch.uint8 else params

    def select(self: Self, items: Items) -> Self:
        return self

    @classmethod
    def joined(cls: type[Self], parts: Sequence[tuple[Any, int]]) -> Self:
        """The first, if all are described alike. Raises: DistilError otherwise: write your own."""
        first = parts[0][0]
        alike("parameterization", [part.kind for part, _ in parts])
        alike("images in an item", [part.images_per_item for part, _ in parts])
        alike("header", [part.header() for part, _ in parts])
        for part, _ in parts:
            found, wanted = part.tensors(), first.tensors()
            same = found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
            require(
                same, f"the sets have other tensors of {first.kind} each: its class has to write `joined` for them."
            )
        return first

    def project_(self, params: Tensor) -> None:
        params.clamp_(0, 1)

    def normalized_scale(self, params: Tensor, std: Sequence[float]) -> Tensor:
        return params.new_tensor(list(std)).view(1, -1, 1, 1).square()

    @property
    def matched(self: Self) -> Self:
        return self

    @property
    def unmined(self: Self) -> Self:
        return self

    def state(self) -> dict[str, Tensor]:
        return {}

    def quantize(self: Self, params: Tensor) -> tuple[Tensor, Self]:
        return (params.clamp(0, 1) * 255).round().to(torch.uint8), self

    def checked(self: Self, params: Tensor) -> Self:
        return self

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def pictured(self, params: Tensor, index: int) -> Pictured:
        return Pictured(self.pixels(params[index : index + 1])[0].cpu())
