"""Train fresh networks on a set and test them: the one place where a set gets its score.

Nothing is selected: a network is tested once, after its last update.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from distil.data.arrays import seen_at_once
from distil.data.images.image_set import ImageSet
from distil.data.images.lazy_images import LazyImages
from distil.distilled_set.labeling import teacher_facts
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.evaluation.labels import (
    HARD,
    Labels,
    Loss,
    given_once,
    index_bytes,
    label_bytes,
    loss_of,
    targets_of,
    usual_labels,
)
from distil.evaluation.protocols import Protocol, updates_of
from distil.evaluation.training import probabilities, train_together
from distil.functional.augment import normalize
from distil.networks import build_network, check_network
from distil.processes import ONE, Processes
from distil.rng import seed_at, stream
from distil.runs import Events

TEST_BATCH = 500
Finished = Mapping[tuple[str, int], float]
"""(network, run) -> accuracy in percent."""
Trained = Callable[[str, int, nn.Module], None]


@dataclass(frozen=True)
class Scores:
    """What a set was worth: test accuracy in percent of every network that was trained on it.

    name, method: of the set. images_per_class: None for a whole training set.
    views: images that the networks were trained on. bytes: stored bytes of the set, regions and the labels that were
        learned included.
    protocol, width, seed: how the networks were trained; width None is each network's own.
    test, test_images: name and number of the images tested on.
    updates: of each network.
    accuracies: by network, one accuracy a run.
    labels: the regime, hard, stored or teacher; see `distil.evaluation.labels`. label_bytes: of the stored labels that
        were learned, a part of `bytes`. teacher: who labeled at training time, or gave the stored labels: its "words",
        "sha256" and "bytes", which are no part of `bytes`; None where there is none. temperature: the teacher's.
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
    labels: str = "hard"
    label_bytes: int = 0
    teacher: dict[str, Any] | None = None
    temperature: float | None = None

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
            "protocol_version": self.protocol.version,
            "protocol_settings": {**_numbers(self.protocol), "milestones": list(self.protocol.milestones)},
            "width": self.width,
            "seed": self.seed,
            "test": self.test,
            "test_images": self.test_images,
            "updates": self.updates,
            "labels": self.labels,
            "label_bytes": self.label_bytes,
            "teacher": self.teacher,
            "temperature": self.temperature,
            "runs": self.runs,
            "networks": {
                network: {"accuracies": list(values), "mean": mean[network], "std": std[network]}
                for network, values in self.accuracies.items()
            },
        }


def _numbers(protocol: Protocol) -> dict[str, Any]:
    """The fields of a protocol but for its version, which score files name beside it, and for those that files of
    version 0.1 do not have, where they change nothing."""
    plain = {name: getattr(Protocol, name) for name in ("optimizer", "half_cosine", "resized_crop")}
    return {name: x for name, x in asdict(protocol).items() if name != "version" and x != plain.get(name, ...)}


def evaluate_distilled(
    distilled: DistilledSet,
    test: ImageSet,
    protocol: Protocol,
    *,
    labels: Labels | None = None,
    networks: Sequence[str] = ("convnet3",),
    width: int | None = None,
    runs: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    at_once: int | None = None,
    events: Events | None = None,
    finished: Finished | None = None,
    trained: Trained | None = None,
    processes: Processes = ONE,
) -> Scores:
    """Train fresh networks on the decoded views of a distilled set and test each after its last update.

    test: of the classes of the set, in any order.
    labels: whose labels are learned; None: the soft ones of the set if it has them, else its hard ones.
    networks: names, see `distil.networks.NETWORKS`. width: of every network, None for each one's own. runs: networks of
    each name. Equal arguments give equal scores on the CPU.
    at_once: networks of one name that are trained together, in batched operations; every update is the same up to
    rounding whatever it is, which deep networks amplify as they train. None is all runs on a GPU, which small networks
    leave idle, and 1 elsewhere: on a CPU only small images in small batches gain from more. Memory grows with it.
    events: called as events("evaluate", network=, run=, accuracy=) for each run, once those that were trained with it
    are trained.
    finished: accuracies of an earlier call with equal arguments that was stopped; those networks are not trained again
    (of some that are trained together, all have to be there) and not told of.
    processes: those that share the runs. Each calls this alike, trains its part of them and gets all scores, which on
    the CPU are those of one process; events tell of them in rounds.

    Raises: DistilError when the set or the teacher is for other classes, channels or sizes than the test images, when
    the set lacks the labels, on an unknown network, on runs or at_once below 1, and when a loss is not finite, which
    names the network and the run.
    """
    channels = len(distilled.mean)
    if sorted(test.classes) == sorted(distilled.classes):
        test = test.only(distilled.classes)
    test.check_matches(distilled.classes, channels, distilled.size, what=f"the distilled set of {distilled.source}")
    labels = _placed(usual_labels(distilled) if labels is None else labels, test, device)
    targets = targets_of(distilled, labels).to(device)
    views = distilled.decoded().to(device)
    images = normalize(views.images, distilled.mean, distilled.std)
    accuracies, updates = _judge(
        lambda _run: (images, targets),
        test,
        protocol,
        count=len(views),
        loss=loss_of(labels, distilled.mean, distilled.std),
        mean=distilled.mean,
        std=distilled.std,
        networks=networks,
        width=width,
        runs=runs,
        seed=seed,
        device=device,
        at_once=at_once,
        events=events,
        finished=finished,
        trained=trained,
        processes=processes,
    )
    return Scores(
        name=distilled.source,
        method=distilled.method,
        images_per_class=distilled.images_per_class,
        views=len(views),
        bytes=distilled.bytes["total"] - distilled.bytes["labels"] + label_bytes(distilled, labels),
        protocol=protocol,
        width=width,
        seed=seed,
        test=test.name,
        test_images=len(test.images),
        updates=updates,
        accuracies=accuracies,
        labels=labels.regime,
        label_bytes=label_bytes(distilled, labels),
        **_taught(labels, distilled),
    )


