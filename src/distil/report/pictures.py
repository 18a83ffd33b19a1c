"""Pictures of distilled sets, of runs and of scores, as matplotlib figures that no window system is needed for."""

import math
import warnings
from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from distil.distilled_set.record import DistilledSet
from distil.files import write_atomic
from distil.parameterizations.base import Pictured
from distil.runs import number_in

DPI = 144
INK, QUIET, FRAME = "#1f2430", "#6b7280", "#d5d9e0"
COLORS = ("#2563eb", "#e4572e", "#0f9d78", "#8b5cf6", "#d97706", "#0891b2", "#be185d", "#4d7c0f")
MINED = ("#ff7a00", "#00b8d9", "#ff2d87", "#7cc800", "#a855f7", "#ffd000")
GAP = 10
"""Pixels between two tiles."""


def draw_set(
    distilled: DistilledSet, *, classes_shown: int = 10, per_class: int | None = None, images_shown: int = 12
) -> Figure:
    """A row for each class: items with their regions, their utilization, and the decoded images that networks train on.

    Regions of a grid are thin and pale; mined ones have a strong color each, which frames the decoded image as well.
    Pixels are enlarged by a whole number, at least 3 for sides up to 32.
    Where items are no images: the first decoded images of each class; for DCT coefficients also which of each color
    plane they are made of, lowest frequency at the top left.
    classes_shown: at most so many rows. per_class: items in a row (default: up to 10, fewer beside decoded images).
    images_shown: at most so many decoded images in a row, those of its first items.
    """
    rows = [
        (label, (distilled.class_of == label).nonzero().flatten().tolist()) for label in range(len(distilled.classes))
    ]
    rows = [(label, members) for label, members in rows if members]
    present = len(rows)
    rows = rows[: max(1, classes_shown)]
    most = max(len(members) for _, members in rows)
    seen = [index for _, members in rows for index in members[: max(10, per_class or 0)]]
    items = {index: distilled.parameterization.pictured(distilled.params, index) for index in seen}
    first = items[rows[0][1][0]]
    if first.item is None:
        maps = [items[members[0]] for _, members in rows]
        return _draw_maps(distilled, maps, rows, present, most, images_shown)
    images, decodes = distilled.images_per_item, not all(_is_whole(item, distilled.size) for item in items.values())
    fitting = 10 if not decodes else 1 if images > images_shown // 2 else 3
    columns = min(most, fitting if per_class is None else max(1, per_class))
    if decodes and first.utilization is not None and per_class is None:
        columns = min(columns, 2)

    shown = [members[:columns] for _, members in rows]
    names = [_short(distilled.classes[label]) for label, _ in rows]
    title = _title(distilled, len(rows), present, columns, most)
    if not decodes and columns == 1 and first.utilization is None:
        return _draw_gallery([_image(items[members[0]]) for members in shown], names, title)

    tiles = [[_image(items[index]) for index in members] for members in shown]
    longest = 144 if decodes and columns == 1 else 96
    zoom = _zoom(*tiles[0][0].shape[1:], longest=longest)
    panels = [_Panel("Items" if decodes else "Images", tiles, zoom)]
    if first.utilization is not None:
        panels.append(_Panel("Utilization", tiles, zoom))
    if decodes:
        wanted = min(images * columns, max(1, images_shown))
        count = math.ceil(wanted / images)
        decoded = [list(distilled.decoded_of(members[:count])[:wanted].cpu()) for members in shown]
        of = "" if columns == 1 else " of the first" if count == 1 else f" of the first {count}"
        heading = f"Decoded images{of}" if wanted >= images else f"First {wanted} of {images} decoded images"
        panels.append(_Panel(heading, decoded, _zoom(*distilled.size, longest=longest if wanted <= 6 else 96)))

    figure, axes = _lay_out(panels, title, names)
    pictured = [[items[index] for index in members] for members in shown]
    if decodes:
        _draw_regions(axes[0], panels[0], pictured)
        _frame_mined(axes[-1], panels[-1], images, first.mined)
    if first.utilization is not None:
        _draw_utilization(figure, axes[1], panels[1], pictured)
    return figure


def _is_whole(pictured: Pictured, size: tuple[int, int]) -> bool:
    """Whether every decoded image is the item itself, so that showing both would show the same twice."""
    height, width = _image(pictured).shape[1:]
    whole = [tuple(box) == (0, 0, width, height) for box in pictured.boxes]
    return bool(whole) and all(whole) and size == (height, width)


