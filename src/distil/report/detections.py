"""Pictures of detectors: what they find, the prototypes they share, the objects on which they disagree, their runs.

Drawn by matplotlib rather than by torchvision.utils, which writes labels in the pixels of the image: those of scenes,
128 a side, would not hold them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from distil.detector.gkd.prototypes import PrototypeSet
from distil.report.pictures import COLORS, FRAME, INK, QUIET
from distil.runs import number_in

CROP = 48
"""Side of a crop in a gallery, in pixels of the picture before it is scaled."""
ROW_INCHES = 2.1


def draw_detections(
    images: Sequence[UInt8[Tensor, "3 _h _w"]],
    columns: Mapping[str, Sequence[Mapping[str, Tensor]]],
    classes: Sequence[str],
    *,
    least_score: float = 0.5,
) -> Figure:
    """A row for each image, a column for each detector: boxes in the color of their class, with name and score.

    columns: for each title, one {"boxes", "labels"} an image, in pixels of that image, with "scores" if they are
    predictions: those below `least_score` are left out. Put the truth first.
    """
    figure, axes = _grid(len(images), len(columns), ROW_INCHES * 1.25, ROW_INCHES)
    for column, (title, found) in enumerate(columns.items()):
        for row, (image, boxes) in enumerate(zip(images, found, strict=True)):
            _show(axes[row][column], image)
            if row == 0:
                axes[row][column].set_title(title, fontsize=9, color=INK)
            _boxes(axes[row][column], boxes, classes, least_score)
    return figure


def draw_prototypes(prototypes: PrototypeSet, image: Callable[[int], UInt8[Tensor, "3 _h _w"]], level: int) -> Figure:
    """The objects that stand for their class on one level, a row a class, in the order in which they were chosen.

    image: gives the image of an index into the data that the prototypes came from. level: index into the strides.
    """
    chosen = [prototypes.of(level, label) for label in range(1, len(prototypes.classes) + 1)]
    most = max(1, *(len(some) for some in chosen))
    figure, axes = _grid(len(chosen), most, 0.72, 0.72, left=0.9)
    for row, (name, some) in enumerate(zip(prototypes.classes, chosen, strict=True)):
        axes[row][0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, color=INK)
        for column in range(most):
            if column < len(some):
                crop, _ = _crop(image(int(some.images[column])), some.boxes[column].tolist(), margin=0.0)
                _show(axes[row][column], crop)
            else:
                _empty(axes[row][column])
    return figure


def draw_reliabilities(
    crops: Sequence[tuple[UInt8[Tensor, "3 _h _w"], Sequence[float], float, str]], *, columns: int = 8
) -> Figure:
    """Objects with their surroundings, their box, and under it how reliable they are.

    crops: (image, box in pixels of that image, reliability in [0, 1], class name), in the order to show.
    """
    rows = max(1, -(-len(crops) // columns))
    figure, axes = _grid(rows, columns, 1.05, 1.25)
    for place in range(rows * columns):
        panel = axes[place // columns][place % columns]
        if place >= len(crops):
            _empty(panel)
            continue
        image, box, value, name = crops[place]
        crop, inside = _crop(image, box, margin=0.5)
        _show(panel, crop)
        x1, y1, x2, y2 = inside
        panel.add_patch(
            Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor="#ff7a00", linewidth=1.2)
        )
        panel.set_xlabel(f"{name}  {value:.2f}", fontsize=7, color=INK, labelpad=2)
    return figure


def draw_training(logs: Mapping[str, Iterable[Mapping[str, Any]]]) -> Figure:
    """AP on held-out images by epoch, and the losses of the last run by name, against the step.

    logs: events by the name of the run, as train_detector tells them ("step" with losses, "validation" with ap).
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    losses: dict[str, list[tuple[float, float]]] = {}
    for (name, log), color in zip(logs.items(), COLORS * 9, strict=False):
        events = list(log)
        points = _points(events, "validation", "ap")
        if points:
            left.plot(*zip(*points, strict=True), color=color, label=name, marker=".", linewidth=1.4)
        steps = [event for event in events if isinstance(event.get("losses"), dict)]
        if found := {name: _points(steps, "step", name, "losses") for event in steps for name in event["losses"]}:
            losses = {name: points for name, points in found.items() if points}
    for (name, points), color in zip(losses.items(), COLORS * 9, strict=False):
        right.plot(*zip(*points, strict=True), color=color, label=name, linewidth=1.0)
    for axes, title in ((left, "AP on held-out images (%)"), (right, "losses of the last run")):
        axes.set_title(title, fontsize=9, color=INK, loc="left")
        axes.set_xlabel("step", fontsize=8, color=QUIET)
        axes.tick_params(labelsize=7, colors=QUIET)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False)
    if losses:
        right.set_yscale("log")
    return figure


def _points(events: Iterable[Mapping[str, Any]], event: str, field: str, inside: str = "") -> list[tuple[float, float]]:
    """(step, value) of the events of one kind, of those that have both; inside: the field that holds the field."""
    found = []
    for line in events:
        value = number_in(line[inside] if inside else line, field)
        step = number_in(line, "step")
        if line.get("event") == event and step is not None and value is not None:
            found.append((step, value))
    return found


def _grid(rows: int, columns: int, width: float, height: float, left: float = 0.0) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(max(2.0, columns * width + left), rows * height + 0.25), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes.tolist()


def _show(axes: Axes, image: Tensor | UInt8[np.ndarray, "h w 3"]) -> None:
    pixels = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
    axes.imshow(pixels, interpolation="nearest")
    _bare(axes)


def _empty(axes: Axes) -> None:
    _bare(axes)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(FRAME)


def _boxes(axes: Axes, found: Mapping[str, Tensor], classes: Sequence[str], least_score: float) -> None:
    scores = found.get("scores")
    for place, (box, label) in enumerate(zip(found["boxes"].tolist(), found["labels"].tolist(), strict=True)):
        if scores is not None and float(scores[place]) < least_score:
            continue
        x1, y1, x2, y2 = box
        color = COLORS[(label - 1) % len(COLORS)]
        axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1.3))
        text = str(classes[label - 1]) + ("" if scores is None else f" {float(scores[place]):.2f}")
        axes.text(
            x1,
            y1 - 1,
            text,
            fontsize=5.5,
            color="white",
            va="bottom",
            clip_on=True,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 0.6},
        )


def _crop(
    image: UInt8[Tensor, "3 h w"], box: Sequence[float], *, margin: float
) -> tuple[UInt8[Tensor, "3 a b"], Float[np.ndarray, "4"]]:
    """The square around a box, widened by `margin` of its side and moved into the image; the box within it."""
    x1, y1, x2, y2 = box
    height, width = image.shape[1:]
    side = max(x2 - x1, y2 - y1, 4.0) * (1 + margin)
    side = int(min(round(side), height, width))
    left = int(min(max(0, round((x1 + x2 - side) / 2)), width - side))
    top = int(min(max(0, round((y1 + y2 - side) / 2)), height - side))
    crop = image[:, top : top + side, left : left + side]
    return crop, np.array([x1 - left, y1 - top, x2 - left, y2 - top])
