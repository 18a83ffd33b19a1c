"""VGG-11 for small images."""

from jaxtyping import Float
from torch import Tensor, nn

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))


class VGG(nn.Module):
    """Eight 3x3 convolutions in five stages, each with instance norm and ReLU; a 2x2 max pool ends a stage.

    width: channels of the first stage (published: 64); the others have 2, 4, 8 and 8 times as many. A grey 28x28
    image is padded by 3 in the first convolution, so that its maps start at 32x32. A pool that would leave less than
    2x2 to the next stage is left out, because instance norm makes a 1x1 map zero whatever is in it.

    Source: Simonyan and Zisserman 2015, in the form of DC (Zhao et al. 2021): one linear classifier, no dropout.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        height, wide = size
        before = channels
        for stage, multiples in enumerate(STAGES):
            if stage > 0 and min(height, wide) >= 4:
                layers.append(nn.MaxPool2d(2))
                height, wide = height // 2, wide // 2
            for multiple in multiples:
                padding = 3 if not layers and channels == 1 and size == (28, 28) else 1
                after = width * multiple
                layers += [
                    nn.Conv2d(before, after, 3, padding=padding),
                    nn.GroupNorm(after, after),
                    nn.ReLU(),
                ]
                height, wide = height + 2 * padding - 2, wide + 2 * padding - 2
                before = after
        self.features = nn.Sequential(*layers)
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(before * (height // 2) * (wide // 2), classes)

    def activations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d rows columns"]:
        """The last feature map, after its ReLU and before its pool; images are normalized."""
        return self.features(images)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The input of the classifier; images are normalized."""
        return self.pool(self.activations(images)).flatten(1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.embed(images))
