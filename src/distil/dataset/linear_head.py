"""A linear classifier on the embeddings of a network that stays as it is."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distil.dataset.network_state import Progress
from distil.rng import stream

EPOCHS = 50
UPDATES = 500
"""Updates at least: few images get more epochs."""
BATCH = 256
LR = 1e-2
WEIGHT_DECAY = 1e-3


class LinearHead(nn.Module):
    """logits = W (z - mean) / std + b of embeddings z [n d], with mean and std of the embeddings it was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " d"], std: Float[Tensor, " d"], classes: int):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.linear = nn.Linear(len(mean), classes, device=mean.device)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return self.linear((embeddings - self.mean) / self.std)


def linear_head(
    embeddings: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    classes: int,
    seed: int,
    *,
    progress: Progress | None = None,
) -> LinearHead:
    """The head that multinomial logistic regression finds, from zero weights.

    AdamW, batches of BATCH in an order that the seed decides, learning rate LR falling to zero along half a cosine,
    weight decay WEIGHT_DECAY: this library's choice. progress: called after each epoch.
    """
    epochs = max(EPOCHS, UPDATES // -(-len(embeddings) // BATCH))
    head = LinearHead(embeddings.mean(0), embeddings.std(0, correction=0).clamp_min(1e-6), classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        order = torch.randperm(len(embeddings), generator=stream(seed, "linear head", "order", epoch))
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            cross_entropy(head(embeddings[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
        if progress:
            progress(epoch + 1, epochs)
    return head.requires_grad_(False)
