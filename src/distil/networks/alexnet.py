"""AlexNet for small images."""

from jaxtyping import Float
from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions (5x5, 5x5, 3x3, 3x3, 3x3) with ReLU, max pools after the 1st, 2nd and 5th, a linear classifier.

    width: channels of the first layer (published: 128); the others have 1.5, 2, 1.5 and 1.5 times as many. No norm
    layer and no dropout. A grey 28x28 image is padded by 4 in the first convolution, so that its maps start at 32x32.
    The pool after the 1st or 2nd layer is left out where it would leave less than 2x2.

    Source: Krizhevsky et al. 2012, in the form of DC (Zhao et al. 2021).
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int = 128):
        super().__init__()
        wider = (3 * width + 1) // 2
        layers: list[nn.Module] = []
        height, wide = size
        before = channels
        for layer, (after, kernel) in enumerate(((width, 5), (wider, 5), (2 * width, 3), (wider, 3), (wider, 3))):
            if layer in (1, 2) and min(height, wide) >= 4:
                layers.append(nn.MaxPool2d(2))
                height, wide = height // 2, wide // 2
            extra = 2 if layer == 0 and channels == 1 and size == (28, 28) else 0
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2 + extra), nn.ReLU()]
            height, wide = height + 2 * extra, wide + 2 * extra
            before = after
        self.features = nn.Sequential(*layers)
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(before * (height // 2) * (wide // 2), classes)

    def activations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n channels rows columns"]:
        """The last feature map, after its ReLU and before its pool; images are normalized."""
        return self.features(images)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The input of the classifier; images are normalized."""
        return self.pool(self.activations(images)).flatten(1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.embed(images))
