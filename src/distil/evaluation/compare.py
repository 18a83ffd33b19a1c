"""One table of several scores."""

from pathlib import PurePath
from typing import Any

from rich.markup import escape
from rich.table import Table

from distil.errors import DistilError

LABELS = {
    "hard": "hard labels",
    "stored": "stored soft labels",
    "teacher": "a teacher's labels at training time",
    None: "labels not told",
}
"""Regimes in words; score files of before tell none."""


def compare_table(rows: list[dict[str, Any]]) -> Table:
    """A table for the terminal: name, method, images per class, bytes, and each network's accuracy.

    rows: from `Scores.to_dict()`, in the order of the table.

    Raises: DistilError when there are none, or when they were evaluated by different protocols, with labels of
    different regimes, or on different images.
    """
    header, cells = _cells(rows)
    table = Table(caption=_caption(rows))
    for position, column in enumerate(header):
        table.add_column(escape(column), justify="left" if position < 2 else "right")
    for row in cells:
        table.add_row(*map(escape, row))
    return table


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The same table in Markdown, with the caption below it.

    Raises: as `compare_table`.
    """
    header, cells = _cells(rows)
    rule = ["---" if position < 2 else "---:" for position in range(len(header))]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, rule, *cells)]
    return "\n".join(lines) + f"\n\n{_caption(rows)}\n"


def _cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and body of the table as text."""
    if not rows:
        raise DistilError("nothing to compare: give at least one score.")
    for row in rows[1:]:
        _check_comparable(rows[0], row)
    columns = list(dict.fromkeys(_column(network, row) for row in rows for network in row["networks"]))
    body = []
    for row in rows:
        scores = {_column(network, row): _score(values) for network, values in row["networks"].items()}
        count = row["images_per_class"]
        body.append(
            [
                row["name"],
                row["method"],
                "all" if count is None else str(count),
                f"{row['bytes']:,}",
                labels_told(row),
                *(scores.get(column, "-") for column in columns),
            ]
        )
    return ["name", "method", "images per class", "bytes", "labels", *columns], body


def labels_told(row: dict[str, Any]) -> str:
    """The label regime of a row with its bytes, which rows of older score files do not tell."""
    regime, teacher, temperature = row.get("labels"), row.get("teacher"), row.get("temperature")
    if regime is None:
        return "not told"
    if regime == "hard":
        return "hard"
    by = "" if teacher is None else f"{teacher_told(teacher)}, T {temperature:g}"
    if regime == "stored":
        return f"stored, {row['label_bytes']:,} bytes" + (f" by {by}" if by else "")
    return f"teacher {by}, {teacher['bytes']:,} bytes" if teacher else "teacher"


def teacher_told(teacher: dict[str, Any]) -> str:
    """The words of a teacher, folders left out; of an ensemble with many members, the first and how many more."""
    names = [PurePath(word).name for word in teacher.get("words", ())]
    if not names:
        return "a teacher"
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _column(network: str, row: dict[str, Any]) -> str:
    return network if row["width"] is None else f"{network} (width {row['width']})"


def _score(values: dict[str, Any]) -> str:
    if len(values["accuracies"]) == 1:
        return f"{values['mean']:.1f} (1 run)"
    return f"{values['mean']:.1f} ± {values['std']:.1f}"


def _caption(rows: list[dict[str, Any]]) -> str:
    runs = sorted({row["runs"] for row in rows})
    spread = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    return (
        f"Protocol {_title(rows[0])}, {LABELS[rows[0].get('labels')]}: "
        f"accuracy in % after the last epoch, mean ± standard deviation over {spread} "
        f"networks, on {rows[0]['test_images']:,} images of {rows[0]['test']}."
    )


def _title(row: dict[str, Any]) -> str:
    """The protocol of a row with its version, which rows of distil 0.1 do not tell."""
    version = row.get("protocol_version")
    return f"{row['protocol']} {'of unknown version' if version is None else f'v{version}'}"


def _check_comparable(first: dict[str, Any], other: dict[str, Any]) -> None:
    """Refuse two rows whose accuracies were not measured in the same way."""
    measures = [("protocol", _title(first), _title(other))]
    measures += [(key.replace("_", " "), first[key], other[key]) for key in ("test", "test_images")]
    measures += [("the label regime", first.get("labels"), other.get("labels"))]
    if first.get("labels") == "teacher" == other.get("labels"):
        measures += [("the teacher", *((row.get("teacher") or {}).get("sha256") for row in (first, other)))]
        measures += [("the teacher's temperature", first.get("temperature"), other.get("temperature"))]
    settings, others = first["protocol_settings"], other["protocol_settings"]
    measures += [(f"{key} of the protocol", settings.get(key), others.get(key)) for key in {**settings, **others}]
    for what, one, two in measures:
        if one != two:
            raise DistilError(
                f"{first['name']} ({first['method']}) and {other['name']} ({other['method']}) cannot share a table: "
                f"{what} is {one} for the first and {two} for the second. Evaluate both in the same way."
            )
