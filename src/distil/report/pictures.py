"""Pictures of distilled sets, of runs and of scores, as matplotlib figures that no window system is needed for."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from distil.dataset.artifact import DistilledSet
from distil.functional.regions import crop_resize
from distil.runs import write_atomic

DPI = 144
INK, QUIET, FRAME = "#1f2430", "#6b7280", "#d5d9e0"
COLOURS = ("#2563eb", "#e4572e", "#0f9d78", "#8b5cf6", "#d97706", "#0891b2", "#be185d", "#4d7c0f")
MINED = ("#ff7a00", "#00b8d9", "#ff2d87", "#7cc800", "#a855f7", "#ffd000")
GAP = 10
"""Pixels between two tiles."""


def draw_set(
    distilled: DistilledSet, *, classes_shown: int = 10, per_class: int | None = None, views_shown: int = 12
) -> Figure:
    """A row for each class: canvases with their regions, their utilisation, and the views that networks train on.

    Grid regions are thin and pale; regions beyond the first factor^2 (settings["factor"]) are mined: each has a strong
    colour that frames its view as well. Pixels are shown enlarged by a whole number, at least three times up to 32 pixels.
    classes_shown: at most so many rows. per_class: canvases in a row (default: up to 10, fewer beside views).
    views_shown: at most so many views in a row, those of its first canvases.
    """
    rows = [
        (label, (distilled.class_of == label).nonzero().flatten().tolist()) for label in range(len(distilled.classes))
    ]
    rows = [(label, members) for label, members in rows if members]
    present = len(rows)
    rows = rows[: max(1, classes_shown)]
    most = max(len(members) for _, members in rows)
    views, mined = distilled.regions.shape[1], _mined(distilled)
    decodes = not _is_whole(distilled)
    fitting = 10 if not decodes else 1 if views > views_shown // 2 else 3
    columns = min(most, fitting if per_class is None else max(1, per_class))
    if decodes and distilled.utilisation is not None and per_class is None:
        columns = min(columns, 2)

    canvases = distilled.canvases_float().detach().cpu()
    shown = [members[:columns] for _, members in rows]
    zoom = _zoom(*canvases.shape[2:])
    panels = [_Panel("Canvases and their regions" if decodes else "Images", _tiles(canvases, shown), zoom)]
    if distilled.utilisation is not None:
        panels.append(_Panel("Utilisation", _tiles(canvases, shown), zoom))
    if decodes:
        wanted = min(views * columns, max(1, views_shown))
        sources = [members[: math.ceil(wanted / views)] for members in shown]
        decoded = [_decode(distilled, members)[:wanted] for members in sources]
        of = "" if columns == 1 else " of the first" if wanted <= views else f" of the first {len(sources[0])}"
        title = f"Decoded views{of}" if wanted >= views else f"First {wanted} of {views} views"
        panels.append(_Panel(title, [list(row) for row in decoded], _zoom(*distilled.view_size)))

    names = [_short(distilled.classes[label]) for label, _ in rows]
    figure, axes = _lay_out(panels, names, _title(distilled, len(rows), present, columns, most))
    if decodes:
        _draw_regions(axes[0], panels[0], distilled, shown, mined)
        _frame_mined(axes[-1], panels[-1], len(rows), views, mined)
    if distilled.utilisation is not None:
        _draw_utilisation(figure, axes[1], panels[1], distilled.utilisation.detach().cpu(), shown)
    return figure


def draw_curves(logs: Mapping[str, Iterable[Mapping[str, Any]]]) -> Figure:
    """Matching loss against step, and accuracy on held-out training images where it was measured; a colour per run.

    logs: for each name its events: {"event": "step", "step": 12, "loss": 3.4} and {"event": "validation", "step": 100,
    "accuracy": 61.2}, in percent; other events, and losses that are not finite, are passed over. A loss is drawn pale, and
    its running mean over a fortieth of the run strong; each run is divided by its first mean, so that methods whose losses
    have different units share one axis.
    """
    losses = {name: _series(events, "step", "loss") for name, events in _listed(logs).items()}
    scores = {name: _series(events, "validation", "accuracy") for name, events in _listed(logs).items()}
    panels = [kind for kind, series in (("loss", losses), ("accuracy", scores)) if any(map(len, series.values()))]
    figure = Figure(figsize=(4.9 * max(1, len(panels)), 3.3), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if not panels:
        figure.text(0.5, 0.5, "Nothing was logged", ha="center", va="center", color=QUIET, fontsize=10)
    colours = dict(zip(logs, cycle(COLOURS), strict=False))
    for index, kind in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _plain(axes)
        axes.set_xlabel("step", fontsize=8, color=QUIET)
        if kind == "loss":
            axes.set_title("Matching loss, relative to its start", loc="left", fontsize=10, color=INK)
            for name, series in losses.items():
                _draw_loss(axes, series, _label(name), colours[name])
        else:
            axes.set_title("Accuracy on held-out training images, %", loc="left", fontsize=10, color=INK)
            for name, series in scores.items():
                if len(series):
                    axes.plot(*series.T, "o-", color=colours[name], label=_label(name), linewidth=1.6, markersize=4)
        legend = axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def draw_comparison(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy in percent as horizontal bars with a standard deviation, in the order given.

    rows: {"name", "mean", "std", "bytes"}; std and bytes may be None. A row whose "images_per_class" is None (given, and
    none) is the whole training set: it is drawn grey, and a dashed line carries its accuracy through the others.
    """
    figure = Figure(figsize=(7.2, 0.75 + 0.42 * max(1, len(rows))), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _plain(axes)
    axes.grid(False)
    places = np.arange(len(rows))
    means = [float(row["mean"]) for row in rows]
    spreads = [float(row.get("std") or 0) for row in rows]
    whole = [row.get("images_per_class", 0) is None for row in rows]
    colours = [FRAME if grey else colour for grey, colour in zip(whole, islice(cycle(COLOURS), len(rows)), strict=True)]
    axes.barh(places, means, height=0.62, color=colours, zorder=2)
    axes.errorbar(means, places, xerr=spreads, fmt="none", ecolor=INK, elinewidth=1.1, capsize=3, zorder=4)
    for mean, grey in zip(means, whole, strict=True):
        if grey:
            axes.axvline(mean, color=QUIET, linestyle=(0, (4, 3)), linewidth=1, zorder=3)
    for place, row, mean, spread in zip(places, rows, means, spreads, strict=True):
        text = f"{mean:.1f}" + ("" if row.get("std") is None else f" ± {spread:.1f}")
        if row.get("bytes") is not None:
            text += f"   {bytes_in_words(row['bytes'])}"
        axes.annotate(
            text, (mean + spread, place), (7, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK
        )
    axes.set_yticks(places, [_label(row["name"]) for row in rows], fontsize=9, color=INK)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.invert_yaxis()
    axes.set_xlim(0, max([1.0, *(mean + spread for mean, spread in zip(means, spreads, strict=True))]) * 1.32)
    axes.set_xlabel("accuracy, %", fontsize=8, color=QUIET)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, in one piece or not at all. Raises: DistilError that names the path if it cannot be written."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Gg]lyph", category=UserWarning)
            figure.savefig(file, format="png", dpi=figure.dpi, metadata={"Software": "distil"})

    write_atomic(path, write)


def bytes_in_words(count: float) -> str:
    """2100 as "2.1 kB", in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" or count >= 99.5 else f"{count:.1f} {unit}"


class _Panel:
    """One mosaic: rows of tiles [c, h, w] and where each tile lies, in screen pixels from the top left."""

    def __init__(self, title: str, rows: list[list[Tensor]], zoom: float):
        self.title, self.rows, self.zoom = title, rows, zoom
        self.columns = max(len(row) for row in rows)
        side_h, side_w = rows[0][0].shape[-2:]
        self.tall, self.wide = round(side_h * zoom), round(side_w * zoom)
        self.width = self.columns * (self.wide + GAP) - GAP

    def left(self, column: int) -> int:
        return column * (self.wide + GAP)


def _zoom(height: int, width: int) -> float:
    side = max(height, width)
    return max(1, round(96 / side)) if side <= 160 else 160 / side


def _tiles(images: Float[Tensor, "n c h w"], rows: list[list[int]]) -> list[list[Tensor]]:
    return [[images[index] for index in row] for row in rows]


def _decode(distilled: DistilledSet, members: list[int]) -> Float[Tensor, "views c h w"]:
    regions = distilled.regions.expand(len(distilled.canvases), -1, -1)[members]
    return crop_resize(distilled.canvases_float()[members], regions, distilled.view_size).detach().cpu()


def _is_whole(distilled: DistilledSet) -> bool:
    """Whether every view is its canvas, so that showing both would show the same twice."""
    height, width = distilled.canvases.shape[2:]
    whole = distilled.regions.new_tensor([0, 0, width, height])
    return bool((distilled.regions == whole).all()) and distilled.view_size == (height, width)


def _mined(distilled: DistilledSet) -> int:
    """Regions of each canvas beyond its grid."""
    factor = distilled.settings.get("factor")
    return max(0, distilled.regions.shape[1] - factor**2) if isinstance(factor, int) and factor >= 1 else 0


def _title(distilled: DistilledSet, shown: int, present: int, columns: int, most: int) -> tuple[str, str]:
    count, views = len(distilled.canvases), distilled.regions.shape[1]
    heading = f"{distilled.method} on {distilled.source}"
    parts = [
        f"{count} images ({distilled.images_per_class} a class), {bytes_in_words(distilled.bytes['total'])}",
        f"{views} view{'s' * (views > 1)} each",
    ]
    if shown < present:
        parts.append(f"first {shown} of {present} classes")
    if columns < most:
        parts.append(f"first {columns} of {most} images a class" if columns > 1 else f"first of {most} images a class")
    return heading, " · ".join(parts)


def _lay_out(panels: list[_Panel], names: list[str], title: tuple[str, str]) -> tuple[Figure, list[Axes]]:
    """Place the panels side by side so that every stored pixel covers a whole number of screen pixels."""
    point = DPI / 72
    left = round(24 + 6.2 * point * max(map(len, names)))
    head, space, foot = round(52 * point), 44, 64
    tall = max(panel.tall for panel in panels)
    height = len(names) * (tall + GAP) - GAP
    widths = [max(panel.width, round(5.6 * point * len(panel.title))) for panel in panels]
    total_w = max(left + sum(widths) + space * (len(panels) - 1) + 40, round(5.5 * point * len(title[1])) + 60)
    total_h = head + height + foot
    figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for text, y, size, colour in ((title[0], 15, 13, INK), (title[1], 29, 8.5, QUIET)):
        figure.text(24 / total_w, 1 - y * point / total_h, _label(text), fontsize=size, color=colour, parse_math=False)

    placed, x = [], left
    for panel, width in zip(panels, widths, strict=True):
        axes = figure.add_axes((x / total_w, foot / total_h, panel.width / total_w, height / total_h))
        axes.set_xlim(0, panel.width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        axes.text(0, -7, panel.title, fontsize=8.5, color=QUIET, va="bottom")
        axes.imshow(
            _mosaic(panel, tall, height),
            extent=(0, panel.width, height, 0),
            interpolation="nearest" if panel.zoom >= 1 else "antialiased",
            zorder=1,
        )
        placed.append(axes)
        x += width + space
    for row, name in enumerate(names):
        middle = row * (tall + GAP) + tall / 2
        placed[0].text(-14, middle, name, fontsize=9.5, color=INK, ha="right", va="center", parse_math=False)
    return figure, placed


def _mosaic(panel: _Panel, pitch: int, height: int) -> np.ndarray:
    """The panel's tiles on white, enlarged; a tile that the zoom would shrink is resized by area."""
    picture = np.full((height, panel.width, 3), 255, np.uint8)
    for row, tiles in enumerate(panel.rows):
        for column, tile in enumerate(tiles):
            colours = _as_rgb(tile)[None]
            if panel.zoom >= 1:
                size = {"size": (panel.tall, panel.wide), "mode": "nearest"}
            else:
                size = {"size": (panel.tall, panel.wide), "mode": "area"}
            enlarged = torch.nn.functional.interpolate(colours, **size)[0]
            top, left = row * (pitch + GAP), panel.left(column)
            picture[top : top + panel.tall, left : left + panel.wide] = (
                (enlarged.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            )
    return picture


def _as_rgb(image: Float[Tensor, "c h w"]) -> Float[Tensor, "3 h w"]:
    return image if image.shape[0] == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)


def _draw_regions(axes: Axes, panel: _Panel, distilled: DistilledSet, shown: list[list[int]], mined: int) -> None:
    height, width = distilled.canvases.shape[2:]
    regions = distilled.regions.expand(len(distilled.canvases), -1, -1).detach().cpu()
    grid = regions.shape[1] - mined
    pale, strong, colours = [], [], []
    for row, members in enumerate(shown):
        for column, index in enumerate(members):
            top, left = row * (panel.tall + GAP), panel.left(column)
            for place, (x1, y1, x2, y2) in enumerate(regions[index].tolist()):
                inset = 0 if place < grid else 1.5
                x1, y1, x2, y2 = (panel.zoom * side for side in (x1, y1, min(x2, width), min(y2, height)))
                box = Rectangle((left + x1 + inset, top + y1 + inset), x2 - x1 - 2 * inset, y2 - y1 - 2 * inset)
                if place < grid:
                    pale.append(box)
                else:
                    strong.append(box)
                    colours.append(MINED[(place - grid) % len(MINED)])
    for boxes, colour, line in ((pale, "#ffffff", 1.5), (pale, "#7aa2ff", 0.7), (strong, "#ffffff", 2.6)):
        axes.add_collection(PatchCollection(boxes, facecolor="none", edgecolor=colour, linewidth=line, zorder=2))
    axes.add_collection(PatchCollection(strong, facecolor="none", edgecolor=colours or "none", linewidth=1.5, zorder=3))


def _frame_mined(axes: Axes, panel: _Panel, rows: int, views: int, mined: int) -> None:
    boxes, colours = [], []
    for row in range(rows):
        for column in range(len(panel.rows[row])):
            place = column % views - (views - mined)
            if place >= 0:
                corner = (panel.left(column) - 2, row * (panel.tall + GAP) - 2)
                boxes.append(Rectangle(corner, panel.wide + 4, panel.tall + 4))
                colours.append(MINED[place % len(MINED)])
    axes.add_collection(
        PatchCollection(boxes, facecolor="none", edgecolor=colours or "none", linewidth=1.8, zorder=3, clip_on=False)
    )


def _draw_utilisation(
    figure: Figure, axes: Axes, panel: _Panel, maps: Float[Tensor, "n h w"], shown: list[list[int]]
) -> None:
    for row, members in enumerate(shown):
        for column, index in enumerate(members):
            top, left = row * (panel.tall + GAP), panel.left(column)
            drawn = axes.imshow(
                maps[index].numpy(),
                cmap="magma",
                norm=Normalize(0, 1),
                alpha=0.72,
                extent=(left, left + panel.wide, top + panel.tall, top),
                interpolation="bilinear",
                zorder=2,
            )
    axes.set_xlim(0, panel.width)
    axes.set_ylim(len(shown) * (panel.tall + GAP) - GAP, 0)
    place = axes.get_position()
    pixel = 1 / (figure.get_figheight() * DPI)
    bar = figure.add_axes((place.x0, place.y0 - 22 * pixel, place.width, 9 * pixel))
    colorbar = figure.colorbar(drawn, cax=bar, orientation="horizontal", ticks=[0, 1])
    colorbar.ax.set_xticklabels(["idle", "used"], fontsize=7, color=QUIET)
    colorbar.ax.tick_params(length=0, pad=3)
    labels = colorbar.ax.get_xticklabels()
    labels[0].set_ha("left")
    labels[1].set_ha("right")
    colorbar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _listed(logs: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, list[Mapping[str, Any]]]:
    return {name: list(events) for name, events in logs.items()}


def _series(events: list[Mapping[str, Any]], event: str, field: str) -> Float[np.ndarray, "points 2"]:
    """(step, value) of the events of one kind whose value is a finite number."""
    points = [
        (line["step"], line[field])
        for line in events
        if line.get("event") == event and isinstance(line.get(field), int | float) and "step" in line
    ]
    found = np.array(points, dtype=float).reshape(-1, 2)
    return found[np.isfinite(found).all(1)]


def _draw_loss(axes: Axes, series: Float[np.ndarray, "points 2"], label: str, colour: str) -> None:
    if not len(series):
        return
    steps, values = series.T
    window = max(1, len(values) // 40)
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    start = mean[0] or 1.0
    axes.plot(steps, values / start, color=colour, alpha=0.22, linewidth=0.8)
    middle = steps[window // 2 :][: len(mean)]
    axes.plot(middle, mean / start, color=colour, linewidth=1.6, label=label)


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FRAME)
    axes.grid(axis="y", color="#eceef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=8, length=0)


def _label(name: str) -> str:
    """A name as matplotlib should show it: one line, and not hidden from a legend by a leading underscore."""
    plain = " ".join(str(name).split())
    return f"\u200b{plain}" if plain.startswith("_") else plain


def _short(name: str, length: int = 18) -> str:
    plain = " ".join(name.split())
    return plain if len(plain) <= length else plain[: length - 1] + "…"
