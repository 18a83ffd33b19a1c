"""ConvNet-d: the network that dataset distillation is published on."""

from jaxtyping import Float
from torch import Tensor, nn

from distil.networks.pooling import AveragePool


class ConvNet(nn.Module):
    """depth x [3x3 convolution, instance norm, ReLU, 2x2 average pool], then a linear classifier.

    width: channels of every layer; published: 128. A grey 28x28 image is padded by 3 in the first convolution, so
    that its maps start at 32x32; every other size is padded by 1.

    Instance norm makes a 1x1 map zero whatever is in it, so a pool that would leave one to the next block is left
    out: every normalized map is at least 2x2. On images of 32 pixels this changes nothing up to depth 5.

    Source: Gidaris and Komodakis 2018, in the form of DC (Zhao et al. 2021).
    """

    def __init__(self, depth: int, channels: int, size: tuple[int, int], classes: int, width: int = 128):
        super().__init__()
        layers: list[nn.Module] = []
        height, wide = size
        for block in range(depth):
            padding = 3 if block == 0 and channels == 1 and size == (28, 28) else 1
            layers += [
                nn.Conv2d(channels if block == 0 else width, width, 3, padding=padding),
                nn.GroupNorm(width, width),
                nn.ReLU(),
            ]
            height, wide = height + 2 * padding - 2, wide + 2 * padding - 2
            if block < depth - 1 and min(height, wide) >= 4:
                layers.append(AveragePool())
                height, wide = height // 2, wide // 2
        self.features = nn.Sequential(*layers)
        self.pool = AveragePool()
        self.classifier = nn.Linear(width * (height // 2) * (wide // 2), classes)

    def activations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width rows columns"]:
        """The last feature map, after its ReLU and before its pool; images are normalized."""
        return self.features(images)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The input of the classifier; images are normalized."""
        return self.pool(self.activations(images)).flatten(1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.embed(images))
