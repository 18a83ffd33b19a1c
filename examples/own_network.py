"""A network of your own: match images in it, with the rest of any method.

python examples/own_network.py
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from distil import distil_dataset, evaluate, preset
from distil.dataset.network_state import NetworkState


class TwoLayers(nn.Module):
    """Two convolutions with instance norm, each pooled to half the side. images: [n, channels, side, side]."""

    def __init__(self, channels: int, side: int, classes: int, width: int = 32):
        super().__init__()
        layers = []
        for before in (channels, width):
            norm = nn.GroupNorm(width, width)
            layers += [nn.Conv2d(before, width, 3, padding=1), norm, nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (side // 4) ** 2, classes)

    def activations(self, images):
        return self.features(images)

    def embed(self, images):
        return self.activations(images).flatten(1)

    def forward(self, images):
        return self.classifier(self.embed(images))


@dataclass(frozen=True)
class FreshTwoLayers:
    """A fresh network for each outer iteration, which stays as it was drawn."""

    channels: int = 1
    side: int = 16
    classes: int = 10
    seed: int = 0

    def fresh(self, outer):
        with torch.random.fork_rng():
            torch.manual_seed(1000 * self.seed + outer)
            net = TwoLayers(self.channels, self.side, self.classes)
        return NetworkState(net, momenta=[torch.zeros_like(weight) for weight in net.parameters()])

    def advance(self, state, outer, inner, targets, synthetic):
        """After each matching step: the network could be trained here, in place."""


def main(outer: int = 20) -> float:
    settings = replace(preset("idc", "digits", ipc=1), method="two-layers", networks=FreshTwoLayers(), outer=outer)
    made = distil_dataset("digits", settings)
    accuracy = evaluate(made, "digits", protocol="quick", width=32, runs=1).mean["convnet3"]
    print(f"{accuracy:.1f}% of a ConvNet-3 on the test images")
    return accuracy


if __name__ == "__main__":
    main()