def _image(pictured: Pictured) -> Float[Tensor, "c h w"]:
    assert pictured.item is not None
    return pictured.item


def _draw_maps(
    distilled: DistilledSet,
    firsts: list[Pictured],
    rows: list[tuple[int, list[int]]],
    present: int,
    most: int,
    images_shown: int,
) -> Figure:
    """Decoded images of the first item of each class, and its maps, once where all of them have the same."""
    wanted = min(distilled.images_per_item, max(1, images_shown))
    tiles = [list(distilled.decoded_of(members[:1])[:wanted].cpu()) for _, members in rows]
    zoom = _zoom(*distilled.size, longest=96)
    heading = (
        f"First {wanted} of {distilled.images_per_item} images" if wanted < distilled.images_per_item else "Images"
    )
    names = [_short(distilled.classes[label]) for label, _ in rows]
    title = _title(distilled, len(rows), present, 1, most)
    panels = [_Panel(heading, tiles, zoom)]
    if firsts[0].maps:
        maps = [list(one.maps) for one in firsts]
        if all(torch.equal(mine, shared) for each in maps for mine, shared in zip(each, maps[0], strict=True)):
            maps = [maps[0], *([] for _ in maps[1:])]
        panels.append(_Panel(firsts[0].maps_title, maps, zoom))
    return _lay_out(panels, title, names)[0]


def draw_curves(logs: Mapping[str, Iterable[Mapping[str, Any]]]) -> Figure:
    """Matching loss against step, and accuracy on held-out training images where it was measured; a color per run.

    logs: for each name its events: {"event": "step", "step": 12, "loss": 3.4} and {"event": "validation", "step": 100,
    "accuracy": 61.2}, in percent; other events, and values that are not finite, are passed over. A loss is drawn
    pale, and its running mean over a fortieth of the run strong; each run is divided by its first mean, so that
    methods whose losses have different units share one axis.
    """
    lines = {name: list(events) for name, events in logs.items()}
    losses = {name: _series(events, "step", "loss") for name, events in lines.items()}
    scores = {name: _series(events, "validation", "accuracy") for name, events in lines.items()}
    panels = [kind for kind, series in (("loss", losses), ("accuracy", scores)) if any(map(len, series.values()))]
    figure = Figure(figsize=(4.9 * max(1, len(panels)), 3.3), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if not panels:
        figure.text(0.5, 0.5, "Nothing was logged", ha="center", va="center", color=QUIET, fontsize=10)
    colors = dict(zip(logs, cycle(COLORS), strict=False))
    for index, kind in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _plain(axes)
        axes.set_xlabel("step", fontsize=8, color=QUIET)
        if kind == "loss":
            axes.set_title("Matching loss, relative to its start", loc="left", fontsize=10, color=INK)
            for name, series in losses.items():
                _draw_loss(axes, series, _label(name), colors[name])
        else:
            axes.set_title("Accuracy on held-out training images, %", loc="left", fontsize=10, color=INK)
            for name, series in scores.items():
                if len(series):
                    axes.plot(*series.T, "o-", color=colors[name], label=_label(name), linewidth=1.6, markersize=4)
        legend = axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, in one piece or not at all.

    Raises: DistilError that names the path if it cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Gg]lyph", category=UserWarning)
            figure.savefig(file, format="png", dpi=figure.dpi, metadata={"Software": "distil"})

    write_atomic(path, write)


def bytes_in_words(count: int | float) -> str:
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
        height, width = rows[0][0].shape[-2:]
        self.tall, self.wide = round(height * zoom), round(width * zoom)
        self.width = max(len(row) for row in rows) * (self.wide + GAP) - GAP
        self.pitch, self.indent = self.tall + GAP, 0
        """From the top of one row to that of the next, and of a tile within its row: set by the figure."""

    def top(self, row: int) -> int:
        return row * self.pitch + self.indent

    def left(self, column: int) -> int:
        return column * (self.wide + GAP)


def _zoom(height: int, width: int, *, longest: int = 96) -> float:
    """Screen pixels for an image's pixel: a whole number that brings its longer side near `longest`."""
    side = max(height, width)
    return float(max(1, round(longest / side))) if side <= 160 else 160 / side


