"""The network that a selection of real images asks: trained on them, or a classifier that is given."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.data.arrays import seen_at_once
from distil.data.images.image_set import ImageSet
from distil.dataset.config import Observer, PretrainedObserver
from distil.dataset.linear_head import linear_head
from distil.dataset.proxies import preparing, trained_proxy
from distil.errors import DistilError
from distil.functional.augment import normalize
from distil.networks.classifier_files import open_classifier
from distil.networks.classifiers import AnyClassifier
from distil.rng import stream
from distil.runs import Events

OBSERVER_BATCH = 64
"""Images in an update of a network that is trained here."""
EMBEDDED_AT_ONCE = 512
HEAD_IMAGES = 300
"""Images of a class that a linear head is trained on, at most."""

FromImages = Callable[[Float[Tensor, "n c h w"]], Tensor]
"""Of images in [0, 1]."""


@dataclass(frozen=True)
class Observing:
    """What an observer makes of images in [0, 1]: embeddings [n d] and logits over the classes of the set [n k].

    logits: made when it is first called for, since it may have to be trained. size: (height, width) that its network
    sees.
    """

    embed: FromImages
    logits: Callable[[], FromImages]
    size: tuple[int, int]

    @torch.no_grad()
    def embeddings(
        self, real: ImageSet, rows: Int[Tensor, " n"], events: Events, what: str = "embedding the images"
    ) -> Float[Tensor, "n d"]:
        """Embeddings of the real images at these positions, on the CPU, told as progress."""
        progress, parts, done = preparing(events, what, "image"), [], 0
        for some in rows.split(seen_at_once(self.size, EMBEDDED_AT_ONCE)):
            parts.append(self.embed(real.batch(some).images).flatten(1).float().cpu())
            done += len(some)
            progress(done, len(rows))
        return torch.cat(parts)


def observer_of(
    settings: Observer | PretrainedObserver, real: ImageSet, seed: int, events: Events, *, download: bool = False
) -> Observing:
    """The observer that settings describe, on the device of the images.

    A classifier whose class names are those of the images classifies them as it is. Of any other one the last layer is
    replaced: a linear head is trained on its embeddings of the training images, at most HEAD_IMAGES of each class.
    download: allow the network, for pretrained weights of timm.

    Raises: DistilError as `open_classifier`, and on a classifier that sees other channels than the images have.
    """
    if isinstance(settings, PretrainedObserver):
        classifier = open_classifier(settings.model, download=download).to(real.images.device)
        return _pretrained(classifier, real, seed, events)
    steps = -(-settings.network_epochs * len(real.labels) // OBSERVER_BATCH)
    progress = preparing(events, "training the network that embeds images", "update")
    where = {"device": real.images.device, "seed": seed}
    net = trained_proxy(settings.network, settings.width, real, steps, progress=progress, **where)

    def seen(images: Tensor) -> Tensor:
        return normalize(images, real.mean, real.std)

    return Observing(lambda images: net.embed(seen(images)), lambda: lambda images: net(seen(images)), real.size)  # pyright: ignore[reportCallIssue]


def _pretrained(classifier: AnyClassifier, real: ImageSet, seed: int, events: Events) -> Observing:
    if real.channels not in (1, classifier.channels):
        raise DistilError(
            f"the classifier {classifier.word} sees images of {classifier.channels} channels, and {real.name} has "
            f"{real.channels}: give a classifier of such images.",
            field="model",
        )
    same = classifier.classes is not None and tuple(classifier.classes) == real.classes

    def logits() -> FromImages:
        if same:
            return classifier.logits
        rows = head_images(real, seed)
        embeddings = observing.embeddings(real, rows, events, "embedding images for a linear head")
        told = preparing(events, "training a linear head", "epoch")
        labels = real.labels.cpu()[rows]
        head = linear_head(embeddings, labels, len(real.classes), seed, progress=told).to(real.images.device)
        return lambda images: head(classifier.embed(images).flatten(1).float())

    sizes = [member.size for member in getattr(classifier, "members", [classifier])]
    observing = Observing(classifier.embed, logits, max(sizes))
    return observing


def head_images(real: ImageSet, seed: int) -> Int[Tensor, " n"]:
    """Positions of the images that a linear head is trained on, drawn at the address of each class's name."""
    picked = []
    for name, members in zip(real.classes, real.by_class, strict=True):
        order = torch.randperm(len(members), generator=stream(seed, "linear head", name))
        picked.append(members.cpu()[order[:HEAD_IMAGES]])
    return torch.cat(picked)
