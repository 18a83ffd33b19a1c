"""Networks, one copy each; but for those of BATCH_NORMED without state that a forward pass changes.

Each has forward(images) -> logits, embed(images) -> the input of its `classifier`, and activations(images) -> its last
feature map. None but those has batch norm or a buffer, and none has dropout: an image's logits do not depend on its
neighbors in the batch.
"""

import torch

from distil.errors import DistilError
from distil.lookup import chosen
from distil.networks.alexnet import AlexNet
from distil.networks.convnet import ConvNet
from distil.networks.densenet import DenseNet
from distil.networks.resnet import ResNet
from distil.networks.resnet_bn import ResNetBN
from distil.networks.vgg import VGG
from distil.networks.vit import ViT
from distil.rng import seed_at

Network = ConvNet | ResNet | ResNetBN | VGG | AlexNet | DenseNet | ViT

DEFAULT_WIDTHS = {
    "convnet1": 128,
    "convnet2": 128,
    "convnet3": 128,
    "convnet4": 128,
    "convnet5": 128,
    "resnet10": 64,
    "resnet18": 64,
    "resnet18_bn": 64,
    "vgg11": 64,
    "alexnet": 128,
    "densenet121": 32,
    "vit": 192,
}
"""What `width` counts: channels of every layer (convnet), of the first stage or layer (resnet, vgg, alexnet), the
growth (densenet), the dimension of a patch's vector (vit)."""

NETWORKS: tuple[str, ...] = tuple(DEFAULT_WIDTHS)
BATCH_NORMED = ("resnet18_bn",)
"""Networks with batch norm: their running statistics follow the batches in train mode and are used in eval mode."""
SMALLEST_SIDE = 4


def check_network(name: str) -> None:
    """Refuse a name that is not in NETWORKS.

    Raises: DistilError with the nearest name.
    """
    chosen("network", name, NETWORKS, field="network")


def build_network(
    name: str, *, channels: int, size: tuple[int, int], classes: int, width: int | None = None, seed: int
) -> Network:
    """A network on the CPU whose weights depend on the arguments alone; torch's global generator is left as it was.

    name: one of NETWORKS. channels, size: of the images, size as (height, width) in pixels. classes: number of logits.
    width: see DEFAULT_WIDTHS; None is the published width.

    Raises: DistilError on an unknown name, and on a number that no network can have.
    """
    check_network(name)
    width = DEFAULT_WIDTHS[name] if width is None else width
    for what, value, least in (
        ("width", width, 1),
        ("channels", channels, 1),
        ("classes", classes, 2),
        ("image height", size[0], SMALLEST_SIDE),
        ("image width", size[1], SMALLEST_SIDE),
    ):
        if value < least:
            told = f"{name} cannot be built with {what} {value}: it must be at least {least}."
            raise DistilError(told, field=what if what in ("width", "channels", "classes") else "size")
    size = (int(size[0]), int(size[1]))
    address = ("network", name, channels, *size, classes, width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_at(seed, *address))  # torch.manual_seed would reach CUDA's too
        if name.startswith("convnet"):
            return ConvNet(int(name.removeprefix("convnet")), channels, size, classes, width)
        if name == "resnet18_bn":
            return ResNetBN(channels, size, classes, width)
        if name.startswith("resnet"):
            return ResNet(int(name.removeprefix("resnet")), channels, size, classes, width)
        kind = {"vgg11": VGG, "alexnet": AlexNet, "densenet121": DenseNet, "vit": ViT}[name]
        return kind(channels, size, classes, width)
