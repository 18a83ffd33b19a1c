"""A small vision transformer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

DEPTH = 6


class ViT(nn.Module):
    """Patches, learned positions, six pre-norm transformer layers, layer norm, mean over patches, a linear classifier.

    width: dimension of a patch's vector (default 192). Heads have 64 dimensions each, as nearly as `width` divides.
    Patches are 2x2 pixels on images below 24, 4x4 from 24, 8x8 from 64, so that there are about 64 of them; an image
    that they do not divide is padded at the right and bottom by zero, the mean of normalized images.

    Source: Dosovitskiy et al. 2021.
    Differs: ours in size; the mean over patches, not a class token, so that the map shows what the classifier sees;
    attention is written out because the fused one has no second derivative, which gradient matching needs.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int = 192):
        super().__init__()
        side = min(size)
        self.patch = 8 if side >= 64 else 4 if side >= 24 else 2
        rows, columns = (-(-length // self.patch) for length in size)
        self.margins = (0, columns * self.patch - size[1], 0, rows * self.patch - size[0])
        self.stem = nn.Conv2d(channels, width, self.patch, stride=self.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, rows * columns, width))
        self.layers = nn.Sequential(*(TransformerLayer(width) for _ in range(DEPTH)), nn.LayerNorm(width))
        self.classifier = nn.Linear(width, classes)

    def activations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width rows columns"]:
        """The patches' vectors after the last norm, as a map; they take both signs. Images are normalized."""
        maps = self.stem(pad(images, self.margins))
        tokens = self.layers(maps.flatten(2).transpose(1, 2) + self.positions)
        return tokens.transpose(1, 2).unflatten(2, maps.shape[2:])

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width"]:
        """The input of the classifier; images are normalized."""
        return self.activations(images).mean((2, 3))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.embed(images))


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)); the perceptron is four times as wide."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Float[Tensor, "n p width"]) -> Float[Tensor, "n p width"]:
        projected = self.queries_keys_values(self.attention_norm(tokens)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # each [n, heads, p, width of a head]
        weights = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)
        tokens = tokens + self.join((weights @ values).transpose(1, 2).flatten(2))
        return tokens + self.perceptron(tokens)
