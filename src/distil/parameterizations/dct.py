"""Items are DCT coefficients: many images each, of the few frequencies that a policy keeps.

Source: the discrete cosine transform (Ahmed, Natarajan, Rao 1974). Learning synthetic images by chosen coefficients is
known from FreD (Shin et al., NeurIPS 2023).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.errors import DistilError
from distil.functional.dct import coefficients, from_kept_coefficients, shared_among_views
from distil.parameterizations.base import Items, Parameterization, Pictured, plain, require
from distil.parameterizations.coefficient_storage import (
    bits_in,
    check_shape,
    check_spans,
    checked_bits,
    shape_in,
    stored_shares,
    stored_values,
)
from distil.parameterizations.dct_groups import DctGroups

DECODE = (
    "View j of canvas i: with k = the number of entries of kept, take canvases[i], row by row and channel by channel, "
    "as values in [0, 1] (divide by 255 if stored as uint8; with coefficient_bits 4 every byte is two values, its "
    "lower half first, each divided by 15) and of these those from j*k up to (j+1)*k, for j from 0 while so many are "
    "left; value q stands for the coefficient (value - 1/2) * spans[q] at position kept[q] = (a*height + b)*width + d "
    "of an image of channels x height x width, the canvas's own; all others are zero. The image is the sum over "
    "(a, b, d) of coefficient * R(a, channel) * R(b, row) * R(d, column), plus 1/2, with the orthonormal DCT-II of an "
    "axis, N its length: R(f, x) = sqrt(2/N) cos(pi f (x + 1/2) / N), for f = 0 divided by sqrt(2). It may leave "
    "[0, 1]. The view carries labels[i], an index into classes or probabilities over them; subtract mean and divide by "
    "std, per channel, before it enters a network."
)


@dataclass(frozen=True, eq=False)
class Dct:
    """The numbers of an item, row by row and channel by channel, are its first image's coefficients at the positions
    `kept`, then its second's, and so on; a rest is not used. All other coefficients are zero.

    kept: positions of the coefficients in c*h*w, in rising order. shape: of an image, (c, h, w).
    bits: of a stored coefficient, 4 (two in a byte), 8, or 32 for floating point. With 4 bits an item has 2 c h w
        numbers, else c h w.
    spans: of stored parameters, the difference between the coefficients that 0 and 1 stand for; None while parameters
        are learned, in units of `unit`.
    """

    kept: Int[Tensor, " k"]
    shape: tuple[int, int, int]
    bits: int = 8
    spans: Float[Tensor, " k"] | None = None

    kind: ClassVar[str] = "dct"
    accounts: ClassVar[dict[str, str]] = {"regions": "regions", "kept": "cosines", "spans": "cosines"}
    types: ClassVar[dict[str, tuple[str, ...]]] = {
        "kept": ("int16", "int32"),
        "spans": ("float32",),
        "regions": ("float32",),
    }

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[1], self.shape[2]

    @property
    def numbers(self) -> int:
        """Numbers of an item: one for each value of an image, or two where they share a byte."""
        return math.prod(self.shape) * (2 if self.bits == 4 else 1)

    @property
    def images_per_item(self) -> int:
        return self.numbers // len(self.kept)

    def channels(self, params: Tensor) -> int:
        return self.shape[0]

    @property
    def unit(self) -> float:
        """The coefficient that a learned number of 1 stands for: sqrt(c h w / k), so that numbers that change by 1
        change the pixels of their image by 1 in the root mean square."""
        return math.sqrt(math.prod(self.shape) / len(self.kept))

    @property
    def unmined(self) -> "Dct":
        return self

    @property
    def matched(self) -> "Dct":
        return self

    def encode(self, images: Float[Tensor, "n v c h w"]) -> Float[Tensor, "n channels h w"]:
        """The kept coefficients of the images, in units of `unit`; an item has twice an image's channels where two
        numbers share a byte."""
        n, v = images.shape[:2]
        params = images.new_zeros(n, self.numbers)
        values = coefficients(images.flatten(0, 1))[:, self.kept] / self.unit
        params[:, : v * len(self.kept)] = values.view(n, -1)
        return params.unflatten(1, (-1, *self.size))

    def decode(self, params: Tensor) -> Float[Tensor, "images c h w"]:
        numbers = shared_among_views(stored_values(params, self.bits), len(self.kept))
        values = self.unit * numbers if self.spans is None else (numbers - 0.5) * self.spans.to(params.device)
        return from_kept_coefficients(values, self.kept, self.shape)

    def select(self, items: Items) -> "Dct":
        return self

    @classmethod
    def joined(cls, parts: Sequence[tuple[Any, int]]) -> Parameterization:
        """As it is where all parts keep the same coefficients with the same spans, else groups of items."""
        first, groups = parts[0][0], DctGroups.joined(parts)
        same = all(isinstance(part, cls) for part, _ in parts)
        same = same and bool((groups.kept == groups.kept[:1]).all() and (groups.spans == groups.spans[:1]).all())
        return first if same else groups

    def project_(self, params: Tensor) -> None:
        """Nothing: coefficients are free."""

    def normalized_scale(self, params: Tensor, std: Sequence[float]) -> Tensor:
        """One: coefficients belong to no single channel."""
        return params.new_ones(())

    def state(self) -> dict[str, Tensor]:
        return {"cosines": self.kept}

    def numbers_by_image(self, params: Tensor) -> Float[Tensor, "n images k"]:
        """A view of learned parameters, image by image; changing it changes them."""
        used = self.images_per_item * len(self.kept)
        return params.flatten(1)[:, :used].unflatten(1, (-1, len(self.kept)))

    def quantize(self, params: Tensor) -> tuple[Tensor, "Dct"]:
        """Every coefficient is stored between 0 and 1, as a share of its own span over the images of all items."""
        numbers = self.unit * shared_among_views(params.flatten(1), len(self.kept))
        spans = (2 * numbers.abs().amax(0)).clamp_min(1e-6)
        shares = (numbers / spans + 0.5).clamp(0, 1).view(len(params), -1)
        stored = stored_shares(params, shares, self.bits)
        made = replace(self, kept=self.kept.cpu(), spans=spans.cpu())
        return stored.unflatten(1, self.shape), made

    def checked(self, params: Tensor) -> "Dct":
        positions = params[0].numel()
        bits = checked_bits(self.bits, params)
        require(self.spans is not None, "spans are missing: give what `quantize` returned.")
        kept, spans = plain(self.kept, "kept"), plain(self.spans, "spans")
        require(not kept.is_floating_point(), f"kept are {kept.dtype}: expected whole numbers.")
        kept, spans = kept.long().cpu(), spans.float().cpu()
        check_shape(self.shape, params)
        require(
            kept.ndim == 1 and 1 <= len(kept) <= positions and spans.shape == kept.shape,
            f"kept has shape {list(kept.shape)} and spans {list(spans.shape)}: expected one entry of each for every "
            f"coefficient of an image, at least 1 and at most {positions}.",
        )
        require(
            bool((kept >= 0).all()) and bool((kept < positions).all()) and len(kept.unique()) == len(kept),
            f"kept reaches from {int(kept.min())} to {int(kept.max())}: give different positions below {positions}.",
        )
        check_spans(spans)
        return replace(self, kept=kept, spans=spans, bits=bits)

    def tensors(self) -> dict[str, Tensor]:
        assert self.spans is not None
        kept = self.kept.to(torch.int16 if math.prod(self.shape) <= 2**15 else torch.int32)
        return {"regions": torch.empty(1, 0, 4), "kept": kept, "spans": self.spans}

    def header(self) -> dict[str, Any]:
        return {"decode": DECODE, "coefficient_bits": 4 if self.bits == 4 else 8}

    @classmethod
    def load(cls, params: Tensor, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Dct":
        if tensors["regions"].numel():
            raise DistilError(f"regions have shape {list(tensors['regions'].shape)}: a set of coefficients has none.")
        bits = bits_in(header)
        shape = shape_in(params, header)
        return cls(tensors["kept"], shape, bits, tensors["spans"])

    def describe(self) -> str:
        return f"{self.images_per_item} images of {len(self.kept)} DCT coefficients each, of {self.bits} bits"

    def pictured(self, params: Tensor, index: int) -> Pictured:
        planes = torch.ones(math.prod(self.shape))
        planes[self.kept.cpu()] = 0.2
        axes = ": brightness, red - blue, green - both" if self.shape[0] == 3 else ""
        return Pictured(maps=tuple(planes.view(self.shape[0], 1, *self.size)), maps_title=f"Coefficients kept{axes}")
