"""A report of distilled sets as one HTML file that needs nothing else: no network, no script, no second file."""

import base64
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distil.distilled_set.record import DistilledSet
from distil.files import write_atomic
from distil.report.choices import draw_choices
from distil.report.pictures import bytes_in_words, draw_curves, draw_set

GLOSSARY = {
    "canvas": "A stored image. It may hold several smaller pictures, each enlarged before a network sees it.",
    "region": "A rectangle of a canvas. Cut out and enlarged, it becomes a view.",
    "view": "What a network trains on: one region of one canvas at the full image size, or one sum of cosines.",
    "cosines": "Waves of different length whose sum is an image. Those that a trained network uses are kept.",
    "images per class": "How many canvases are stored for each class.",
    "bytes": "What is stored and needed for training: pixels, regions and labels, before any compression.",
    "accuracy": "Share of the test images that a fresh network, trained on the set alone, gets right at its last "
    "epoch. Mean and standard deviation over independent networks; nothing was selected on test images.",
    "random real images": "The same number of images drawn from the training set: what any method has to beat.",
    "IDC": "Distilling many small views into each canvas by matching gradients (Kim et al. 2022).",
    "UDD": "Views made of the cosines that a trained network uses; what the idle ones would cost goes to more views.",
    "utilisation": "How strongly a network responds to each part of a canvas: idle parts are stored but add little.",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1b2030; --quiet: #5f6779; --line: #e3e6ec; --page: #f6f7f9; --card: #fff;
  --bar: #2563eb; --bar-whole: #a5adba; --track: #edf0f4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaf0; --quiet: #9aa3b5; --line: #2c3240; --page: #11141b;
  --card: #191d27; --bar: #6b9bff; --bar-whole: #5b6474; --track: #262c39; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 4.5vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: 0 0 .8rem;
  text-wrap: balance; }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 2.8rem 0 .8rem; }
h3 { font-size: 1rem; margin: 0 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; }
.lead { font-size: 1.12rem; color: var(--quiet); }
.small, figcaption, dd { color: var(--quiet); font-size: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.1rem 1.25rem;
  margin: 1rem 0; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.6rem 0 0; }
