"""ResNet-18 with batch norm, for images of any size."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

LARGE = 128
"""Pixels of the shorter side from which on images enter through the stem of ImageNet's networks."""
BLOCKS = (2, 2, 2, 2)


class ResNetBN(nn.Module):
    """A stem, four stages of two basic residual blocks, global average pool, a linear classifier.

    Images of at least LARGE pixels: a 7x7 convolution of stride 2 and a 3x3 max pool of stride 2, as on ImageNet;
    smaller ones: a 3x3 convolution. width: channels of the first stage (published: 64), doubled by each later stage,
    which halves the map unless that would leave less than 2x2. Its running statistics make it a network with a memory:
    train it in train mode, ask it in eval mode.

    Source: He et al. 2016; weights begin as in torchvision.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int = 64):
        super().__init__()
        large, side = min(size) >= LARGE, min(size)
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, kernel, stride=stride, padding=padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if large:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            side = -(-side // 4)
        before = width
        for stage, blocks in enumerate(BLOCKS):
            after = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 and side > 2 else 1
                side = -(-side // stride)
                layers.append(ResidualBN(before, after, stride))
                before = after
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, classes)
        for layer in self.features.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def activations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d rows columns"]:
        """The last feature map, after its ReLU and before the global pool; images are normalized."""
        return self.features(images)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The input of the classifier; images are normalized."""
        return self.activations(images).mean((2, 3))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.embed(images))


class ResidualBN(nn.Module):
    """relu(two batch-normed 3x3 convolutions + the input, projected by 1x1 where its shape changes)."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, maps: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after rows columns"]:
        return relu(self.body(maps) + self.shortcut(maps))
