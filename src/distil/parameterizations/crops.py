"""Items are images whose regions are decoded images: the whole item, the cells of a grid, mined windows.

Source: IDC's multi-formation (Kim et al. 2022, section 3.2) for the grid; UDD for windows mined where items are
underutilized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from distil.checks import is_integer
from distil.errors import DistilError
from distil.functional.regions import crop_resize, grid_regions
from distil.parameterizations.base import Items, Pictured, alike, check_range, plain, require
from distil.types import Regions

DECODE = (
    "View j of canvas i: take canvases[i] as (c, h, w) values in [0, 1] (divide by 255 if stored as uint8) and "
    "its region (x1, y1, x2, y2) = regions[i][j] (regions[0][j] if there is one row), in canvas pixels, x2 and y2 "
    "exclusive; resize the region bilinearly to view_size = (height, width): output column v reads at "
    "x1 + (v + 1/2)(x2 - x1)/width - 1/2, held within x1 and max(x1, x2 - 1), between pixel indices, rows alike, "
    "and pixels beyond the canvas read 0.5; the view carries labels[i] (labels[i][j] if labels has three axes), "
    "an index into classes or probabilities over them; subtract mean and divide by std, per channel, before it "
    "enters a network."
)


@dataclass(frozen=True, eq=False)
class Crops:
    """Every item is an image [c, h, w] in [0, 1], and each of its regions, enlarged to `size`, a decoded image.

    regions: [n, r, 4], or [1, r, 4] where every item has the same; (x1, y1, x2, y2) in pixels of the item, x2 and y2
        exclusive. They start inside the item and may reach past its right and bottom edge, where mid grey is read.
    size: (height, width) of a decoded image.
    mined: how many of the regions, the last ones, a policy has found. apart: they are matched by a loss of their own.
    utilization: how much a network uses each pixel, in [0, 1], as the policy has measured it.
    bits: of a stored pixel: 8, or 32 for floating point.
    """

    regions: Regions
    size: tuple[int, int]
    mined: int = 0
    apart: bool = False
    utilization: Float[Tensor, "n h w"] | None = None
    bits: int = 8

    kind: ClassVar[str] = "crops"
    accounts: ClassVar[dict[str, str]] = {"regions": "regions"}
    types: ClassVar[dict[str, tuple[str, ...]]] = {"regions": ("float32",), "utilisation": ("float32",)}

    @classmethod
    def grid(cls, factor: int, size: tuple[int, int], bits: int = 8, device: torch.device | str = "cpu") -> "Crops":
        """The cells of a factor x factor grid; at factor 1 the whole item. Raises: ValueError for other factors."""
        return cls(grid_regions(factor, size, device=device)[None], size, bits=bits)

    @property
    def images_per_item(self) -> int:
        return self.regions.shape[1]

    def channels(self, params: Tensor) -> int:
        return params.shape[1]

    @property
    def windows(self) -> Float[Tensor, "m windows 4"]:
        """The mined regions."""
        return self.regions[:, self.images_per_item - self.mined :]

    @property
    def unmined(self) -> "Crops":
        if not self.mined:
            return self
        return replace(self, regions=self.regions[:1, : -self.mined], mined=0, apart=False)

    @property
    def matched(self) -> "Crops":
        return self.unmined if self.apart else self

    @property
    def mined_alone(self) -> "Crops":
        """The mined regions without the others."""
        return replace(self, regions=self.windows, apart=False)

    def with_windows(self, windows: Regions, utilization: Float[Tensor, "n h w"], *, apart: bool) -> "Crops":
        """The same cells with these mined windows in the place of those before."""
        cells = self.unmined.regions[:1].expand(len(windows), -1, -1)
        regions = torch.cat([cells, windows], 1)
        return replace(self, regions=regions, mined=windows.shape[1], apart=apart, utilization=utilization)

    def encode(self, images: Float[Tensor, "n v c h w"]) -> Float[Tensor, "n c h w"]:
        """One image for an item fills it; as many as it has cells are shrunk, with antialiasing, each into its cell."""
        n, v, channels, height, width = images.shape
        if v == 1:
            return images[:, 0].clone()
        items = images.new_empty(n, channels, height, width)
        for place, (x1, y1, x2, y2) in enumerate(self.regions[0, :v].int().tolist()):
            shrunk = interpolate(images[:, place], size=(y2 - y1, x2 - x1), mode="bilinear", antialias=True)
            items[:, :, y1:y2, x1:x2] = shrunk[:, :, : height - y1, : width - x1]
        return items

    def decode(self, params: Tensor) -> Float[Tensor, "images c h w"]:
        return crop_resize(self.pixels(params), self.regions, self.size)

    def pixels(self, params: Tensor) -> Float[Tensor, "n c h w"]:
        """The items as images in [0, 1], of learned or of stored parameters."""
        return params.float() / 255 if params.dtype == torch.uint8 else params

    def select(self, items: Items) -> "Crops":
        picked = items if isinstance(items, slice) else list(items)
        used = None if self.utilization is None else self.utilization[picked]
        regions = self.regions if len(self.regions) == 1 else self.regions[picked]
        return replace(self, regions=regions, utilization=used)

    @classmethod
    def joined(cls, parts: Sequence[tuple[Any, int]]) -> "Crops":
        """The regions of all items. The utilization stays where every set has it."""
        alike("parameterization", [part.kind for part, _ in parts])
        alike("regions of an item", [part.images_per_item for part, _ in parts])
        alike("mined regions", [part.mined for part, _ in parts])
        rows = torch.cat([part.regions.expand(count, -1, -1) for part, count in parts])
        maps = [part.utilization for part, _ in parts]
        used = None if any(one is None for one in maps) else torch.cat(maps)
        return replace(parts[0][0], regions=rows, utilization=used)

    def project_(self, params: Tensor) -> None:
        params.clamp_(0, 1)

    def normalized_scale(self, params: Tensor, std: Sequence[float]) -> Tensor:
        return params.new_tensor(list(std)).view(1, -1, 1, 1).square()

    def state(self) -> dict[str, Tensor]:
        if not self.mined or self.utilization is None:
            return {}
        return {"windows": self.windows, "utilisation": self.utilization}

    def quantize(self, params: Tensor) -> tuple[Tensor, "Crops"]:
        pixels = params.clamp(0, 1)
        used = None if self.utilization is None else self.utilization.cpu()
        made = replace(self, regions=self.regions.cpu(), utilization=used)
        return (pixels * 255).round().to(torch.uint8) if self.bits == 8 else pixels, made

    def checked(self, params: Tensor) -> "Crops":
        count, _, height, width = params.shape
        regions = plain(self.regions, "regions").float()
        require(
            regions.ndim == 3 and regions.shape[0] in (1, count) and regions.shape[1] >= 1 and regions.shape[2] == 4,
            f"regions have shape {list(regions.shape)}: expected [{count}, images, 4] for {count} items, "
            "or [1, images, 4].",
        )
        limits = torch.tensor([2 * width, 2 * height], device=regions.device)
        start, end = regions[..., :2], regions[..., 2:]
        proper = (start >= 0).all(-1) & (start < limits / 2).all(-1) & (end > start).all(-1) & (end <= limits).all(-1)
        if not bool(proper.all()):
            row, column = (~proper).nonzero()[0].tolist()
            found = [round(side, 3) for side in regions[row, column].tolist()]
            raise DistilError(
                f"region {column} of item {row} is {found}: expected (x1, y1, x2, y2) that starts"
                f" inside the {height} x {width} item, with x2 > x1 and y2 > y1, "
                "and reaches at most one item further."
            )
        if len(regions) > 1 and bool((regions == regions[:1]).all()):
            regions = regions[:1].clone()
        used = self.utilization
        if used is not None:
            used = plain(used, "utilization").float()
            require(
                tuple(used.shape) == (count, height, width),
                f"utilization has shape {list(used.shape)}: expected {[count, height, width]}, as the items.",
            )
            check_range(used, "utilization", "it is a share")
        bits = 8 if params.dtype == torch.uint8 else 32
        return replace(self, regions=regions, utilization=used, bits=bits)

    def tensors(self) -> dict[str, Tensor]:
        used = {} if self.utilization is None else {"utilisation": self.utilization}
        return {"regions": self.regions, **used}

    def header(self) -> dict[str, Any]:
        return {"decode": DECODE, "mined": self.mined}

    @classmethod
    def load(cls, params: Tensor, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Crops":
        regions = tensors["regions"]
        many = regions.shape[1] if regions.ndim == 3 else 0
        mined = header.get("mined", _mined_before(header.get("settings"), many))
        if not is_integer(mined) or not 0 <= mined <= many:
            raise DistilError(f"mined is {mined!r}: expected how many of {many} regions a policy has found.")
        return cls(regions, tuple(header["view_size"]), int(mined), utilization=tensors.get("utilisation"))

    def describe(self) -> str:
        if self.images_per_item == 1:
            return "an image"
        mined = f", {self.mined} of them mined," if self.mined else ""
        return f"an image of which {self.images_per_item} regions{mined} are enlarged"

    def pictured(self, params: Tensor, index: int) -> Pictured:
        item = self.pixels(params[index : index + 1])[0].cpu()
        regions = self.regions[index if len(self.regions) > 1 else 0].detach().cpu()
        boxes = tuple(tuple(box) for box in regions.tolist())
        used = None if self.utilization is None else self.utilization[index].detach().cpu()
        return Pictured(item, boxes, self.mined, used)


def _mined_before(settings: Any, regions: int) -> int:
    """Mined regions of a file of version 0.1, whose header does not say it: those beyond the grid's cells."""
    factor = settings.get("factor") if isinstance(settings, dict) else None
    return max(0, regions - factor**2) if is_integer(factor) and 1 <= factor <= regions else 0
