"""Items are DCT coefficients of each color channel, at the frequencies that their class keeps.

Source: FreD (Shin et al.: Frequency Domain-based Dataset Distillation. NeurIPS 2023).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from distil.checks import shown
from distil.errors import DistilError
from distil.functional.dct import coefficients, from_coefficients, lowest_frequencies
from distil.parameterizations.base import Items, Parameterization, Pictured, alike, plain, require
from distil.parameterizations.coefficient_storage import (
    bits_in,
    check_shape,
    check_spans,
    checked_bits,
    shape_in,
    stored_shares,
    stored_values,
)

DECODE = (
    "View j of canvas i: the canvas's mask is the m-th row of masks, where the first mask_items[0] canvases have the "
    "first, the next mask_items[1] the second, and so on. A mask has one bit for each frequency (b, d) of height x "
    "width, row by row, eight to a byte, the highest first; let p be the frequencies whose bit is 1, in rising order "
    "of (b+1)^2 + (d+1)^2, equal ones as they come, and k their number. Take canvases[i], row by row and channel by "
    "channel, as values in [0, 1] (divide by 255 if stored as uint8; with coefficient_bits 4 every byte is two values, "
    "its lower half first, each divided by 15) and of these those from j*c*k up to (j+1)*c*k, c the color channels, "
    "for j from 0 while so many are left, as c rows of k; value q of channel a stands for the coefficient (value - "
    "1/2) * spans[m, a, q] (spans[0, a, q] where spans has one row) at p[q] of that channel; all others are zero. A "
    "channel is the sum over (b, d) of coefficient * R(b, row) * R(d, column), plus 1/2, with the orthonormal DCT-II "
    "of an axis, N its length: R(f, x) = sqrt(2/N) cos(pi f (x + 1/2) / N), for f = 0 divided by sqrt(2). It may "
    "leave [0, 1]. The view carries the label of its canvas (or its own); subtract mean and divide by std, per "
    "channel, before it enters a network."
)


@dataclass(frozen=True, eq=False)
class Fred:
    """The numbers of an item are its first image's coefficients, channel by channel, at the frequencies that the item's
    mask keeps, then its second's, and so on; a rest is not used. All channels of all items of a mask share it.

    kept: of each mask, its frequencies as positions in h*w, the lowest first [masks, k]. counts: how many items, one
        after another, have each mask. shape: of an image, (c, h, w).
    bits: of a stored coefficient, 4 (two in a byte), 8, or 32 for floating point.
    spans: of stored parameters, the difference between the coefficients that 0 and 1 stand for, of each mask or of all;
        None while parameters are learned, in units of `unit`.
    """

    kept: Int[Tensor, "masks k"]
    counts: tuple[int, ...]
    shape: tuple[int, int, int]
    bits: int = 8
    spans: Float[Tensor, "s c k"] | None = None

    kind: ClassVar[str] = "fred"
    accounts: ClassVar[dict[str, str]] = {"masks": "masks", "mask_items": "masks", "spans": "masks"}
    types: ClassVar[dict[str, tuple[str, ...]]] = {
        "masks": ("uint8",),
        "mask_items": ("int32",),
        "spans": ("float32",),
    }

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[1], self.shape[2]

    @property
    def each(self) -> int:
        """Numbers of an image."""
        return self.shape[0] * self.kept.shape[1]

    @property
    def images_per_item(self) -> int:
        return math.prod(self.shape) * (2 if self.bits == 4 else 1) // self.each

    @property
    def unit(self) -> float:
        """The coefficient that a learned number of 1 stands for, as of `Dct`."""
        return math.sqrt(math.prod(self.shape) / self.each)

    @property
    def mask_of(self) -> Int[Tensor, " items"]:
        """The mask of each item."""
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))

    @property
    def unmined(self) -> "Fred":
        return self

    @property
    def matched(self) -> "Fred":
        return self

    def channels(self, params: Tensor) -> int:
        return self.shape[0]

    def encode(self, images: Float[Tensor, "n v c h w"]) -> Float[Tensor, "n channels h w"]:
        n, v, c = images.shape[:3]
        values = coefficients(images.flatten(0, 2)[:, None]).view(n, v * c, -1)
        rows = self.kept[self.mask_of.to(self.kept.device)][:, None].expand(-1, v * c, -1)
        params = images.new_zeros(n, math.prod(self.shape) * (2 if self.bits == 4 else 1))
        params[:, : v * self.each] = values.gather(2, rows).flatten(1) / self.unit
        return params.unflatten(1, (-1, *self.size))

    def decode(self, params: Tensor) -> Float[Tensor, "images c h w"]:
        flat = stored_values(params, self.bits)
        mask_of = self.mask_of.to(flat.device)
        numbers = self._by_image(flat)
        if self.spans is None:
            values = self.unit * numbers
        else:
            spans = self.spans.to(flat.device)
            spans = spans[mask_of if len(spans) > 1 else torch.zeros_like(mask_of)]
            values = (numbers - 0.5) * spans[:, None]
        rows = self.kept.to(flat.device)[mask_of][:, None, None].expand_as(values)
        whole = values.new_zeros(*values.shape[:3], math.prod(self.size)).scatter(3, rows, values)
        planes = from_coefficients(whole.flatten(0, 2), (1, *self.size))
        return planes.view(-1, *self.shape)

    def _by_image(self, flat: Tensor) -> Float[Tensor, "n images c k"]:
        used = self.images_per_item * self.each
        return flat[:, :used].unflatten(1, (-1, self.shape[0], self.kept.shape[1]))

    def select(self, items: Items) -> "Fred":
        rows = self.mask_of[items if isinstance(items, slice) else list(items)]
        spans = self.spans if self.spans is None or len(self.spans) == 1 else self.spans[rows.to(self.spans.device)]
        return replace(self, kept=self.kept[rows.to(self.kept.device)], counts=(1,) * len(rows), spans=spans)

    @classmethod
    def joined(cls, parts: Sequence[tuple[Any, int]]) -> Parameterization:
        """Masks and spans of all, one after another."""
        found = [part for part, _ in parts]
        alike("parameterization", [part.kind for part in found])
        for what in ("shape", "bits", "each"):
            alike(what, [getattr(part, what) for part in found])
        spans = torch.cat([part.spans.expand(len(part.counts), -1, -1) for part in found])
        counts = tuple(count for part in found for count in part.counts)
        return replace(found[0], kept=torch.cat([part.kept for part in found]), counts=counts, spans=spans)

    def project_(self, params: Tensor) -> None:
        """Nothing: coefficients are free."""

    def normalized_scale(self, params: Tensor, std: Sequence[float]) -> Tensor:
        """One: an item's channels hold numbers of several color channels."""
        return params.new_ones(())

    def state(self) -> dict[str, Tensor]:
        return {"masks": self.kept}

    def quantize(self, params: Tensor) -> tuple[Tensor, "Fred"]:
        """Every coefficient is stored between 0 and 1, as a share of the span of its channel and its rank in the mask
        over the images of all items."""
        numbers = self.unit * self._by_image(params.flatten(1))
        spans = (2 * numbers.abs().amax((0, 1))).clamp_min(1e-6)
        shares = (numbers / spans + 0.5).clamp(0, 1).flatten(1)
        stored = stored_shares(params, shares, self.bits)
        return stored.unflatten(1, self.shape), replace(self, kept=self.kept.cpu(), spans=spans[None].cpu())

    def checked(self, params: Tensor) -> "Fred":
        frequencies = math.prod(self.size)
        bits = checked_bits(self.bits, params)
        require(self.spans is not None, "spans are missing: give what `quantize` returned.")
        kept, spans = plain(self.kept, "kept"), plain(self.spans, "spans")
        require(not kept.is_floating_point(), f"kept are {kept.dtype}: expected whole numbers.")
        kept, spans = kept.long().cpu(), spans.float().cpu()
        check_shape(self.shape, params)
        require(
            kept.ndim == 2 and 1 <= kept.shape[1] <= frequencies and len(kept) == len(self.counts),
            f"masks keep {list(kept.shape)} frequencies for {len(self.counts)} masks: expected the same number for "
            f"each, at least 1 and at most {frequencies}.",
        )
        require(
            sum(self.counts) == len(params) and min(self.counts) > 0,
            f"masks are of {shown(list(self.counts))} items each, and there are {len(params)} items.",
        )
        inside = bool((kept >= 0).all()) and bool((kept < frequencies).all())
        require(
            inside and all(len(row.unique()) == len(row) for row in kept),
            f"masks keep frequencies from {int(kept.min())} to {int(kept.max())}: give different ones below "
            f"{frequencies}.",
        )
        require(torch.equal(kept, lowest_first(kept, self.size)), "masks do not keep the lowest frequencies first.")
        wanted = (self.shape[0], kept.shape[1])
        require(
            spans.ndim == 3 and tuple(spans.shape[1:]) == wanted and len(spans) in (1, len(kept)),
            f"spans have shape {list(spans.shape)}: expected [1, {wanted[0]}, {wanted[1]}], or one row for each mask.",
        )
        check_spans(spans)
        return replace(self, kept=kept, spans=spans, bits=bits)

    def tensors(self) -> dict[str, Tensor]:
        assert self.spans is not None
        chosen = torch.zeros(len(self.kept), math.prod(self.size), dtype=torch.uint8)
        return {
            "masks": as_bytes(chosen.scatter(1, self.kept, 1)),
            "mask_items": torch.tensor(self.counts, dtype=torch.int32),
            "spans": self.spans,
        }

    def header(self) -> dict[str, Any]:
        return {"decode": DECODE, "coefficient_bits": 4 if self.bits == 4 else 8}

    @classmethod
    def load(cls, params: Tensor, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Fred":
        bits = bits_in(header)
        shape = shape_in(params, header)
        frequencies, masks, items = shape[1] * shape[2], tensors["masks"], tensors["mask_items"]
        if masks.ndim != 2 or masks.shape[1] != -(-frequencies // 8) or items.shape != masks.shape[:1]:
            raise DistilError(
                f"masks have shape {list(masks.shape)} and mask_items {list(items.shape)}: expected a bit for each of "
                f"{frequencies} frequencies, and a number of items for each mask."
            )
        chosen = from_bytes(masks)[:, :frequencies]
        many = chosen.sum(1)
        require(
            bool((many == many[0]).all()), f"masks keep {sorted(set(many.tolist()))} frequencies: expected one number."
        )
        kept = chosen.nonzero()[:, 1].view(len(masks), -1)
        counts = tuple(int(count) for count in items)
        return cls(lowest_first(kept, (shape[1], shape[2])), counts, shape, bits, tensors["spans"])

    def describe(self) -> str:
        kept = self.kept.shape[1]
        return f"{self.images_per_item} images of {kept} DCT coefficients a channel each, of {self.bits} bits"

    def pictured(self, params: Tensor, index: int) -> Pictured:
        plane = torch.ones(math.prod(self.size))
        plane[self.kept[self.mask_of[index]].cpu()] = 0.2
        return Pictured(maps=(plane.view(1, *self.size),), maps_title="Frequencies kept")


def lowest_first(kept: Int[Tensor, "masks k"], size: tuple[int, int]) -> Int[Tensor, "masks k"]:
    """The same frequencies, each mask's in rising order of their length, equal ones in that of their position."""
    rising = kept.sort(1).values
    length = -lowest_frequencies((1, *size)).to(kept.device)
    return rising.gather(1, length[rising].argsort(dim=1, stable=True))


def as_bytes(bits: UInt8[Tensor, "n m"]) -> UInt8[Tensor, "n bytes"]:
    """Zeros and ones, eight to a byte, the first in the highest place; the last byte is filled with zeros."""
    padded = torch.nn.functional.pad(bits, (0, -bits.shape[1] % 8)).view(len(bits), -1, 8)
    return (padded.int() * 2 ** torch.arange(7, -1, -1)).sum(2).to(torch.uint8)


def from_bytes(values: UInt8[Tensor, "n bytes"]) -> UInt8[Tensor, "n m"]:
    """What `as_bytes` was given, with the zeros that filled the last byte."""
    return ((values[..., None].int() >> torch.arange(7, -1, -1)) & 1).to(torch.uint8).flatten(1)
