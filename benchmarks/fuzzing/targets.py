"""Every kind of file that distil reads, by the name that --targets takes."""

from collections.abc import Sequence

from .boxes import BOXES
from .detectors import DETECTORS
from .images import IMAGES
from .sets import SETS
from .target import Target

TARGETS: dict[str, Target] = {**SETS, **DETECTORS, **IMAGES, **BOXES}


def shares(names: Sequence[str], cases: int) -> dict[str, int]:
    """How many cases each target has, so that all are about `cases`."""
    whole = sum(TARGETS[name].share for name in names)
    counts = {name: max(1, round(cases * TARGETS[name].share / whole)) for name in names}
    largest = max(counts, key=lambda name: counts[name])
    return counts | {largest: max(1, counts[largest] + cases - sum(counts.values()))}