def evaluate_real(
    train: ImageSet,
    test: ImageSet,
    protocol: Protocol,
    *,
    images_per_class: int | None,
    labels: Labels = HARD,
    networks: Sequence[str] = ("convnet3",),
    width: int | None = None,
    runs: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    at_once: int | None = None,
    events: Events | None = None,
    finished: Finished | None = None,
    trained: Trained | None = None,
    processes: Processes = ONE,
) -> Scores:
    """The same evaluation of real images: the controls of every distilled set.

    images_per_class: so many random images of every class, drawn afresh for each run; None trains on the whole set,
    with at most `protocol.whole_updates` updates. labels: "stored" are those that the teacher gives to each image once,
    as `distil label` would. The rest as in `evaluate_distilled`.

    Raises: DistilError as `evaluate_distilled`, and when a class has fewer images than asked for.
    """
    test.check_matches(train.classes, train.channels, train.size, what=f"the training set {train.name}")
    _check_count(train, images_per_class)
    if labels.regime == "stored" and labels.teacher is None:
        raise DistilError(
            "{labels=stored}: real images have no soft labels until a teacher gives them: name it with {teacher}.",
            field=("labels", "teacher"),
        )
    labels = _placed(labels, test, device)
    whole = images_per_class is None
    on_device = train.to(device) if whole else train
    classes = len(train.classes)
    indices = train.labels if images_per_class is None else torch.arange(classes).repeat_interleave(images_per_class)
    targets = probabilities(indices.to(device), classes)
    if whole and labels.regime == "stored":
        parts = torch.arange(len(train)).split(TEST_BATCH)
        targets = torch.cat([given_once(labels, on_device.batch(rows).images) for rows in parts])

    views = len(train.images) if images_per_class is None else images_per_class * len(train.classes)

    def draw(run: int) -> tuple[Tensor | LazyImages, Tensor]:
        if images_per_class is None:
            return on_device.images, targets
        drawn = [
            train.sample_class(label, images_per_class, stream(seed, "judge", "real images", run, label))
            for label in range(len(train.classes))
        ]
        images = torch.cat(drawn).to(device)
        goals = given_once(labels, images) if labels.regime == "stored" else targets
        return normalize(images, train.mean, train.std), goals

    accuracies, updates = _judge(
        draw,
        test,
        protocol,
        count=views,
        loss=loss_of(labels, train.mean, train.std),
        mean=train.mean,
        std=train.std,
        networks=networks,
        width=width,
        runs=runs,
        seed=seed,
        device=device,
        at_once=at_once,
        events=events,
        finished=finished,
        trained=trained,
        processes=processes,
        whole=whole,
    )
    each = {"hard": index_bytes(classes), "stored": 2 * classes, "teacher": 0}[labels.regime]
    return Scores(
        name=train.name,
        method="whole set" if whole else "random",
        images_per_class=images_per_class,
        views=views,
        bytes=views * (prod(train.images.shape[1:]) + each),
        protocol=protocol,
        width=width,
        seed=seed,
        test=test.name,
        test_images=len(test.images),
        updates=updates,
        accuracies=accuracies,
        labels=labels.regime,
        label_bytes=views * each,
        **_taught(labels),
    )


def _placed(labels: Labels, test: ImageSet, device: torch.device | str) -> Labels:
    """The labels with their teacher on the device. Raises: DistilError if the teacher is for other classes."""
    if labels.teacher is None:
        return labels
    labels.teacher.check_matches(test.classes, test.channels, test.name)
    return replace(labels, teacher=labels.teacher.to(device))


