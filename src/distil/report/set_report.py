"""A report of distilled sets as one HTML file that needs nothing else: no network, no script, no second file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distil.distilled_set.record import DistilledSet
from distil.report.choices import draw_choices
from distil.report.page import Picture, picture, write_page
from distil.report.pictures import bytes_in_words, draw_curves, draw_set

GLOSSARY = {
    "item": "What is stored as one image per class. It may hold several smaller images, each enlarged before a network "
    "sees it, or the coefficients of several images.",
    "region": "A rectangle of an item. Cut out and enlarged, it becomes a decoded image.",
    "decoded image": "What a network trains on: one region of an item at the full image size, or one sum of cosines.",
    "DCT coefficients": "How much of each wave, of different length, an image is made of. Those that a trained network "
    "uses are kept.",
    "images per class": "How many items are stored for each class.",
    "bytes": "What is stored and needed for training: pixels, regions and labels, before any compression.",
    "labels": "What networks learned of each image: hard (its class), stored (class probabilities in the file, whose "
    "bytes are counted), or those of a teacher while they train. Scores of different labels are not comparable.",
    "accuracy": "Share of the test images that a fresh network, trained on the set alone, gets right at its last "
    "epoch. Mean and standard deviation over independent networks; nothing was selected on test images.",
    "random real images": "The same number of images drawn from the training set: what any method has to beat.",
    "IDC": "Information-intensive dataset condensation: many small images in each item, distilled by matching "
    "gradients (Kim et al. 2022).",
    "UDD": "Dataset distillation via mining underutilized regions: images made of what a trained network uses; the "
    "bytes of what it does not use go to further images.",
    "utilization": "How strongly a network responds to each part of an item: idle parts are stored but add little.",
}


def write_report(
    path: Path | str,
    *,
    title: str,
    summary: str,
    rows: Sequence[Mapping[str, Any]],
    sets: Mapping[str, DistilledSet],
    logs: Mapping[str, Iterable[Mapping[str, Any]]],
    settings: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> None:
    """Write one self-contained HTML file: accuracies in a table, pictures of the sets, curves, how to make it again.

    rows: {"name", "images_per_class", "bytes", "mean", "std", "labels"}, in the order to show; accuracies in percent;
        labels in words, as `labels_told` of `distil.evaluation.compare` gives them. The row
        that has "images_per_class": None is the whole training set, with which the others are compared; the last of the
        others is the headline (given by position: a headline chosen by score would be chosen on test images).
    sets: pictured by `draw_set`, under their names. logs: events by name, as `draw_curves` takes them.
    settings: resolved settings by method. notes: one sentence each. commands: command lines that make all this again.

    Raises: DistilError if the file cannot be written.
    """
    whole = next((row for row in rows if row.get("images_per_class", 0) is None), None)
    logs = {name: list(events) for name, events in logs.items()}
    curves = None
    if any(line.get("event") in ("step", "validation") for events in logs.values() for line in events):
        caption = (
            "Running mean of the matching loss, and accuracy of networks trained on the set so far, on training images."
        )
        curves = picture(draw_curves(logs), "Loss and accuracy against the step", caption)
    choices = []
    for name, made in sets.items():
        figure = draw_choices(logs.get(name, []), (len(made.mean), *made.size))
        caption = f"{name}: DCT coefficients kept, choice by choice. Orange: entered; blue: left; black: stayed."
        choices += [] if figure is None else [picture(figure, "Coefficients over the run", caption)]
    write_page(
        path,
        "sets.html",
        title=title,
        summary=summary.split("\n\n"),
        tiles=_tiles(rows, whole),
        rows=_rows(rows, whole),
        pictures=[_pictured(name, distilled) for name, distilled in sets.items()],
        curves=curves,
        choices=choices,
        notes=notes,
        commands=commands,
        settings=settings,
        glossary=GLOSSARY,
    )


def _tiles(rows: Sequence[Mapping[str, Any]], whole: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The headline row, the last before the whole set, in two to four numbers, each with its text."""
    small = [row for row in rows if row is not whole]
    if not small:
        return []
    headline = small[-1]
    tiles = [(_percent(headline), f"accuracy with {headline['name']}")]
    if headline.get("bytes") is not None:
        tiles.append((bytes_in_words(headline["bytes"]), "stored in all"))
    if whole is not None and whole["mean"] > 0:
        tiles.append((f"{100 * headline['mean'] / whole['mean']:.0f}%", "of the whole set's accuracy"))
        if headline.get("bytes") and whole.get("bytes"):
            tiles.append((f"{whole['bytes'] / headline['bytes']:,.0f} times", "smaller than the whole set"))
    return tiles


def _rows(rows: Sequence[Mapping[str, Any]], whole: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What the table shows of each row; bars and their spread in percent of the table's width."""
    top = max([1.0, *(row["mean"] + (row.get("std") or 0) for row in rows)])
    top = 100.0 if top > 50 else top
    shown = []
    for row in rows:
        mean, spread = float(row["mean"]), float(row.get("std") or 0)
        per_class = row.get("images_per_class")
        share = ""
        if whole is not None and row is not whole and whole["mean"] > 0:
            share = f"{100 * mean / whole['mean']:.0f}% as accurate"
            if row.get("bytes") and whole.get("bytes"):
                share += f", {100 * row['bytes'] / whole['bytes']:.2g}% of the bytes"
        low, high = max(0.0, mean - spread) / top * 100, min(top, mean + spread) / top * 100
        shown.append(
            {
                "name": row["name"],
                "whole": row is whole,
                "accuracy": _percent(row),
                "bar": mean / top * 100,
                "spread": (low, high - low) if spread else None,
                "count": "all" if row is whole else "" if per_class is None else per_class,
                "size": "" if row.get("bytes") is None else bytes_in_words(row["bytes"]),
                "labels": row.get("labels") or "",
                "share": share,
            }
        )
    return shown


def _percent(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.1f}%" if row.get("std") is None else f"{row['mean']:.1f} ± {row['std']:.1f}%"


def _pictured(name: str, distilled: DistilledSet) -> Picture:
    count, pictured = len(distilled.params), distilled.parameterization.pictured(distilled.params, 0)
    caption = [f"{name}: {count} items of {distilled.source}, each {distilled.parameterization.describe()}."]
    if mined := pictured.mined:
        caption.append(f"Strong colors mark the {mined} mined region{'s' * (mined > 1)} and the image of each.")
    if pictured.maps:
        caption.append("Coefficients that are kept are dark.")
    if pictured.utilization is not None:
        caption.append("Dark parts of the utilization map are idle.")
    return picture(draw_set(distilled), f"Distilled images of {name}", " ".join(caption))
