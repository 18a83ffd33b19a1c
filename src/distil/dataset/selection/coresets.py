"""Coresets: real images chosen to stand for their class. Pure functions of embeddings, and one that applies them.

Each returns positions among the rows it is given, in the order of choice.
"""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.data.arrays import seen_at_once
from distil.data.images.image_set import ImageSet
from distil.functional.augment import normalize
from distil.rng import seed_at, stream


def herding(embeddings: Float[Tensor, "n d"], count: int) -> Int[Tensor, " {count}"]:
    """Greedily the rows whose running sum stays nearest to count times the mean.

    Step k takes the row minimizing || (k + 1) mean - sum of chosen - row ||, each row once.
    Source: Welling 2009, as used by iCaRL (Rebuffi et al. 2017).
    """
    mean, total = embeddings.mean(0), torch.zeros_like(embeddings[0])
    free = torch.ones(len(embeddings), dtype=torch.bool)
    chosen = []
    for step in range(count):
        gap = ((step + 1) * mean - total - embeddings).square().sum(1)
        pick = int(gap.masked_fill(~free, torch.inf).argmin())
        free[pick] = False
        total = total + embeddings[pick]
        chosen.append(pick)
    return torch.tensor(chosen)


def k_center(embeddings: Float[Tensor, "n d"], count: int) -> Int[Tensor, " {count}"]:
    """Greedily the rows farthest from those already chosen, beginning with the row nearest to the mean.

    Source: Gonzalez 1985; Sener and Savarese 2018.
    """
    pick = int((embeddings - embeddings.mean(0)).square().sum(1).argmin())
    chosen, nearest = [pick], (embeddings - embeddings[pick]).square().sum(1)
    while len(chosen) < count:
        nearest[chosen] = -1
        pick = int(nearest.argmax())
        chosen.append(pick)
        nearest = torch.minimum(nearest, (embeddings - embeddings[pick]).square().sum(1))
    return torch.tensor(chosen)


def k_means(embeddings: Float[Tensor, "n d"], count: int, seed: int) -> Int[Tensor, " {count}"]:
    """The row nearest to each k-means center, each row once, the largest cluster first.

    seed: of scikit-learn's k-means++ start. Source: DREAM (Liu et al. 2023) for its use in distillation.
    """
    from sklearn.cluster import KMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = KMeans(count, n_init="auto", random_state=seed % 2**32).fit(embeddings.numpy())
    centers = torch.from_numpy(fitted.cluster_centers_).to(embeddings.dtype)
    sizes = torch.bincount(torch.from_numpy(fitted.labels_).long(), minlength=count)
    free = torch.ones(len(embeddings), dtype=torch.bool)
    chosen = []
    for center in centers[sizes.argsort(descending=True, stable=True)]:
        gap = (embeddings - center).square().sum(1)
        pick = int(gap.masked_fill(~free, torch.inf).argmin())
        free[pick] = False
        chosen.append(pick)
    return torch.tensor(chosen)


def random_choice(total: int, count: int, seed: int, name: str) -> Int[Tensor, " {count}"]:
    """`count` of `total` positions without replacement, drawn at the address of the class's name."""
    return torch.randperm(total, generator=stream(seed, "coreset", name))[:count]


def choose(rule: str, embeddings: Float[Tensor, "n d"], count: int, seed: int, name: str) -> Int[Tensor, " {count}"]:
    """Apply "herding", "k-center" or "k-means" to the embeddings of one class."""
    if rule == "herding":
        return herding(embeddings, count)
    if rule == "k-center":
        return k_center(embeddings, count)
    return k_means(embeddings, count, seed_at(seed, "coreset", name))


@torch.no_grad()
def embedded(net: nn.Module, real: ImageSet, rows: Int[Tensor, " n"], batch: int = 512) -> Float[Tensor, "n d"]:
    """The network's embedding of the real images at these positions, in float32 on the CPU; it may compute in another
    precision."""
    dtype, parts = next(net.parameters()).dtype, []
    for some in rows.split(seen_at_once(real.size, batch)):
        images = normalize(real.batch(some).images, real.mean, real.std).to(dtype)
        parts.append(net.embed(images).flatten(1).float().cpu())  # pyright: ignore[reportCallIssue]
    return torch.cat(parts)