def _title(distilled: DistilledSet, shown: int, present: int, columns: int, most: int) -> tuple[str, str]:
    count, each = len(distilled.params), distilled.images_per_item
    method = distilled.method.upper() if len(distilled.method) <= 4 else distilled.method.capitalize()
    heading = f"{method} on {distilled.source}"
    parts = [
        f"{count} images ({distilled.images_per_class} a class), {bytes_in_words(distilled.bytes['total'])}",
        f"{each} decoded image{'s' * (each > 1)} each",
    ]
    if shown < present:
        parts.append(f"first {shown} of {present} classes")
    if columns < most:
        parts.append(f"first {columns} of {most} images a class" if columns > 1 else f"first of {most} images a class")
    return heading, " · ".join(parts)


def _lay_out(
    panels: list[_Panel], title: tuple[str, str], names: list[str], *, below: int = GAP
) -> tuple[Figure, list[Axes]]:
    """Place the panels side by side so that every stored pixel covers a whole number of screen pixels.

    names: of the rows, at the left of the first panel. below: screen pixels between two rows.
    """
    point = DPI / 72
    tall = max(panel.tall for panel in panels)
    pitch = tall + below
    for panel in panels:
        panel.pitch, panel.indent = pitch, (tall - panel.tall) // 2
    rows = len(panels[0].rows)
    left = round(24 + 6.2 * point * max(map(len, names))) + 14 if names else 24
    head, space = round(52 * point), 44
    foot = 64 if any(panel.title == "Utilization" for panel in panels) else 26
    height = rows * pitch - GAP
    widths = [max(panel.width, round(4.9 * point * len(panel.title))) for panel in panels]
    total_w = max(left + sum(widths) + space * (len(panels) - 1) + 30, round(5.4 * point * len(title[1])) + 60)
    total_h = head + height + foot
    figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for text, y, size, color in ((title[0], 15, 13, INK), (title[1], 29, 8.5, QUIET)):
        figure.text(24 / total_w, 1 - y * point / total_h, _label(text), fontsize=size, color=color, parse_math=False)

    placed, x = [], left
    for panel, width in zip(panels, widths, strict=True):
        axes = figure.add_axes((x / total_w, foot / total_h, panel.width / total_w, height / total_h))
        axes.axis("off")
        axes.text(0, -7, panel.title, fontsize=8.5, color=QUIET, va="bottom")
        axes.set(xlim=(0, panel.width), ylim=(height, 0), autoscale_on=False)
        mosaic, extent = _mosaic(panel, height), (0, panel.width, height, 0)
        axes.imshow(mosaic, extent=extent, aspect="auto", interpolation="nearest", zorder=1)
        placed.append(axes)
        x += width + space
    for row, name in enumerate(names):
        middle = row * pitch + tall / 2
        placed[0].text(-14, middle, name, fontsize=9.5, color=INK, ha="right", va="center", parse_math=False)
    return figure, placed


def _draw_gallery(tiles: list[Tensor], names: list[str], title: tuple[str, str]) -> Figure:
    """One image of each class, five in a row, its name below."""
    rows = [tiles[start : start + 5] for start in range(0, len(tiles), 5)]
    panel = _Panel("", rows, _zoom(*tiles[0].shape[1:], longest=144))
    figure, (axes,) = _lay_out([panel], title, [], below=44)
    for index, name in enumerate(names):
        row, column = divmod(index, 5)
        place = (panel.left(column) + panel.wide / 2, panel.top(row) + panel.tall + 6)
        axes.text(*place, _short(name, 13), fontsize=8.5, color=INK, ha="center", va="top", parse_math=False)
    return figure