.tiles .card { margin: 0; }
.tiles b { display: block; font-size: clamp(1.3rem, 5vw, 1.7rem); white-space: nowrap;
  line-height: 1.2; letter-spacing: -.02em; font-weight: 650; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { padding: .55rem .8rem .55rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
thead th { font-size: .8rem; font-weight: 500; color: var(--quiet); }
tbody th { font-weight: 600; }
td.number, th.number { text-align: right; }
td.bars { width: 24%; min-width: 6rem; }
th:last-child, td:last-child { padding: .55rem 0 .55rem .8rem; white-space: normal; min-width: 9rem; }
tr.whole th, tr.whole td { color: var(--quiet); font-weight: 400; }
.track { position: relative; height: .7rem; border-radius: 4px; background: var(--track); }
.fill { height: 100%; border-radius: 4px; background: var(--bar); }
.whole .fill { background: var(--bar-whole); }
.spread { position: absolute; top: -.16rem; height: 1.02rem; border: 1.5px solid var(--ink); border-width: 0 1.5px; }
.spread::after { content: ""; position: absolute; left: 0; right: 0; top: 50%; border-top: 1.5px solid var(--ink); }
figure { margin: 1rem 0; padding: 1rem; background: #fff; border: 1px solid var(--line); border-radius: 14px; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: #5f6779; margin-top: .7rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem;
  overflow-x: auto; font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: .6rem 0; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem 1rem;
  margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
details pre { border: 0; padding: .4rem 0 0; margin: 0; background: none; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; max-width: 46rem; }
ul { padding-left: 1.2rem; max-width: 46rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media (max-width: 40rem) { main { padding-top: 1.8rem; } td.bars, th:last-child, td:last-child { display: none; }
  th { white-space: normal; } }
@media print { :root { color-scheme: light; --ink: #000; --quiet: #444; --page: #fff; --card: #fff; --line: #ccc;
  --bar: #2563eb; --bar-whole: #a5adba; --track: #edf0f4; }
  body { font-size: 10.5pt; } main { padding: 0; max-width: none; }
  figure, .card, tr { break-inside: avoid; } figure img { width: auto; max-height: 22cm; }
  h2 { break-after: avoid; } .card, figure { border-radius: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


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

    rows: {"name", "images_per_class", "bytes", "mean", "std"}, in the order to show; accuracies in percent. The row
        that has "images_per_class": None is the whole training set, with which the others are compared; the last of the
        others is the headline (given by position: a headline chosen by score would be chosen on test images).
    sets: pictured by `draw_set`, under their names. logs: events by name, as `draw_curves` takes them.
    settings: resolved settings by method. notes: one sentence each. commands: command lines that make all this again.

    Raises: DistilError if the file cannot be written.
    """
    whole = next((row for row in rows if row.get("images_per_class", 0) is None), None)
    logs = {name: list(events) for name, events in logs.items()}
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="lead">{escape(line)}</p>' for line in summary.split("\n\n"))]
    parts += [_tiles(rows, whole), _table(rows, whole)]
    if sets:
        parts.append("<h2>What the sets look like</h2>")
        parts += [_pictured(name, distilled) for name, distilled in sets.items()]
    if any(line.get("event") in ("step", "validation") for events in logs.values() for line in events):
        parts.append("<h2>While they were made</h2>")
        caption = (
            "Running mean of the matching loss, and accuracy of networks trained on the set so far, on training images."
        )
        parts.append(html_figure(draw_curves(logs), "Loss and accuracy against the step", caption))
    for name, made in sets.items():
        figure = draw_choices(logs.get(name, []), (len(made.mean), *made.size))
        caption = f"{name}: DCT coefficients kept, choice by choice. Orange: entered; blue: left; black: stayed."
        parts.append("" if figure is None else html_figure(figure, "Coefficients over the run", caption))
    if notes:
        parts.append("<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>")
    if commands or settings:
        parts.append("<h2>Make it again</h2>")
    if commands:
        parts.append("<pre>" + escape("\n".join(commands)) + "</pre>")
    for name, values in settings.items():
        listed = "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        parts.append(f"<details><summary>Settings of {escape(name)}</summary><pre>{escape(listed)}</pre></details>")
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in GLOSSARY.items())
    parts.append(f"<h2>Words</h2><details><summary>What the terms mean</summary><dl>{terms}</dl></details>")
    page = html_page(title, parts)

    def write(temporary: Path) -> None:
        temporary.write_text(page, encoding="utf-8", errors="replace")

    write_atomic(path, write)


def html_page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML file of these parts, in the house's style."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + '\n<footer class="small">Written by distil.</footer>\n</main>\n</body>\n</html>\n'
    )


def _tiles(rows: Sequence[Mapping[str, Any]], whole: Mapping[str, Any] | None) -> str:
    """The headline row, the last before the whole set, in two to four numbers."""
    small = [row for row in rows if row is not whole]
    if not small:
        return ""
    headline = small[-1]
    tiles = [(_percent(headline), f"accuracy with {headline['name']}")]
    if headline.get("bytes") is not None:
        tiles.append((bytes_in_words(headline["bytes"]), "stored in all"))
    if whole is not None and whole["mean"] > 0:
        tiles.append((f"{100 * headline['mean'] / whole['mean']:.0f}%", "of the whole set's accuracy"))
        if headline.get("bytes") and whole.get("bytes"):
            tiles.append((f"{whole['bytes'] / headline['bytes']:,.0f} times", "smaller than the whole set"))
    cards = "".join(f'<div class="card"><b>{escape(number)}</b>{escape(text)}</div>' for number, text in tiles)
    return f'<div class="tiles">{cards}</div>'


def _table(rows: Sequence[Mapping[str, Any]], whole: Mapping[str, Any] | None) -> str:
    if not rows:
        return ""
    top = max([1.0, *(row["mean"] + (row.get("std") or 0) for row in rows)])
    top = 100.0 if top > 50 else top
    lines = []
    for row in rows:
        mean, spread = float(row["mean"]), float(row.get("std") or 0)
        per_class = row.get("images_per_class")
        count = "all" if row is whole else "" if per_class is None else str(per_class)
        size = "" if row.get("bytes") is None else bytes_in_words(row["bytes"])
        share = ""
        if whole is not None and row is not whole and whole["mean"] > 0:
            share = f"{100 * mean / whole['mean']:.0f}% as accurate"
            if row.get("bytes") and whole.get("bytes"):
                share += f", {100 * row['bytes'] / whole['bytes']:.2g}% of the bytes"
        low, high = max(0.0, mean - spread) / top * 100, min(top, mean + spread) / top * 100
        whisker = f'<div class="spread" style="left:{low:.2f}%;width:{high - low:.2f}%"></div>' if spread else ""
        bar = f'<div class="track"><div class="fill" style="width:{mean / top * 100:.2f}%"></div>{whisker}</div>'
        lines.append(
            f'<tr{" class=whole" if row is whole else ""}><th scope="row">{escape(str(row["name"]))}</th>'
            f'<td class="number">{_percent(row)}</td><td class="bars">{bar}</td><td class="number">{escape(count)}</td>'
            f'<td class="number">{size}</td><td>{share}</td></tr>'
        )
    head = (
        '<th scope="col">Method</th><th scope="col" class="number">Accuracy</th><td class="bars"></td>'
        '<th scope="col" class="number">Images per class</th><th scope="col" class="number">Bytes</th>'
        '<th scope="col">Against the whole set</th>'
    )
    return (
        f'<h2>How well networks learn from them</h2><div class="card"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _percent(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.1f}%" if row.get("std") is None else f"{row['mean']:.1f} ± {row['std']:.1f}%"


def _pictured(name: str, distilled: DistilledSet) -> str:
    count, pictured = len(distilled.params), distilled.parameterization.pictured(distilled.params, 0)
    caption = [f"{name}: {count} items of {distilled.source}, each {distilled.parameterization.describe()}."]
    if mined := pictured.mined:
        caption.append(f"Strong colors mark the {mined} mined region{'s' * (mined > 1)} and the image of each.")
    if pictured.maps:
        caption.append("Coefficients that are kept are dark.")
    if pictured.utilization is not None:
        caption.append("Dark parts of the utilization map are idle.")
    return html_figure(draw_set(distilled), f"Distilled images of {name}", " ".join(caption))


def html_figure(figure: Figure, description: str, caption: str) -> str:
    """A picture inside the HTML itself, with a caption."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=figure.dpi)
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = (round(side * 96) for side in figure.get_size_inches())
    return (
        f'<figure><img alt="{escape(description)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'
    )
