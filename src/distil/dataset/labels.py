"""The labels that items carry."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from distil.dataset.protocols import Task
from distil.functional.augment import normalize
from distil.networks.experts import Experts

ASKED = 20
"""Experts, at most, that are asked about an image."""


def hard_labels(classes: int, ipc: int) -> Int[Tensor, " {classes}*{ipc}"]:
    """The class of each item, class by class."""
    return torch.arange(classes).repeat_interleave(ipc)


@torch.no_grad()
def expert_logits(
    task: Task, experts: Experts, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """The mean logits that trained experts give each image: of those that recognize it or, if none does, of all.

    images: in [0, 1]. Source: DATM (Guo et al. 2024).
    """
    given = torch.stack([logits(task, experts.last(run), images) for run in range(min(experts.runs, ASKED))])
    right = (given.argmax(2) == labels)[..., None].float()
    right = torch.where(right.sum(0) > 0, right, torch.ones_like(right))
    return (given * right).sum(0) / right.sum(0)


def logits(task: Task, weights: list[Tensor], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """The logits of a network with these weights, of the kind in which images are matched."""
    assert task.network is not None
    net: nn.Module = task.network()
    named: dict[str, Any] = {
        name: weight.to(task.device) for (name, _), weight in zip(net.named_parameters(), weights, strict=True)
    }
    parts = normalize(images, task.real.mean, task.real.std).split(512)
    return torch.cat([functional_call(net, named, (part,)) for part in parts])


@torch.no_grad()
def recognized(task: Task, experts: Experts, rows: Int[Tensor, " n"], label: int) -> Bool[Tensor, " n"]:
    """Whether most trained experts give the real images at these positions their class; on the CPU."""
    asked = range(min(experts.runs, ASKED))
    weights, right = [experts.last(run) for run in asked], list[Tensor]()
    for some in rows.split(2048):
        images = task.real.batch(some).images
        right.append(torch.stack([logits(task, each, images).argmax(1) == label for each in weights]).float().mean(0))
    return (torch.cat(right) > 0.5).cpu()