def _mosaic(panel: _Panel, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """The panel's tiles on white, at screen size: enlarged by repeating pixels, or made smaller by averaging them."""
    picture = np.full((height, panel.width, 3), 255, np.uint8)
    for row, tiles in enumerate(panel.rows):
        for column, tile in enumerate(tiles):
            if panel.zoom < 1:
                tile = torch.nn.functional.interpolate(tile[None], size=(panel.tall, panel.wide), mode="area")[0]
            pixels = _as_pixels(tile)
            if panel.zoom > 1:
                pixels = pixels.repeat(int(panel.zoom), axis=0).repeat(int(panel.zoom), axis=1)
            top, left = panel.top(row), panel.left(column)
            picture[top : top + panel.tall, left : left + panel.wide] = pixels
    return picture


def _as_pixels(image: Float[Tensor, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    colors = image if image.shape[0] == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    return (colors.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _draw_regions(axes: Axes, panel: _Panel, shown: list[list[Pictured]]) -> None:
    pale, strong, colors = [], [], []
    for row, members in enumerate(shown):
        for column, pictured in enumerate(members):
            height, width = _image(pictured).shape[1:]
            grid = len(pictured.boxes) - pictured.mined
            top, left = panel.top(row), panel.left(column)
            for place, (x1, y1, x2, y2) in enumerate(pictured.boxes):
                inset = 0 if place < grid else 1.5
                x1, y1, x2, y2 = (panel.zoom * side for side in (x1, y1, min(x2, width), min(y2, height)))
                box = Rectangle((left + x1 + inset, top + y1 + inset), x2 - x1 - 2 * inset, y2 - y1 - 2 * inset)
                if place < grid:
                    pale.append(box)
                else:
                    strong.append(box)
                    colors.append(MINED[(place - grid) % len(MINED)])
    for boxes, color, line in ((pale, "#ffffff", 1.5), (pale, "#7aa2ff", 0.7), (strong, "#ffffff", 2.6)):
        axes.add_collection(PatchCollection(boxes, facecolor="none", edgecolor=color, linewidth=line, zorder=2))
    axes.add_collection(PatchCollection(strong, facecolor="none", edgecolor=colors or "none", linewidth=1.5, zorder=3))


def _frame_mined(axes: Axes, panel: _Panel, views: int, mined: int) -> None:
    boxes, colors = [], []
    for row, tiles in enumerate(panel.rows):
        for column in range(len(tiles)):
            place = column % views - (views - mined)
            if place >= 0:
                corner = (panel.left(column) - 2, panel.top(row) - 2)
                boxes.append(Rectangle(corner, panel.wide + 4, panel.tall + 4))
                colors.append(MINED[place % len(MINED)])
    axes.add_collection(
        PatchCollection(boxes, facecolor="none", edgecolor=colors or "none", linewidth=1.8, zorder=3, clip_on=False)
    )


def _draw_utilization(figure: Figure, axes: Axes, panel: _Panel, shown: list[list[Pictured]]) -> None:
    for row, members in enumerate(shown):
        for column, pictured in enumerate(members):
            assert pictured.utilization is not None
            top, left = panel.top(row), panel.left(column)
            axes.imshow(
                pictured.utilization.numpy(),
                cmap="magma",
                norm=Normalize(0, 1),
                alpha=0.72,
                extent=(left, left + panel.wide, top + panel.tall, top),
                aspect="auto",
                interpolation="bilinear",
                zorder=2,
            )
    place = axes.get_position()
    pixel = 1 / (figure.get_figheight() * DPI)
    bar = figure.add_axes((place.x0, place.y0 - 22 * pixel, place.width, 9 * pixel))
    colorbar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), "magma"), cax=bar, orientation="horizontal", ticks=[0, 1]
    )
    colorbar.ax.set_xticklabels(["idle", "used"], fontsize=7, color=QUIET)
    colorbar.ax.tick_params(length=0, pad=3)
    for label, side in zip(colorbar.ax.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    colorbar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _series(events: list[Mapping[str, Any]], event: str, field: str) -> Float[np.ndarray, "points 2"]:
    """(step, value) of the events of one kind whose value is a finite number."""
    points = [(number_in(line, "step"), number_in(line, field)) for line in events if line.get("event") == event]
    return np.array([point for point in points if None not in point], dtype=float).reshape(-1, 2)


def _draw_loss(axes: Axes, series: Float[np.ndarray, "points 2"], label: str, color: str) -> None:
    if not len(series):
        return
    steps, values = series.T
    window = max(1, len(values) // 40)
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    start = mean[0] or 1.0
    axes.plot(steps, values / start, color=color, alpha=0.22, linewidth=0.8)
    middle = steps[window // 2 :][: len(mean)]
    axes.plot(middle, mean / start, color=color, linewidth=1.6, label=label)


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FRAME)
    axes.grid(axis="y", color="#eceef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=8, length=0)


def _label(name: str) -> str:
    """A name as matplotlib can show it: one line of valid text, not hidden from a legend by a leading underscore."""
    plain = " ".join(str(name).encode(errors="replace").decode().split())
    return f"\u200b{plain}" if plain.startswith("_") else plain


def _short(name: str, length: int = 18) -> str:
    plain = _label(name)
    return plain if len(plain) <= length else plain[: length - 1] + "…"
