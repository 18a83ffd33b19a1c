"""ResNet-10 and ResNet-18 for small images."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}


class ResNet(nn.Module):
    """A 3x3 stem, four stages of basic residual blocks, global average pool, a linear classifier.

    depth: 10 or 18. width: channels of the first stage (published: 64), doubled by each later stage. Each later stage
    halves the map unless that would leave less than 2x2, where instance norm gives zero whatever is in it.

    Source: He et al. 2016, with the stem of its CIFAR networks (stride 1, no max pool).
    Differs: instance norm for batch norm, as in DC's evaluation across architectures.
    """

    def __init__(self, depth: int, channels: int, size: tuple[int, int], classes: int, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.GroupNorm(width, width),
            nn.ReLU(),
        ]
        side, before = min(size), width
        for stage, blocks in enumerate(BLOCKS[depth]):
            after = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 and side > 2 else 1
                side = -(-side // stride)
                layers.append(Residual(before, after, stride))
                before = after
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, classes)

    def activations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d rows columns"]:
        """The last feature map, after its ReLU and before the global pool; images are normalized."""
        return self.features(images)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The input of the classifier; images are normalized."""
        return self.activations(images).mean((2, 3))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.embed(images))


class Residual(nn.Module):
    """relu(two normalized 3x3 convolutions + the input, projected by 1x1 where its shape changes)."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(after, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.GroupNorm(after, after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.GroupNorm(after, after)
            )

    def forward(self, maps: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after rows columns"]:
        return relu(self.body(maps) + self.shortcut(maps))
