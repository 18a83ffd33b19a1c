"""DD-Ranking: what a distilled set is worth once the help of soft labels, a teacher and augmentation is taken away.

Source: DD-Ranking (Li et al. 2025), package ddranking 0.2.0: `metrics/soft_label.py` and `metrics/aug_robust.py`.
Differs: all accuracies come from one named protocol of ours, with one learning rate, where the package searches the
learning rate of every accuracy on the test images and keeps the best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import e, exp
from statistics import fmean, stdev
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from distil.data.images.image_set import ImageSet
from distil.distilled_set.record import DistilledSet
from distil.evaluation.evaluator import evaluate_distilled, evaluate_real
from distil.evaluation.labels import HARD, Labels
from distil.evaluation.protocols import Protocol

WEIGHT = 0.5
"""w. Source: ddranking 0.2.0."""
PARTS = ("real_hard", "hard", "own", "random", "own_plain", "random_plain")
PLAIN = " without augmentation"
"""How the name of a protocol ends whose augmentation was left out."""


@dataclass(frozen=True, eq=False)
class Part:
    """One of the evaluations that a ranking needs: of the set, of random real images, or of the whole training set."""

    of: Literal["set", "random", "whole"]
    labels: Labels
    protocol: Protocol

    def key(self) -> tuple[Any, ...]:
        """Equal for two parts that are the same evaluation."""
        labels = self.labels
        return self.of, labels.regime, labels.temperature, id(labels.teacher), self.protocol


def parts(protocol: Protocol, own: Labels, random: Labels) -> dict[str, Part]:
    """The evaluations by name (PARTS). own: labels of the set. random: labels of random real images, of the same
    regime, from the same teacher."""
    plain = without_augmentation(protocol)
    return {
        "real_hard": Part("whole", HARD, protocol),
        "hard": Part("set", HARD, protocol),
        "own": Part("set", own, protocol),
        "random": Part("random", random, protocol),
        "own_plain": Part("set", own, plain),
        "random_plain": Part("random", random, plain),
    }


def without_augmentation(protocol: Protocol) -> Protocol:
    """The same protocol on images as they are, neither augmented nor mixed."""
    return replace(protocol, name=f"{protocol.name}{PLAIN}", strategy="none", cutmix=0.0)


def score_of(value: float) -> float:
    """(e^value - e^-1) / (e - e^-1): 0 at -1, 1 at 1."""
    return (exp(value) - 1 / e) / (e - 1 / e)


@dataclass(frozen=True)
class Ranking:
    """The scores of one kind of network; accuracies are shares of 1, one a run.

    real_hard: the whole training set, hard labels. hard: the set, hard labels. own, random: the set and as many random
    real images, in the label regime of the set. own_plain, random_plain: the same without augmentation.
    """

    real_hard: tuple[float, ...]
    hard: tuple[float, ...]
    own: tuple[float, ...]
    random: tuple[float, ...]
    own_plain: tuple[float, ...]
    random_plain: tuple[float, ...]
    weight: float = WEIGHT

    @property
    def hlr(self) -> tuple[float, ...]:
        """Hard label recovery of each run: real_hard - hard. The smaller, the more of the data is in the images."""
        return _minus(self.real_hard, self.hard)

    @property
    def ior(self) -> tuple[float, ...]:
        """Improvement over random of each run: own - random."""
        return _minus(self.own, self.random)

    @property
    def lrs(self) -> tuple[float, ...]:
        """Label robust score of each run: `score_of` w IOR - (1 - w) HLR."""
        w = self.weight
        return tuple(score_of(w * ior - (1 - w) * hlr) for ior, hlr in zip(self.ior, self.hlr, strict=True))

    @property
    def ars(self) -> tuple[float, ...]:
        """Augmentation robust score of each run: `score_of` w (own - random) + (1 - w) (own_plain - random_plain)."""
        w, without = self.weight, _minus(self.own_plain, self.random_plain)
        return tuple(score_of(w * gain + (1 - w) * plain) for gain, plain in zip(self.ior, without, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Every accuracy and score, its runs, mean and standard deviation, as JSON can hold them."""
        return {"weight": self.weight, **{name: _told(getattr(self, name)) for name in (*PARTS, *SCORES)}}


SCORES = ("hlr", "ior", "lrs", "ars")


def ranking_of(accuracies: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Ranking]:
    """Rankings by network. accuracies: in percent, by name of the part and then by network, one a run."""

    found = {}
    for network in accuracies["own"]:
        shares = {name: tuple(x / 100 for x in accuracies[name][network]) for name in PARTS}
        found[network] = Ranking(**shares)  # pyright: ignore[reportArgumentType]
    return found


def rank(
    distilled: DistilledSet,
    train: ImageSet,
    test: ImageSet,
    protocol: Protocol,
    *,
    own: Labels,
    random: Labels,
    **options: Any,
) -> dict[str, Ranking]:
    """Train all networks that a ranking needs, and rank.

    own, random: see `parts`. options: as `evaluate_distilled` takes them. An evaluation that two parts share is done
    once: with hard labels, `hard` is `own`.

    Raises: DistilError as `evaluate_distilled` and `evaluate_real` do.
    """
    done: dict[tuple[Any, ...], Mapping[str, Sequence[float]]] = {}
    needed = parts(protocol, own, random)
    for part in needed.values():
        if part.key() in done:
            continue
        if part.of == "set":
            scores = evaluate_distilled(distilled, test, part.protocol, labels=part.labels, **options)
        else:
            count = distilled.images_per_class if part.of == "random" else None
            scores = evaluate_real(train, test, part.protocol, images_per_class=count, labels=part.labels, **options)
        done[part.key()] = scores.accuracies
    return ranking_of({name: done[part.key()] for name, part in needed.items()})


ROWS = (
    ("real_hard", "whole training set, hard labels (%)"),
    ("hard", "this set, hard labels (%)"),
    ("hlr", "HLR, hard label recovery: what is missing (points; less is better)"),
    ("own", "this set, its own labels (%)"),
    ("random", "random real images, the same labels (%)"),
    ("ior", "IOR, improvement over random (points)"),
    ("own_plain", "this set, its own labels, no augmentation (%)"),
    ("random_plain", "random real images, the same, no augmentation (%)"),
    ("lrs", "LRS, label robust score (0 to 100)"),
    ("ars", "ARS, augmentation robust score (0 to 100)"),
)


def ranking_table(rankings: Mapping[str, Ranking]) -> Table:
    """A table for the terminal: accuracies and scores as rows, networks as columns; mean and standard deviation."""
    table = Table(caption="DD-Ranking. LRS and ARS are 26.9 at no gain and no loss.")
    for column in ("", *rankings):
        table.add_column(escape(column), justify="right" if column else "left")
    for name, words in ROWS:
        cells = []
        for ranking in rankings.values():
            told = _told([100 * x for x in getattr(ranking, name)])
            cells.append(f"{told['mean']:.1f}" + (f" ± {told['std']:.1f}" if len(told["runs"]) > 1 else " (1 run)"))
        table.add_row(words, *cells, end_section=name in ("hlr", "ior", "random_plain"))
    return table


def _minus(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    return tuple(a - b for a, b in zip(one, other, strict=True))


def _told(values: Sequence[float]) -> dict[str, Any]:
    return {"runs": list(values), "mean": fmean(values), "std": stdev(values) if len(values) > 1 else 0.0}
