"""Values of 4 bits, two in a byte."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def packed(values: UInt8[Tensor, "n m"]) -> UInt8[Tensor, "n half"]:
    """Pairs of values below 16 as bytes, the first of each pair in the lower half; m is even."""
    return values[:, 0::2] + 16 * values[:, 1::2]


def unpacked(values: UInt8[Tensor, "n half"]) -> UInt8[Tensor, "n m"]:
    """What `packed` was given."""
    return torch.stack([values % 16, values // 16], 2).flatten(1)


def stored_values(params: Tensor, bits: int) -> Float[Tensor, "n numbers"]:
    """The values in [0, 1] that params [n, ...] store with 4, 8 or 32 bits each; learned ones as they are."""
    flat = params.flatten(1)
    if params.dtype != torch.uint8:
        return flat
    return unpacked(flat).float() / 15 if bits == 4 else flat.float() / 255
