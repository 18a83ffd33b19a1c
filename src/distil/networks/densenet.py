"""DenseNet-121 for small images."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.networks.pooling import AveragePool

LAYERS = (6, 12, 24, 16)


class DenseNet(nn.Module):
    """A 3x3 stem, four dense blocks of 6, 12, 24 and 16 layers, global average pool, a linear classifier.

    width: the growth, channels that each layer adds (published for DenseNet-121: 32). Between two blocks a transition
    halves the channels, and the map too unless that would leave less than 2x2, where instance norm gives zero
    whatever is in it.

    Source: Huang et al. 2017, with a stem for small images (stride 1, no max pool).
    Differs: instance norm for batch norm.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int = 32):
        super().__init__()
        side, before = min(size), 2 * width
        layers: list[nn.Module] = [nn.Conv2d(channels, before, 3, padding=1, bias=False)]
        for block, count in enumerate(LAYERS):
            for _ in range(count):
                layers.append(DenseLayer(before, width))
                before += width
            if block < len(LAYERS) - 1:
                layers += [
                    nn.GroupNorm(before, before),
                    nn.ReLU(),
                    nn.Conv2d(before, before // 2, 1, bias=False),
                ]
                before //= 2
                if side >= 4:
                    layers.append(AveragePool())
                    side //= 2
        self.features = nn.Sequential(*layers, nn.GroupNorm(before, before), nn.ReLU())
        self.classifier = nn.Linear(before, classes)

    def activations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d rows columns"]:
        """The last feature map, after its ReLU and before the global pool; images are normalized."""
        return self.features(images)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The input of the classifier; images are normalized."""
        return self.activations(images).mean((2, 3))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.embed(images))


class DenseLayer(nn.Module):
    """Appends `growth` channels, from a 1x1 then a 3x3 convolution, each after norm and ReLU, to its input."""

    def __init__(self, before: int, growth: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(before, before),
            nn.ReLU(),
            nn.Conv2d(before, 4 * growth, 1, bias=False),
            nn.GroupNorm(4 * growth, 4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, maps: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after h w"]:
        return torch.cat([maps, self.body(maps)], 1)