def _taught(labels: Labels, distilled: DistilledSet | None = None) -> dict[str, Any]:
    """What scores tell of the teacher: of stored labels, who gave them."""
    if labels.regime == "stored" and distilled is not None:
        source = distilled.label_source or {}
        known = {key: source[key] for key in ("words", "sha256", "bytes") if key in source}
        return {"teacher": known or None, "temperature": source.get("temperature")}
    if labels.teacher is None or labels.regime == "hard":
        return {}
    return {"teacher": teacher_facts(labels.teacher), "temperature": labels.temperature}


def _judge(
    draw: Callable[[int], tuple[Tensor | LazyImages, Tensor]],
    test: ImageSet,
    protocol: Protocol,
    *,
    count: int,
    loss: Loss | None,
    mean: Sequence[float],
    std: Sequence[float],
    networks: Sequence[str],
    width: int | None,
    runs: int,
    seed: int,
    device: torch.device | str,
    at_once: int | None,
    events: Events | None,
    finished: Finished | None,
    trained: Trained | None,
    processes: Processes,
    whole: bool = False,
) -> tuple[dict[str, tuple[float, ...]], int]:
    """Accuracies by network, and updates of each; draw(run) gives the images of a run, uint8 or normalized floats, and
    their class probabilities, both on the device. count: images of a run. loss: what is learned if not the
    probabilities."""
    if runs < 1:
        raise DistilError(f"{{runs}} is {runs}: at least 1 network has to be trained.", field="runs")
    if at_once is not None and at_once < 1:
        raise DistilError(f"{{at_once}} is {at_once}: at least 1 network is trained at a time.", field="at_once")
    if not networks:
        raise DistilError("{networks} is empty: name at least one, such as convnet3.", field="networks")
    for network in networks:
        check_network(network)
    if repeated := sorted({network for network in networks if list(networks).count(network) > 1}):
        raise DistilError(
            f"network {repeated[0]} is named twice: raise {{runs}} to train more of one kind.",
            field=("networks", "runs"),
        )
    at_once = trained_at_once(at_once, runs, device, processes.count)
    test = test.to(device)
    updates = 0

    def accuracies_of(network: str, group: range) -> list[float]:
        """The accuracies of networks that are trained together."""
        images, targets = zip(*(draw(run) for run in group), strict=True)
        nets = [
            build_network(
                network,
                channels=test.channels,
                size=test.size,
                classes=len(test.classes),
                width=width,
                seed=seed_at(seed, "judge", "network", run),
            ).to(device)
            for run in group
        ]
        train_together(
            nets,
            images,
            targets,
            protocol,
            mean=mean,
            std=std,
            seeds=[seed_at(seed, "judge", "training", network, run) for run in group],
            updates=updates,
            names=[f"{network}, run {run + 1} of {runs}" for run in group],
            loss_of=loss,
        )
        if trained is not None:
            for run, net in zip(group, nets, strict=True):
                trained(network, run, net)
        return [accuracy(net, test, mean=mean, std=std) for net in nets]

    updates = updates_of(protocol, count, whole=whole)
    groups = [
        (network, range(first, min(first + at_once, runs))) for network in networks for first in range(0, runs, at_once)
    ]
    found = dict(finished or {})
    left = [(network, group) for network, group in groups if any((network, run) not in found for run in group)]
    for first in range(0, len(left), processes.count):
        share = left[first : first + processes.count]
        own = accuracies_of(*share[processes.rank]) if processes.rank < len(share) else []
        for (network, group), values in zip(share, processes.every(own), strict=False):
            for run, value in zip(group, values, strict=True):
                found[network, run] = value
                if events is not None:
                    events("evaluate", network=network, run=run, accuracy=value)
    return {network: tuple(found[network, run] for run in range(runs)) for network in networks}, updates


def trained_at_once(at_once: int | None, runs: int, device: torch.device | str, processes: int = 1) -> int:
    """Networks of one name that are trained together: `at_once`; or for None all runs of a GPU, each of which has its
    share of them, and 1 elsewhere."""
    if at_once is not None:
        return at_once
    return -(-runs // processes) if torch.device(device).type == "cuda" else 1


@torch.no_grad()
def accuracy(
    net: nn.Module,
    test: ImageSet,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> float:
    """Percent of the images whose largest logit, in eval mode, is that of their label; net and images are on one
    device.

    mean, std: what the network was trained with; None for the image set's own.
    """
    mean, std = test.mean if mean is None else mean, test.std if std is None else std
    mode = net.training
    net.eval()
    correct = torch.zeros((), dtype=torch.int64, device=test.images.device)
    batch = seen_at_once(test.size, TEST_BATCH)
    for images, labels in zip(test.images.split(batch), test.labels.split(batch), strict=True):
        logits = net(normalize(images.float() / 255, mean, std))
        correct += (logits.argmax(1) == labels).sum()
    net.train(mode)
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
