"""Trained classifiers: one network, or several as an ensemble, with all that it takes to ask them about an image."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distil.checks import check_class_names, check_statistics
from distil.errors import DistilError
from distil.files import checksum
from distil.networks import DEFAULT_WIDTHS
from distil.networks.backbones import COUNTER

TIMM = "timm:"


class Classifier(nn.Module):
    """A trained network that is only asked: in eval mode for good, without gradients to its weights.

    network: normalized images [n c h w] -> logits [n k]. architecture, width: what it was built as: a name of NETWORKS,
    or "timm:" and a name of timm, whose width is None.
    mean, std: per channel, what it was trained with. size: height and width of the images that it was trained on.
    classes: names by class index; or their number, where nobody told the names.
    word: how the user calls it.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        architecture: str,
        classes: Sequence[str] | int,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int],
        width: int | None = None,
        word: str = "",
    ):
        super().__init__()
        self.network, self.architecture, self.width = network.eval().requires_grad_(False), architecture, width
        self.classes = None if isinstance(classes, int) else check_class_names(classes)
        self.class_count = classes if isinstance(classes, int) else len(classes)
        self.mean, self.std = check_statistics(mean, std, len(mean))
        self.size, self.word = (int(size[0]), int(size[1])), word or architecture

    def train(self, mode: bool = True) -> "Classifier":
        """Nothing: a batch norm that follows the batch would give other logits."""
        return self

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def bytes(self) -> int:
        """Bytes of its weights."""
        return sum(tensor.numel() * tensor.element_size() for tensor in weights_of(self.network).values())

    def fingerprint(self) -> str:
        """A hash of the weights and of all that decides what they say to an image; the word does not count."""
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights_of(self.network).items()}
        return checksum(weights, header_of(self)).partition(":")[2]

    def describe(self) -> str:
        """What it is and how it sees an image, in words."""
        height, width = self.size
        return f"{self.word} ({self.architecture}; images resized bilinearly to {width} x {height} if they are not)"

    def logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class logits of images in [0, 1], of any size."""
        return self.network(self._seen(images))

    forward = logits

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What its last layer gets, of images in [0, 1]."""
        network: Any = self.network
        seen = self._seen(images)
        if not self.architecture.startswith(TIMM):
            return network.embed(seen)
        return network.forward_head(network.forward_features(seen), pre_logits=True)

    def _seen(self, images: Tensor) -> Tensor:
        """Resized, grey repeated for a network of color images, and normalized."""
        if tuple(images.shape[2:]) != self.size:
            images = interpolate(images, self.size, mode="bilinear", antialias=True)
        if images.shape[1] == 1:
            images = images.expand(-1, self.channels, -1, -1)
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def check_matches(self, classes: Sequence[str], channels: int, what: str) -> None:
        """Nothing, if it tells the classes of `what` apart, in this order, and sees images of so many channels.

        Names that nobody told are not compared. what: as the message names it: "digits train".
        Raises: DistilError that names both sides.
        """
        if channels not in (1, self.channels):
            raise DistilError(
                f"the classifier {self.word} sees images of {self.channels} channels, and {what} has {channels}: give "
                "a classifier of such images."
            )
        if self.class_count != len(classes):
            raise DistilError(
                f"the classifier {self.word} tells {self.class_count} classes apart, and {what} has {len(classes)}: "
                "give a classifier that was trained on these classes."
            )
        if self.classes is not None and self.classes != (others := check_class_names(classes)):
            index = next(i for i, pair in enumerate(zip(self.classes, others, strict=True)) if pair[0] != pair[1])
            raise DistilError(
                f"the classifier {self.word} and {what} have different classes: class {index} is "
                f"{self.classes[index]!r} against {others[index]!r}. Give a classifier that was trained on these "
                "classes in this order."
            )


class Ensemble(nn.Module):
    """Several classifiers of the same classes as one, with the same methods: its logits are the mean of theirs.

    words: that open it, as the user gave them; those of the members unless given.

    Raises: DistilError when there are none, or when their classes differ.
    """

    def __init__(self, members: Sequence[Classifier], words: Sequence[str] = ()):
        super().__init__()
        if not members:
            raise DistilError("an ensemble needs at least one classifier.")
        self.members = nn.ModuleList(members)
        self.words = tuple(words) or tuple(member.word for member in members)
        named = [member for member in members if member.classes is not None]
        self.classes = named[0].classes if named else None
        self.class_count, self.channels = members[0].class_count, max(member.channels for member in members)
        for member in members:
            if self.classes is not None:
                member.check_matches(self.classes, 1, f"the classifier {named[0].word}")
            elif member.class_count != self.class_count:
                raise DistilError(
                    f"the classifiers {members[0].word} and {member.word} tell {self.class_count} and "
                    f"{member.class_count} classes apart: an ensemble needs the same classes."
                )

    @property
    def all(self) -> list[Classifier]:
        """Its members."""
        return list(self.members)  # pyright: ignore[reportReturnType]

    @property
    def bytes(self) -> int:
        return sum(member.bytes for member in self.all)

    def fingerprint(self) -> str:
        return checksum({}, {"members": [member.fingerprint() for member in self.all]}).partition(":")[2]

    def describe(self) -> str:
        return f"mean logits of {len(self.members)} classifiers of {', '.join(self.words)}"

    def logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The mean of the members' logits."""
        return torch.stack([member.logits(images) for member in self.all]).mean(0)

    forward = logits

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The members' embeddings, one after another."""
        return torch.cat([member.embed(images) for member in self.all], 1)

    def check_matches(self, classes: Sequence[str], channels: int, what: str) -> None:
        """Every member's. Raises: DistilError as they do."""
        for member in self.all:
            member.check_matches(classes, channels, what)


AnyClassifier = Classifier | Ensemble


def header_of(classifier: Classifier) -> dict[str, Any]:
    """What a file says of it beside its weights."""
    width = classifier.width
    if width is None:
        width = DEFAULT_WIDTHS.get(classifier.architecture)
    return {
        "network": classifier.architecture,
        "width": width,
        "classes": classifier.class_count if classifier.classes is None else list(classifier.classes),
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "size": list(classifier.size),
    }


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Its weights and buffers, but for batch norms' counters."""
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}
