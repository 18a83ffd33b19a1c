"""evaluate: the score of a distilled set, in one call."""

from collections.abc import Sequence
from pathlib import Path

import torch

from distil.data.catalog import CUSTOM
from distil.data.images.image_set import ImageSet, Source
from distil.data.images.opener import open_source
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.evaluation.evaluator import Finished, Scores, evaluate_distilled
from distil.evaluation.labels import Labels
from distil.evaluation.protocols import Protocol, protocol_for
from distil.runs import Events


def evaluate(
    distilled: DistilledSet | str | Path,
    test: ImageSet | Source | str | Path,
    protocol: Protocol | str = "idc",
    *,
    labels: Labels | None = None,
    classes: Sequence[str] | None = None,
    networks: Sequence[str] = ("convnet3",),
    width: int | None = None,
    runs: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    at_once: int | None = None,
    events: Events | None = None,
    finished: Finished | None = None,
) -> Scores:
    """Train fresh networks on a distilled set and report their accuracy on test images, after the last epoch.

    distilled: a set, or the path of its file. test: the test images; or a Source, or what `open_source` opens, whose
    test images are taken.
    classes: test on the images of these alone.
    protocol: as it is; or a name of PROTOCOLS, which becomes what `protocol_for` makes of it for the test images. An
    ImageSet does not say which data set it is from: under a name it counts as custom, so that MNIST, SVHN and digits
    need their Source, their word, or a Protocol of their own.
    The rest as in `evaluate_distilled`, which random and whole sets of real images (`evaluate_real`) are scored like.

    Raises: DistilError as these do, and when a source has no test images.
    """
    made = distilled if isinstance(distilled, DistilledSet) else DistilledSet.load(distilled)
    key = CUSTOM
    if not isinstance(test, ImageSet):
        source = test if isinstance(test, Source) else open_source(test)
        if source.test is None:
            raise DistilError(
                f"{source.name} has no test images to evaluate on: give a source that has a test split.", field="test"
            )
        test, key = source.test, source.key
    test = test if classes is None else test.only(classes)
    rules = protocol_for(protocol, key) if isinstance(protocol, str) else protocol
    return evaluate_distilled(
        made,
        test,
        rules,
        labels=labels,
        networks=networks,
        width=width,
        runs=runs,
        seed=seed,
        device=device,
        at_once=at_once,
        events=events,
        finished=finished,
    )
