"""What the canvases look like before the first step."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from distil.data.images.image_set import ImageSet
from distil.functional.regions import grid_regions
from distil.rng import stream
from distil.types import Regions


def initial_canvases(real: ImageSet, ipc: int, init: str, factor: int, seed: int) -> Float[Tensor, "n c h w"]:
    """Canvases in [0, 1], class by class, on the device of `real`.

    init: "noise" (normal, about the data's mean with its standard deviation, clamped), "real" (random real images), or
    "mix" (every cell of the factor x factor grid is a random real image of the class, shrunk with antialiasing).
    Draws are addressed by class name.
    Source: DC (noise), DSA (real), IDC's released code (mix). Differs: IDC shrinks with nearest neighbour.
    """
    height, width = real.size
    canvases = torch.empty(len(real.classes) * ipc, real.channels, height, width, device=real.images.device)
    for label, name in enumerate(real.classes):
        rows = slice(label * ipc, (label + 1) * ipc)
        generator = stream(seed, "initial", name)
        if init == "noise":
            noise = torch.randn(ipc, real.channels, height, width, generator=generator).to(canvases.device)
            mean, std = (noise.new_tensor(values).view(1, -1, 1, 1) for values in (real.mean, real.std))
            canvases[rows] = (mean + std * noise).clamp(0, 1)
        elif init == "real" or factor == 1:
            canvases[rows] = real.sample_class(label, ipc, generator)
        else:
            images = real.sample_class(label, ipc * factor**2, generator).unflatten(0, (factor**2, ipc))
            for cell, (x1, y1, x2, y2) in zip(images, grid_regions(factor, real.size).int().tolist(), strict=True):
                shrunk = interpolate(cell, size=(y2 - y1, x2 - x1), mode="bilinear", antialias=True)
                canvases[rows, :, y1:y2, x1:x2] = shrunk[:, :, : height - y1, : width - x1]
    return canvases.clamp_(0, 1)


def paste_real(
    canvases: Float[Tensor, "n c h w"], regions: Regions, fresh: Bool[Tensor, "n r"], real: ImageSet, seed: int, at: int
) -> None:
    """Paste random real images of each canvas's class, shrunk with antialiasing, into its regions that are `fresh`.

    canvases: in [0, 1], class by class; changed in place. regions: inside the canvas, at whole pixels. at: address of
    the draws, beside the class's name.
    """
    ipc = len(canvases) // len(real.classes)
    for row in fresh.any(1).nonzero().flatten().tolist():
        places = regions[row][fresh[row]].int().tolist()
        label, copy = divmod(row, ipc)
        images = real.sample_class(label, len(places), stream(seed, "windows", "real", at, real.classes[label], copy))
        for image, (x1, y1, x2, y2) in zip(images, places, strict=True):
            shrunk = interpolate(image[None], size=(y2 - y1, x2 - x1), mode="bilinear", antialias=True)
            canvases[row, :, y1:y2, x1:x2] = shrunk[0].clamp(0, 1)
