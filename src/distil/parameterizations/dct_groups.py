"""Items of DCT coefficients, of which groups keep different coefficients: what sets of `Dct` become together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.errors import DistilError
from distil.functional.dct import from_kept_coefficients, shared_among_views
from distil.parameterizations.base import Items, Pictured, alike, plain, require
from distil.parameterizations.coefficient_storage import (
    bits_in,
    check_shape,
    check_spans,
    checked_bits,
    shape_in,
    stored_values,
)
from distil.parameterizations.plain import PlainParameterization

DECODE = (
    "Canvas i belongs to the group g = groups[i] and has the coefficients kept[g] and spans[g]. View j of canvas i: "
    "with k = the number of entries of kept[g], take canvases[i], row by row and channel by channel, as values in "
    "[0, 1] (divide by 255 if stored as uint8; with coefficient_bits 4 every byte is two values, its lower half first, "
    "each divided by 15) and of these those from j*k up to (j+1)*k, for j from 0 while so many are left; value q "
    "stands for the coefficient (value - 1/2) * spans[g][q] at position kept[g][q] = (a*height + b)*width + d of an "
    "image of channels x height x width, the canvas's own; all others are zero. The image is the sum over (a, b, d) of "
    "coefficient * R(a, channel) * R(b, row) * R(d, column), plus 1/2, with the orthonormal DCT-II of an axis, N its "
    "length: R(f, x) = sqrt(2/N) cos(pi f (x + 1/2) / N), for f = 0 divided by sqrt(2). It may leave [0, 1]. The view "
    "carries labels[i], an index into classes or probabilities over them; subtract mean and divide by std, per "
    "channel, before it enters a network."
)


@dataclass(frozen=True, eq=False)
class DctGroups(PlainParameterization):
    """Stored items as those of `Dct`, of which each belongs to a group with coefficients of its own.

    kept: of each group, positions of its coefficients in c*h*w. spans: as those of `Dct`. groups: of each item.
    shape: of an image, (c, h, w). bits: of a stored coefficient, 4, 8 or 32. Made by joining sets; never learned.
    """

    kept: Int[Tensor, "g k"]
    spans: Float[Tensor, "g k"]
    groups: Int[Tensor, " n"]
    shape: tuple[int, int, int]
    bits: int = 8

    kind: ClassVar[str] = "dct-groups"
    accounts: ClassVar[dict[str, str]] = {"kept": "cosines", "spans": "cosines", "groups": "cosines"}
    types: ClassVar[dict[str, tuple[str, ...]]] = {
        "kept": ("int16", "int32"),
        "spans": ("float32",),
        "groups": ("uint8", "int16", "int32"),
    }

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[1], self.shape[2]

    @property
    def images_per_item(self) -> int:
        return math.prod(self.shape) * (2 if self.bits == 4 else 1) // self.kept.shape[1]

    def channels(self, params: Tensor) -> int:
        return self.shape[0]

    def encode(self, images: Float[Tensor, "n v c h w"]) -> Tensor:
        """Raises: DistilError, always: only joined sets are of this kind."""
        raise DistilError("items of several groups of coefficients are not learned: distil each set by itself.")

    def decode(self, params: Tensor) -> Float[Tensor, "images c h w"]:
        each = self.images_per_item
        images = params.new_empty((len(params), each, *self.shape), dtype=torch.float32)
        for group in self.groups.unique().tolist():
            members = (self.groups == group).nonzero().flatten().to(params.device)
            numbers = shared_among_views(stored_values(params[members], self.bits), self.kept.shape[1])
            values = (numbers - 0.5) * self.spans[group].to(params.device)
            decoded = from_kept_coefficients(values, self.kept[group], self.shape)
            images[members] = decoded.unflatten(0, (-1, each))
        return images.flatten(0, 1)

    def select(self, items: Items) -> "DctGroups":
        return replace(self, groups=self.groups[items if isinstance(items, slice) else list(items)])

    @classmethod
    def joined(cls, parts: Sequence[tuple[Any, int]]) -> "DctGroups":
        """parts: of this kind, or `Dct`, whose coefficients become a group; equal groups become one."""
        alike("parameterization", [part.kind if part.kind != cls.kind else "dct" for part, _ in parts])
        alike("images in an item", [part.images_per_item for part, _ in parts])
        alike("coefficients in an image", [part.kept.shape[-1] for part, _ in parts])
        alike("bits in a coefficient", [part.bits for part, _ in parts])
        first, kept, spans, groups = parts[0][0], [], [], []
        for part, count in parts:
            own = part.groups if isinstance(part, cls) else torch.zeros(count, dtype=torch.long)
            groups.append(own.cpu() + sum(map(len, kept)))
            kept.append(part.kept.cpu().view(-1, part.kept.shape[-1]))
            spans.append(part.spans.cpu().view(-1, part.kept.shape[-1]))
        return cls(torch.cat(kept), torch.cat(spans), torch.cat(groups), first.shape, first.bits)

    def checked(self, params: Tensor) -> "DctGroups":
        positions = params[0].numel()
        bits = checked_bits(self.bits, params)
        check_shape(self.shape, params)
        kept, spans, groups = plain(self.kept, "kept"), plain(self.spans, "spans"), plain(self.groups, "groups")
        require(
            not kept.is_floating_point() and not groups.is_floating_point(), "kept and groups must be whole numbers."
        )
        kept, spans, groups = kept.long().cpu(), spans.float().cpu(), groups.long().cpu()
        require(
            kept.ndim == 2 and len(kept) >= 1 and 1 <= kept.shape[1] <= positions and spans.shape == kept.shape,
            f"kept has shape {list(kept.shape)} and spans {list(spans.shape)}: expected, for each group, one entry of "
            f"each for every coefficient of an image, at least 1 and at most {positions}.",
        )
        ordered = kept.sort(1).values
        require(
            bool((kept >= 0).all() and (kept < positions).all() and (ordered.diff(dim=1) > 0).all()),
            f"kept reaches from {int(kept.min())} to {int(kept.max())}: give each group different positions below "
            f"{positions}.",
        )
        check_spans(spans)
        require(
            tuple(groups.shape) == (len(params),) and bool(((groups >= 0) & (groups < len(kept))).all()),
            f"groups have shape {list(groups.shape)} and must name, for each of {len(params)} items, one of "
            f"{len(kept)} groups.",
        )
        return _compact(replace(self, kept=kept, spans=spans, groups=groups, bits=bits))

    def tensors(self) -> dict[str, Tensor]:
        kept = self.kept.to(torch.int16 if math.prod(self.shape) <= 2**15 else torch.int32)
        last = len(self.kept) - 1
        groups = self.groups.to(torch.uint8 if last < 2**8 else torch.int16 if last < 2**15 else torch.int32)
        return {"kept": kept, "spans": self.spans, "groups": groups}

    def header(self) -> dict[str, Any]:
        return {"decode": DECODE, "coefficient_bits": 4 if self.bits == 4 else 8}

    @classmethod
    def load(cls, params: Tensor, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "DctGroups":
        bits = bits_in(header)
        require(tensors["kept"].ndim == 2, f"kept has shape {list(tensors['kept'].shape)}: expected [groups, k].")
        shape = shape_in(params, header)
        return cls(tensors["kept"], tensors["spans"], tensors["groups"], shape, bits)

    def describe(self) -> str:
        each = f"{self.images_per_item} images of {self.kept.shape[1]} DCT coefficients each, of {self.bits} bits"
        return each if len(self.kept) == 1 else f"{each}, in {len(self.kept)} groups of items that keep their own"

    def pictured(self, params: Tensor, index: int) -> Pictured:
        planes = torch.ones(math.prod(self.shape))
        planes[self.kept[self.groups[index]].cpu()] = 0.2
        axes = ": brightness, red - blue, green - both" if self.shape[0] == 3 else ""
        return Pictured(maps=tuple(planes.view(self.shape[0], 1, *self.size)), maps_title=f"Coefficients kept{axes}")


def _compact(made: DctGroups) -> DctGroups:
    """The groups that items have, in the order of their first items, equal ones as one."""
    rows: dict[tuple[bytes, bytes], int] = {}
    chosen: list[int] = []
    found = [0] * len(made.groups)
    number: dict[int, int] = {}
    for item, group in enumerate(made.groups.tolist()):
        if group not in number:
            key = (made.kept[group].numpy().tobytes(), made.spans[group].numpy().tobytes())
            if key not in rows:
                rows[key] = len(rows)
                chosen.append(group)
            number[group] = rows[key]
        found[item] = number[group]
    return replace(made, kept=made.kept[chosen], spans=made.spans[chosen], groups=torch.tensor(found))
