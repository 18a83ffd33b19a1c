"""Train fresh networks on a set and test them: the one place where a set gets its score.

Nothing is selected: a network is tested once, after its last update.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import fmean, stdev
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import one_hot

from distil.dataset.artifact import DistilledSet
from distil.errors import DistilError
from distil.evaluate.protocols import Protocol, lr_at, updates_of
from distil.functional.augment import augment, cutmix, normalise
from distil.functional.optimise import sgd_step
from distil.models import build_network, check_network
from distil.rng import seed_at, stream
from distil.runs import Events
from distil.sources.images import ImageSet
from distil.types import Batch

TEST_BATCH = 500
FINITE_CHECK = 50
"""Updates between two looks at the losses: a look waits for the device."""


@dataclass(frozen=True)
class Scores:
    """What a set was worth: test accuracy in percent of every network that was trained on it.

    name, method: of the set. images_per_class: None for a whole training set.
    views: images that the networks were trained on. bytes: stored bytes of the set, labels and regions included.
    protocol, width, seed: how the networks were trained; width None is each network's own.
    test, test_images: name and number of the images tested on.
    updates: of each network.
    accuracies: by network, one accuracy a run.
    """

    name: str
    method: str
    images_per_class: int | None
    views: int
    bytes: int
    protocol: Protocol
    width: int | None
    seed: int
    test: str
    test_images: int
    updates: int
    accuracies: dict[str, tuple[float, ...]]

    @property
    def runs(self) -> int:
        return len(next(iter(self.accuracies.values())))

    @property
    def mean(self) -> dict[str, float]:
        """Mean accuracy over the runs, by network."""
        return {network: fmean(values) for network, values in self.accuracies.items()}

    @property
    def std(self) -> dict[str, float]:
        """Sample standard deviation over the runs (divided by runs - 1), by network; 0 for one run."""
        return {network: stdev(values) if len(values) > 1 else 0.0 for network, values in self.accuracies.items()}

    def to_dict(self) -> dict[str, Any]:
        """The scores as JSON can hold them: protocol by name, its numbers under protocol_settings."""
        mean, std = self.mean, self.std
        return {
            "name": self.name,
            "method": self.method,
            "images_per_class": self.images_per_class,
            "views": self.views,
            "bytes": self.bytes,
            "protocol": self.protocol.name,
            "protocol_settings": {**asdict(self.protocol), "milestones": list(self.protocol.milestones)},
            "width": self.width,
            "seed": self.seed,
            "test": self.test,
            "test_images": self.test_images,
            "updates": self.updates,
            "runs": self.runs,
            "networks": {
                network: {"accuracies": list(values), "mean": mean[network], "std": std[network]}
                for network, values in self.accuracies.items()
            },
        }


def evaluate_distilled(
    distilled: DistilledSet,
    test: ImageSet,
    protocol: Protocol,
    *,
    networks: Sequence[str] = ("convnet3",),
    width: int | None = None,
    runs: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    events: Events | None = None,
) -> Scores:
    """Train fresh networks on the decoded views of a distilled set and test each after its last update.

    networks: names, see `distil.models.NETWORKS`. width: of every network, None for each one's own. runs: networks of
    each name. Equal arguments give equal scores on the CPU. events: called as events("evaluate", network=, run=,
    accuracy=) after each run.

    Raises: DistilError when the set is for other classes, channels or sizes than the test images, on an unknown
    network, on runs below 1, and when a loss is not finite.
    """
    channels = distilled.canvases.shape[1]
    test.check_matches(
        distilled.classes, channels, distilled.view_size, what=f"the distilled set of {distilled.source}"
    )
    views = distilled.decoded().to(device)
    accuracies, updates = _judge(
        lambda _run: (views.images, views.labels),
        test,
        protocol,
        mean=distilled.mean,
        std=distilled.std,
        networks=networks,
        width=width,
        runs=runs,
        seed=seed,
        device=device,
        events=events,
    )
    return Scores(
        name=distilled.source,
        method=distilled.method,
        images_per_class=distilled.images_per_class,
        views=len(views),
        bytes=distilled.bytes["total"],
        protocol=protocol,
        width=width,
        seed=seed,
        test=test.name,
        test_images=len(test.images),
        updates=updates,
        accuracies=accuracies,
    )


def evaluate_real(
    train: ImageSet,
    test: ImageSet,
    protocol: Protocol,
    *,
    images_per_class: int | None,
    networks: Sequence[str] = ("convnet3",),
    width: int | None = None,
    runs: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    events: Events | None = None,
) -> Scores:
    """The same judge on real images: the controls of every distilled set.

    images_per_class: so many random images of every class, drawn afresh for each run; None trains on the whole set,
    with at most `protocol.whole_updates` updates. The rest as in `evaluate_distilled`.

    Raises: DistilError as `evaluate_distilled`, and when a class has fewer images than asked for.
    """
    test.check_matches(train.classes, train.channels, train.size, what=f"the training set {train.name}")
    _check_count(train, images_per_class)
    whole = images_per_class is None
    on_device = train.to(device) if whole else train

    def draw(run: int) -> tuple[Tensor, Tensor]:
        if images_per_class is None:
            return on_device.images, on_device.labels
        drawn = [
            train.sample_class(label, images_per_class, stream(seed, "judge", "real images", run, label))
            for label in range(len(train.classes))
        ]
        labels = torch.arange(len(train.classes)).repeat_interleave(images_per_class)
        return torch.cat(drawn).to(device), labels.to(device)

    accuracies, updates = _judge(
        draw,
        test,
        protocol,
        mean=train.mean,
        std=train.std,
        networks=networks,
        width=width,
        runs=runs,
        seed=seed,
        device=device,
        events=events,
        whole=whole,
    )
    views = len(train.images) if images_per_class is None else images_per_class * len(train.classes)
    return Scores(
        name=train.name,
        method="whole set" if whole else "random",
        images_per_class=images_per_class,
        views=views,
        bytes=views * (train.images[0].numel() + _label_bytes(len(train.classes))),
        protocol=protocol,
        width=width,
        seed=seed,
        test=test.name,
        test_images=len(test.images),
        updates=updates,
        accuracies=accuracies,
    )


def _judge(
    draw: Callable[[int], tuple[Tensor, Tensor]],
    test: ImageSet,
    protocol: Protocol,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    networks: Sequence[str],
    width: int | None,
    runs: int,
    seed: int,
    device: torch.device | str,
    events: Events | None,
    whole: bool = False,
) -> tuple[dict[str, tuple[float, ...]], int]:
    """Accuracies by network, and updates of each; draw(run) gives the images and labels of a run."""
    if runs < 1:
        raise DistilError(f"runs is {runs}: at least 1 network has to be trained.")
    if not networks:
        raise DistilError("no networks to train: name at least one, such as convnet3.")
    for network in networks:
        check_network(network)
    if repeated := sorted({network for network in networks if list(networks).count(network) > 1}):
        raise DistilError(f"network {repeated[0]} is named twice: raise runs to train more of one kind.")
    test = test.to(device)
    accuracies: dict[str, tuple[float, ...]] = {}
    updates = 0
    for network in networks:
        values: list[float] = []
        for run in range(runs):
            images, labels = draw(run)
            net = build_network(
                network,
                channels=test.channels,
                size=test.size,
                classes=len(test.classes),
                width=width,
                seed=seed_at(seed, "judge", "network", run),
            )
            updates = updates_of(protocol, len(images), whole=whole)
            _fit(
                net.to(device),
                images,
                _probabilities(labels, len(test.classes)),
                protocol,
                mean=mean,
                std=std,
                seed=seed_at(seed, "judge", "training", network, run),
                updates=updates,
                what=f"{network}, run {run + 1} of {runs}",
            )
            values.append(accuracy(net, test, mean=mean, std=std))
            if events is not None:
                events("evaluate", network=network, run=run, accuracy=values[-1])
        accuracies[network] = tuple(values)
    return accuracies, updates


def train_network(
    net: nn.Module,
    views: Batch,
    protocol: Protocol,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    device: torch.device | str,
    classes: int,
    updates: int | None = None,
    what: str = "the network",
) -> nn.Module:
    """Train `net` in place, on `device`, as the protocol says, and return it.

    views: their labels as class indices, or as probabilities, which are learnt as they are. mean, std: what images
    are normalised by. classes: number of classes.
    updates: None for the protocol's own number. what: how an error calls the network.

    Each epoch is a fresh permutation; a batch is normalised, augmented image by image, mixed, and learnt by SGD on the
    cross-entropy -sum_k p_k log softmax(net(x))_k. All draws depend on `seed` and the update alone.

    Raises: DistilError when a loss or, at the end, a weight is not finite; it names the update.
    """
    views = views.to(device)
    _fit(
        net.to(device),
        views.images,
        _probabilities(views.labels, classes),
        protocol,
        mean=mean,
        std=std,
        seed=seed,
        updates=updates_of(protocol, len(views)) if updates is None else updates,
        what=what,
    )
    return net


def _probabilities(labels: Int[Tensor, " n"] | Float[Tensor, "n k"], classes: int) -> Float[Tensor, "n k"]:
    """One row of class probabilities an image."""
    return labels.float() if labels.is_floating_point() else one_hot(labels, classes).float()


def _fit(
    net: nn.Module,
    images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"],
    targets: Float[Tensor, "n k"],
    protocol: Protocol,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    updates: int,
    what: str,
) -> None:
    """The loop of `train_network`, all on one device; uint8 images become float batch by batch, to save memory."""
    if images.dtype != torch.uint8:
        images = normalise(images, mean, std)
    count = len(images)
    params = list(net.parameters())
    momenta = [torch.zeros_like(param) for param in params]
    steps = ceil(count / protocol.batch)
    order = torch.arange(count)
    losses: list[Tensor] = []
    for update in range(updates):
        epoch, step = divmod(update, steps)
        if step == 0:
            order = torch.randperm(count, generator=stream(seed, "order", epoch)).to(images.device)
        chosen = order[step * protocol.batch : (step + 1) * protocol.batch]
        batch, goal = images[chosen], targets[chosen]
        if batch.dtype == torch.uint8:
            batch = normalise(batch.float() / 255, mean, std)
        draws = stream(seed, "update", update)
        batch = augment(batch, protocol.strategy, draws, shared=False, one=protocol.one)
        batch, goal = cutmix(batch, goal, draws, probability=protocol.cutmix)
        loss = -(goal * net(batch).log_softmax(1)).sum(1).mean()
        grads = torch.autograd.grad(loss, params)
        sgd_step(
            params,
            grads,
            momenta,
            lr=lr_at(protocol, update, updates),
            momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
        )
        losses.append(loss.detach())
        if len(losses) == FINITE_CHECK or update == updates - 1:
            _check_finite(losses, update + 1, updates, what)
            losses.clear()
    if not all(bool(param.isfinite().all()) for param in params):
        raise DistilError(f"{what}: weights are not finite after update {updates} of {updates}. {REMEDY}")


REMEDY = (
    "Look for damaged images with `distil show`; if they are sound, the learning rate of the protocol is too high for "
    "this network: use another protocol, or from Python dataclasses.replace(protocol, lr=...)."
)


def _check_finite(losses: list[Tensor], done: int, total: int, what: str) -> None:
    """Refuse losses, the last ones of `done` updates, that are NaN or infinite."""
    values = torch.stack(losses)
    bad = (~values.isfinite()).nonzero().flatten()
    if len(bad):
        first = int(bad[0])
        update = done - len(losses) + first + 1
        raise DistilError(f"{what}: the loss is {float(values[first])} at update {update} of {total}. {REMEDY}")


@torch.no_grad()
def accuracy(
    net: nn.Module,
    test: ImageSet,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> float:
    """Percent of the images whose largest logit is that of their label; net and images are on one device.

    mean, std: what the network was trained with; None for the image set's own.
    """
    mean, std = test.mean if mean is None else mean, test.std if std is None else std
    correct = torch.zeros((), dtype=torch.int64, device=test.images.device)
    for images, labels in zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True):
        logits = net(normalise(images.float() / 255, mean, std))
        correct += (logits.argmax(1) == labels).sum()
    return 100 * int(correct) / len(test.images)


def _check_count(train: ImageSet, images_per_class: int | None) -> None:
    if images_per_class is None:
        return
    if images_per_class < 1:
        raise DistilError(f"images_per_class is {images_per_class}: ask for at least 1, or for the whole set.")
    for name, count in zip(train.classes, train.counts, strict=True):
        if count < images_per_class:
            raise DistilError(
                f"class {name!r} of {train.name} has {count} images, {images_per_class} were asked for: "
                f"ask for at most {min(train.counts)}."
            )


def _label_bytes(classes: int) -> int:
    """Bytes of a class index in the smallest integer type that holds it, as the artifact counts them."""
    return 1 if classes <= 2**8 else 2 if classes <= 2**15 else 4
