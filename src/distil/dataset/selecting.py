"""Real images by rule: what every selection method does, from the observer to the stored pixels."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from distil.data.images.image_set import ImageSet
from distil.dataset.config import Selection
from distil.dataset.observers import Observing, observer_of
from distil.dataset.proxies import preparing
from distil.dataset.selection.coresets import choose, random_choice
from distil.dataset.selection.tiles import best_crops, factor_of, tiled
from distil.parameterizations.crops import Crops
from distil.runs import Events


def selected(
    real: ImageSet, settings: Selection, events: Events, *, download: bool = False
) -> tuple[UInt8[Tensor, "n c h w"], Crops]:
    """Stored pixels, class by class, and how they are decoded. download: allow the network, for pretrained weights.

    Raises: DistilError as `observers.observer_of`.
    """
    events("start", steps=0)
    observer = None
    if settings.observer is not None:
        observer = observer_of(settings.observer, real, settings.seed, events, download=download)
    if settings.tiles is not None and observer is not None:
        return _tiled(observer, real, settings, events)
    embeddings = None if observer is None else observer.embeddings(real, torch.arange(len(real)), events)
    choosing = preparing(events, "choosing images", "class")
    picks = []
    for label, name in enumerate(real.classes):
        members = real.by_class[label].cpu()
        if embeddings is None:
            chosen = random_choice(len(members), settings.ipc, settings.seed, name)
        else:
            chosen = choose(settings.method, embeddings[members], settings.ipc, settings.seed, name)
            choosing(label + 1, len(real.classes))
        picks.append(members[chosen])
    rows = torch.cat(picks).to(real.images.device)
    return real.images[rows].cpu(), Crops.grid(1, real.size)


def _tiled(observer: Observing, real: ImageSet, settings: Selection, events: Events) -> tuple[Tensor, Crops]:
    assert settings.tiles is not None
    tiles, ipc = settings.tiles, settings.ipc
    placed = Crops.grid(factor_of(tiles, real.size), real.size)
    x1, y1, x2, y2 = placed.regions[0, 0].int().tolist()
    logits = observer.logits()
    choosing = preparing(events, "scoring crops", "class")
    items = []
    for label in range(len(real.classes)):
        count, cell = ipc * placed.images_per_item, (y2 - y1, x2 - x1)
        crops = best_crops(logits, real, label, count, tiles, cell, settings.seed, observer.size)
        items.append(tiled(crops, placed, ipc))
        choosing(label + 1, len(real.classes))
    return torch.cat(items), placed
