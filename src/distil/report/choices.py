"""A picture of the cosines that views were made of, choice by choice over a run."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from distil.runs import number_in

INK, PAPER, ENTERED, LEFT = (0.12, 0.14, 0.19), (0.95, 0.95, 0.95), (1.0, 0.48, 0.0), (0.62, 0.78, 1.0)
GAP = 1
MOST = 6


def draw_choices(events: Iterable[Mapping[str, Any]], shape: tuple[int, int, int]) -> Figure | None:
    """A panel for each choice of cosines of a run: kept, entered since the panel before, and left since then.

    events: of the run's log, of which those named "cosines" count (docs/runs.md). shape: (c, h, w) of a view; color
    planes stand side by side (brightness, red against blue, green against both), lowest frequency at their top left.
    Of more than six choices the first, the last and four between are shown.
    Returns None when the cosines were chosen once or never.
    """
    choices = [choice for line in events if (choice := _choice(line, math.prod(shape))) is not None]
    if len(choices) < 2:
        return None
    shown = [choices[round(i)] for i in np.linspace(0, len(choices) - 1, min(MOST, len(choices)))]
    channels, height, width = shape
    columns, rows = min(3, len(shown)), -(-len(shown) // 3)
    wide = 1.9 * channels * (width + GAP) / height
    figure = Figure(figsize=(min(14, wide * columns), 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    before: set[int] | None = None
    for axes, (step, kept) in zip(panels, shown, strict=False):
        axes.imshow(_planes(kept, before, shape), interpolation="nearest")
        news = "" if before is None else f", {len(kept - before)} entered"
        axes.set_title(f"from step {step}{news}" if step else "to begin with", fontsize=9)
        before = kept
    for axes in panels:
        axes.axis("off")
    return figure


def _choice(line: Mapping[str, Any], coefficients: int) -> tuple[int, set[int]] | None:
    """(step, positions) of an event that is a choice; a damaged one is none."""
    step, kept = number_in(line, "step"), line.get("kept")
    if line.get("event") != "cosines" or step is None or not isinstance(kept, list):
        return None
    if not all(type(position) is int and 0 <= position < coefficients for position in kept):
        return None
    return int(step), set(kept)


def _planes(
    kept: set[int], before: set[int] | None, shape: tuple[int, int, int]
) -> Float[np.ndarray, "rows columns 3"]:
    channels, height, width = shape
    cells = np.tile(np.array(PAPER), (channels * height * width, 1))
    if before is not None:
        cells[sorted(before - kept)] = LEFT
    cells[sorted(kept)] = INK
    if before is not None:
        cells[sorted(kept - before)] = ENTERED
    planes = cells.reshape(channels, height, width, 3)
    gap = np.ones((height, GAP, 3))
    return np.concatenate([part for plane in planes for part in (plane, gap)][:-1], axis=1)
