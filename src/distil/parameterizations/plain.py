"""What a parameterization does whose parameters are stored as bytes and need nothing beside them."""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from distil.parameterizations.base import Items, Pictured

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
