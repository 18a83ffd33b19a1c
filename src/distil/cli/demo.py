"""`distil demo`: the tour."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from distil.cli.flags import Device, console, device_named, option
from distil.runs import Interrupted
from distil.stopping import number_of


def demo(
    which: Annotated[
        Positional[Literal["dataset", "detector"]], option("dataset|detector", "Which half of the tour.")
    ] = "dataset",
    out: Annotated[Path | None, option("DIR", "Folder for the report; demo or demo-detector unless given.")] = None,
    device: Device = "auto",
) -> None:
    """The tour on embedded handwriting, with an HTML report; no download.

    dataset (about three minutes on two CPU cores): IDC and UDD distil it to one image
    a class, evaluated beside real images. detector (about five): a teacher, a student
    alone and a student with the teacher's knowledge, on scenes of digits.

    Examples:
    distil demo
    distil demo detector --out somewhere/
    """
    where = device_named(device)
    tour, folder = (_demo_detector, "demo-detector") if which == "detector" else (_demo_dataset, "demo")
    try:
        tour(out or Path(folder), where)
    except (Interrupted, KeyboardInterrupt) as stop:
        words = ["distil", "demo"] + (["detector"] if which == "detector" else [])
        words += [] if out is None else ["--out", str(out)]
        words += [] if device == "auto" else ["--device", device]
        how = "continue" if which == "detector" else "begin again"
        raise Interrupted(f"interrupted: {how} with {shlex.join(words)}", number_of(stop)) from stop


def _demo_detector(out: Path, device: str) -> None:
    from rich.table import Table

    from distil.cli.detector_tour import run_detector_demo
    from distil.report.progress import show_progress

    tour = run_detector_demo(out, device=device, stage=show_progress)
    table = Table(title="Average precision (%) on test scenes")
    for position, column in enumerate(("detector", "weights", "AP", "AP50", "AP75", "training")):
        table.add_column(column, justify="right" if position else "left")
    for name, row in tour.scores.items():
        figures = (f"{value:.1f}" for value in (row.ap, row.ap50, row.ap75))
        table.add_row(name, f"{tour.weights[name]:,}", *figures, f"{tour.seconds[name]:.0f} s")
    console().print(table)
    print("One run each: differences of a point or two are chance. distil detector compare measures them.")
    print(f"Report: {out / 'report.html'}")


def _demo_dataset(out: Path, device: str) -> None:
    from rich.table import Table

    from distil.cli.tour import run_demo
    from distil.report.progress import show_progress

    rows = run_demo(out, device=device, stage=show_progress)
    table = Table(title="Test accuracy (%), mean ± standard deviation over networks")
    for position, column in enumerate(("trained on", "images per class", "bytes", "accuracy")):
        table.add_column(column, justify="right" if position else "left")
    for row in rows:
        count = row["images_per_class"]
        accuracy = f"{row['mean']:.1f} ± {row['std']:.1f}"
        table.add_row(row["name"], "all" if count is None else str(count), f"{row['bytes']:,}", accuracy)
    console().print(table)
    print(f"Report: {out / 'report.html'}")
