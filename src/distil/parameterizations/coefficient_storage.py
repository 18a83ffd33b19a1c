"""How DCT coefficients are stored, whatever chooses them: in 4 bits, two in a byte, in 8, or as floating point, each a
share of a span between 0 and 1; and what their files have to hold."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distil.checks import is_integer, shown
from distil.parameterizations.base import require

LARGEST_SPAN = 1e9


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


def stored_shares(params: Tensor, shares: Float[Tensor, "n used"], bits: int) -> Tensor:
    """Flat rows that store learned params [n, ...], whose first numbers have these shares in [0, 1]; a rest is 1/2."""
    stored = torch.full_like(params.flatten(1), 0.5)
    stored[:, : shares.shape[1]] = shares
    if bits == 32:
        return stored
    if bits == 8:
        return (stored * 255).round().to(torch.uint8)
    return packed((stored * 15).round().to(torch.uint8))


def checked_bits(bits: object, params: Tensor) -> int:
    """Bits of a coefficient in stored params. Raises: DistilError if they cannot be stored so."""
    stored = params.dtype == torch.uint8
    require(
        is_integer(bits) and (bits in (8, 32) or (bits == 4 and stored)),
        f"coefficients have {shown(bits)} bits: expected 8, or 4 in uint8 params.",
    )
    return 4 if bits == 4 else 8 if stored else 32


def check_shape(shape: tuple[int, int, int], params: Tensor) -> None:
    """Raises: DistilError unless stored params have the shape of images."""
    require(
        shape == tuple(params.shape[1:]),
        f"images have shape {shape} and params {list(params.shape)}: items have the shape of images.",
    )


def check_spans(spans: Tensor) -> None:
    """Raises: DistilError if a span is none."""
    require(
        bool(spans.isfinite().all()) and bool((spans > 0).all()) and bool((spans <= LARGEST_SPAN).all()),
        f"spans reach from {float(spans.min()):.4g} to {float(spans.max()):.4g}: expected finite numbers above 0, "
        f"at most {LARGEST_SPAN:g}.",
    )


def bits_in(header: Mapping[str, Any]) -> int:
    """Bits that a file's header names. Raises: DistilError if no file has so many."""
    bits = header.get("coefficient_bits", 8)
    require(is_integer(bits) and bits in (4, 8), f"coefficients have {shown(bits)} bits: expected 8, or 4.")
    return int(bits)


def shape_in(params: Tensor, header: Mapping[str, Any]) -> tuple[int, int, int]:
    """The shape of the images in a file. Raises: DistilError if its header names another size."""
    size, found = tuple(header["view_size"]), tuple(params.shape[2:])
    require(size == found, f"view_size is {size!r}: images of coefficients have the params' size, {found}.")
    return params.shape[1], params.shape[2], params.shape[3]
