"""Items tiled from the crops of real images that an observer recognizes most surely.

Source: RDED (Sun et al., CVPR 2024) and the authors' released code.
Differs: a crop is scored enlarged to the size of an image, as it is trained on later; the release puts it into the
middle of a black image. Crops of images that are not square have the images' aspect ratio.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from distil.data.arrays import seen_at_once
from distil.data.images.image_set import ImageSet
from distil.dataset.config import Tiles
from distil.errors import DistilError
from distil.parameterizations.crops import Crops
from distil.rng import stream

LARGE = 128
"""Pixels of a side from which on an item is tiled from 2 x 2 crops, unless a factor is given. Source: the release has
factor 2 for ImageNet and its subsets (224 and 128 pixels), 1 below."""
SEEN_AT_ONCE = 512
Logits = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n k"]]


def factor_of(tiles: Tiles, size: tuple[int, int]) -> int:
    """Crops side by side in an item of this (height, width)."""
    return tiles.factor or (2 if min(size) >= LARGE else 1)


def check_tiles(tiles: Tiles, ipc: int, size: tuple[int, int]) -> None:
    """Refuse items that need more crops than are looked at. Raises: DistilError that names the fields."""
    needed = ipc * factor_of(tiles, size) ** 2
    if needed > tiles.images:
        raise DistilError(
            f"{{ipc}} {ipc} takes the best {needed} crops of a class, each of another image, and {{images}} "
            f"{tiles.images} are looked at: raise {{images}} to {needed} or more, or lower {{ipc}}.",
            field=("ipc", "images"),
        )


def random_boxes(
    images: int, crops: int, smallest: float, size: tuple[int, int], generator: torch.Generator
) -> Int[Tensor, "images crops 4"]:
    """(y, x, height, width) of random crops: a uniform share of the area from `smallest` to 1, anywhere inside."""
    share, down, right = torch.rand(3, images, crops, generator=generator)
    side = (smallest + (1 - smallest) * share).sqrt()
    height, width = ((side * length).round().clamp(1, length) for length in size)
    top = (down * (size[0] - height + 1)).floor().clamp_max(size[0] - height)
    left = (right * (size[1] - width + 1)).floor().clamp_max(size[1] - width)
    return torch.stack([top, left, height, width], -1).long()


@torch.no_grad()
def best_crops(
    logits: Logits,
    real: ImageSet,
    label: int,
    count: int,
    tiles: Tiles,
    cell: tuple[int, int],
    seed: int,
    seen: tuple[int, int],
) -> UInt8[Tensor, "{count} c rows columns"]:
    """The `count` best crops of a class, the best one first, each of another image, resized to a cell; on the CPU.

    Of every image that is looked at the crop with the least cross-entropy counts. logits: of images in [0, 1].
    cell: (height, width). seen: (height, width) that the observer sees, which limits how many crops it gets at once.
    All draws are addressed by the class's name.
    """
    generator = stream(seed, "tiles", real.classes[label])
    members = real.by_class[label].cpu()
    rows = members[torch.randperm(len(members), generator=generator)[: tiles.images]]
    boxes = random_boxes(len(rows), tiles.crops, tiles.smallest, real.size, generator)
    losses, cells = [], []
    for some in torch.arange(len(rows)).split(max(1, seen_at_once(seen, SEEN_AT_ONCE) // tiles.crops)):
        images = real.batch(rows[some]).images
        crops = torch.stack([_crop(images[i], box, cell) for i, index in enumerate(some) for box in boxes[index]])
        goal = torch.full((len(crops),), label, device=crops.device)
        enlarged = interpolate(crops, real.size, mode="bilinear") if cell != real.size else crops
        loss = cross_entropy(logits(enlarged).float(), goal, reduction="none").view(len(some), tiles.crops)
        least, best = loss.min(1)
        losses.append(least.cpu())
        picked = crops.unflatten(0, loss.shape)[torch.arange(len(some), device=best.device), best]
        cells.append((picked * 255).round().clamp_(0, 255).to(torch.uint8).cpu())
    order = torch.cat(losses).argsort(stable=True)[:count]
    return torch.cat(cells)[order]


def _crop(image: Float[Tensor, "c h w"], box: Tensor, cell: tuple[int, int]) -> Float[Tensor, "c rows columns"]:
    y, x, height, width = box.tolist()
    part = image[None, :, y : y + height, x : x + width]
    return interpolate(part, cell, mode="bilinear", antialias=True)[0].clamp(0, 1)


def tiled(crops: UInt8[Tensor, "count c rows columns"], placed: Crops, ipc: int) -> UInt8[Tensor, "{ipc} c h w"]:
    """Items of one class from its crops, the best of which all are the first cells. placed: the grid of an item."""
    height, width = placed.size
    items = crops.new_zeros(ipc, crops.shape[1], height, width)
    for place, (x1, y1, x2, y2) in enumerate(placed.regions[0].int().tolist()):
        items[:, :, y1:y2, x1:x2] = crops[place * ipc : (place + 1) * ipc, :, : height - y1, : width - x1]
    return items
