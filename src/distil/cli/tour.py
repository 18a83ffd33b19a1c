"""The tour: distil the embedded handwriting twice, evaluate the results beside their controls, write a report."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distil.data.images.opener import Source, open_source
from distil.dataset.config import Matching
from distil.dataset.distil import distil_dataset
from distil.dataset.methods import preset
from distil.distilled_set.record import DistilledSet
from distil.evaluation.compare import labels_told
from distil.evaluation.evaluator import Scores, evaluate_distilled, evaluate_real
from distil.evaluation.protocols import protocol_for
from distil.fields import to_dict
from distil.files import remove_unfinished
from distil.locks import only_writer
from distil.report.set_report import write_report
from distil.runs import LOG, MANIFEST, RESULT, EventLog, Events, read_log, remove_checkpoints, start_run

METHODS_SHOWN = ("idc", "udd")
RUNS = 3
NETWORK = "convnet3"


Stage = Callable[[str], AbstractContextManager[Events]]
"""Given a title, a context that yields events which show the progress of that part."""


def run_demo(out: Path, *, device: str, stage: Stage) -> list[dict[str, Any]]:
    """Distil digits to one image a class with IDC and UDD; evaluate both, random real images, and the whole set.

    out: folder for the run folders and report.html. stage: shows the progress of each part, as
    `report.progress.show_progress` does.
    Returns the rows of the report's table, in its order.
    Raises: DistilError if `out` cannot be written, or another demo is writing there.
    """
    out = out.absolute()
    with only_writer(out):
        remove_unfinished(out)
        return _run_demo(out, device, stage)


def _run_demo(out: Path, device: str, stage: Stage) -> list[dict[str, Any]]:
    source = open_source("digits")
    if source.test is None:
        raise ValueError("digits has a test split")
    protocol = protocol_for("quick", source.key)
    width = _matching(METHODS_SHOWN[0], source.key).width
    evaluation_flags = f"digits --protocol quick --width {width} --runs {RUNS}"
    evaluated: dict[str, Any] = {"width": width, "networks": (NETWORK,), "runs": RUNS, "device": device}
    sets: dict[str, DistilledSet] = {}
    logs: dict[str, list[dict[str, Any]]] = {}
    settings: dict[str, dict[str, Any]] = {}
    rows = []

    for method in METHODS_SHOWN:
        title = method.upper()
        chosen = _matching(method, source.key)
        with stage(f"{title}: distil {len(source.train.labels):,} images into {len(source.train.classes)}") as events:
            sets[title], logs[title] = _distil(source, chosen, out / method, device, events)
        settings[title] = to_dict(chosen)

    with stage(f"random real images: train {RUNS} networks on one a class") as events:
        events("start", steps=RUNS)
        scores = evaluate_real(source.train, source.test, protocol, images_per_class=1, events=events, **evaluated)
        rows.append(_row("random real images", scores))
    for title, made in sets.items():
        with stage(f"{title}: train {RUNS} networks on {len(made.params)} images") as events:
            events("start", steps=RUNS)
            rows.append(_row(title, evaluate_distilled(made, source.test, protocol, events=events, **evaluated)))
    with stage(f"whole set: train {RUNS} networks on {len(source.train.labels):,} images") as events:
        events("start", steps=RUNS)
        scores = evaluate_real(source.train, source.test, protocol, images_per_class=None, events=events, **evaluated)
        rows.append(_row("whole training set", scores))

    write_report(
        out / "report.html",
        title="Handwritten digits, one image a class",
        summary=(
            f"{len(source.train.labels):,} real images of handwriting (8 x 8 pixels, shown at 16 x 16) were distilled "
            f"into {len(source.train.classes)}, one a class. Each row: {RUNS} fresh networks trained from scratch on "
            f"that set alone, tested once, after their last update, on {len(source.test.labels)} images that nothing "
            "else has seen."
        ),
        rows=rows,
        sets=sets,
        logs=logs,
        settings=settings,
        notes=[
            "UDD here is a reconstruction: the paper's text and code could not be obtained.",
            "IDC cuts every item into 2 x 2 cells, each enlarged to an image; UDD keeps the DCT coefficients that a "
            "network trained on the real images uses, and has more images for the same bytes.",
            "The curves are measured on training images that were held out; nothing is selected on them.",
            f"Spread is the standard deviation over {RUNS} networks (random real images: fresh draws as well).",
        ],
        commands=[
            "distil demo",
            *(f"distil dataset {method} digits --out runs/{method}" for method in METHODS_SHOWN),
            *(f"distil evaluate runs/{method}/distilled.safetensors {evaluation_flags}" for method in METHODS_SHOWN),
            f"distil evaluate random:1 {evaluation_flags}",
            f"distil evaluate whole {evaluation_flags}",
        ],
    )
    return rows


def _matching(method: str, key: str) -> Matching:
    settings = preset(method, key, 1)
    if not isinstance(settings, Matching):
        raise ValueError(f"{method} learns no images")
    return settings


def _distil(
    source: Source, settings: Matching, folder: Path, device: str, events: Events
) -> tuple[DistilledSet, list[dict[str, Any]]]:
    """Distil in a run folder of its own; a run that is there already is begun again."""
    for name in (MANIFEST, LOG, RESULT):
        (folder / name).unlink(missing_ok=True)
    remove_checkpoints(folder)
    start_run(folder, {"command": "demo", "source": source.name, "settings": to_dict(settings)})
    log = EventLog(folder / LOG)

    def tell(name: str, **fields: Any) -> None:
        log(name, **fields)
        events(name, **fields)

    quick = replace(protocol_for("quick", source.key), epochs=150, max_updates=150)
    made = distil_dataset(
        source.train,
        settings,
        device=device,
        folder=folder,
        events=tell,
        validate=lambda state, held_out: _accuracy(state, held_out, quick, settings.width, device),
    )
    return made, read_log(folder / LOG)


def _accuracy(made: DistilledSet, held_out: Any, protocol: Any, width: int, device: str) -> float:
    scores = evaluate_distilled(made, held_out, protocol, networks=(NETWORK,), width=width, runs=1, device=device)
    return scores.mean[NETWORK]


def _row(name: str, scores: Scores) -> dict[str, Any]:
    return {
        "name": name,
        "images_per_class": scores.images_per_class,
        "bytes": scores.bytes,
        "mean": scores.mean[NETWORK],
        "std": scores.std[NETWORK],
        "labels": labels_told(scores.to_dict()),
    }
