"""How much of a canvas is used: utilization maps, scores of windows, and the entropy metric.

Source: UDD (mining underutilized regions) names a response-based and a data-jittering-based policy and a metric mUE;
the formulas here are our reconstruction (docs/methods/udd.md).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, kl_div, log_softmax

from distil.functional.regions import paste_back
from distil.types import Regions


def stretch(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Each map shifted and scaled to [0, 1]; a constant map becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp_min(1e-12), 0)


def response_map(
    activations: Float[Tensor, "views ch a b"], regions: Regions, size: tuple[int, int], view_size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Utilization of every canvas pixel by response: how strongly the proxy network reacts to the views that show it.

    activations: feature maps of the views, canvas by canvas. regions: [n, r, 4] or [1, r, 4], views = n*r.
    A view's map is the mean magnitude over channels, enlarged to the view; a pixel takes the average over the views
    that show it; each canvas's map is then stretched to [0, 1], so that views of one canvas are compared.
    """
    maps = interpolate(activations.abs().mean(1, keepdim=True), size=view_size, mode="bilinear", align_corners=False)
    count = regions.shape[1]
    return stretch(paste_back(maps.view(-1, count, *view_size), regions, size)[0])


def jitter_divergence(before: Float[Tensor, "n k"], after: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """KL(softmax(before) || softmax(after)) of each row of logits: how much a jitter changed the prediction."""
    p, q = log_softmax(before, dim=1), log_softmax(after, dim=1)
    return kl_div(q, p, reduction="none", log_target=True).sum(1)


def spread_scores(
    scores: Float[Tensor, "n r"], windows: Float[Tensor, "r 4"], size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """A map from window scores: at each pixel the mean score of the windows that hold it, stretched to [0, 1]."""
    row = torch.arange(size[0], device=scores.device)
    column = torch.arange(size[1], device=scores.device)
    x1, y1, x2, y2 = (side[:, None] for side in windows.unbind(1))
    rows = ((row >= y1) & (row < y2)).to(scores.dtype)
    columns = ((column >= x1) & (column < x2)).to(scores.dtype)
    total = torch.einsum("nr,rh,rw->nhw", scores, rows, columns)
    count = torch.einsum("rh,rw->hw", rows, columns)
    return stretch(total / count.clamp_min(1))


def utilization_entropy(utilization: Float[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """mUE: entropy of the utilization over a canvas's pixels, divided by log(pixels), averaged over canvases.

    1 when every pixel is used alike, 0 when one pixel is all that is used; a map of zeros counts as 0.
    """
    flat = utilization.flatten(1)
    total = flat.sum(1, keepdim=True)
    share = torch.where(total > 0, flat / total.clamp_min(1e-12), 0)
    entropy = -torch.special.xlogy(share, share).sum(1) / math.log(flat.shape[1])
    return entropy.mean()
