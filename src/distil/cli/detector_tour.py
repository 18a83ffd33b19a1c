"""The tour of the second half: a teacher, a student alone, a student with the teacher, on embedded scenes of digits."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from distil.cli.flags import flag_of
from distil.data.detection.opener import open_detection
from distil.detector.adapters import adapt, freeze
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.gkd.reliability import ObjectReliabilities, measure_objects
from distil.detector.preflight import preflight
from distil.detector.presets import detector_preset, student_preset
from distil.detector.settings import DetectorSettings, detector_settings_from_dict
from distil.detector.training.prediction import predict
from distil.detector.training.train import train_detector
from distil.errors import DistilError
from distil.evaluation.precision import Precision, average_precision, precision_by_tag
from distil.fields import leaves, with_values
from distil.files import write_atomic
from distil.locks import only_writer
from distil.networks.detectors import Architecture, load_detector
from distil.report.detector_report import reliability_by_tag, write_detector_report
from distil.report.progress import both
from distil.runs import LOG, EventLog, Events, Interrupted, load_checkpoint, read_log, remove_checkpoints
from distil.stopping import number_of

SCENES = 480
DETECTOR = "retinanet"
TEACHER_EPOCHS = 16
STUDENT_EPOCHS = 10
SUMMARY = "summary.json"

Stage = Callable[[str], AbstractContextManager[Events]]
"""Given a title, a context that yields events which show the progress of that part."""


@dataclass(frozen=True)
class Tour:
    """What the tour found."""

    scores: dict[str, Precision]
    """Scores of teacher, plain student and distilled student on the test scenes."""
    weights: dict[str, int]
    """Number of parameters of each."""
    seconds: dict[str, float]
    """Seconds of each training, validation included."""
    reliabilities: ObjectReliabilities


def run_detector_demo(
    out: Path,
    *,
    device: str,
    stage: Stage,
    scenes: int = SCENES,
    epochs: tuple[int, int] = (TEACHER_EPOCHS, STUDENT_EPOCHS),
) -> Tour:
    """Train a teacher, a student alone and a student of the teacher; evaluate all, write report.html and
    its figures as summary.json.

    out: folder for the runs and the report; no other process can write there meanwhile. A run in it that was stopped
    continues; where the report is written, or other settings were used, all are begun again.
    scenes: training images. epochs: of the teacher and of both students.
    Raises: DistilError if `out` cannot be written, or another process writes there; Interrupted after a signal that
    asks to stop: the same call then continues.
    """
    with only_writer(out):
        try:
            return _tour(out, device=device, stage=stage, scenes=scenes, epochs=epochs)
        except (KeyboardInterrupt, Interrupted) as stop:
            where = str(stop).partition(": ")[0] if isinstance(stop, Interrupted) else "interrupted"
            raise Interrupted(f"{where}: the same tour in {out} continues there", number_of(stop)) from stop


def _tour(out: Path, *, device: str, stage: Stage, scenes: int, epochs: tuple[int, int]) -> Tour:
    data = open_detection(f"scenes:{scenes}")
    assert data.val is not None
    assert data.test is not None
    classes = data.train.classes
    big = Architecture(classes=classes, **student_preset(DETECTOR, "scenes", teacher=True))
    small = Architecture(classes=classes, **student_preset(DETECTOR, "scenes", teacher=False))
    alone = with_values(detector_preset("plain", "scenes"), epochs=epochs[1], evaluate_every=2)
    taught = with_values(detector_preset("gkd", "scenes"), epochs=epochs[1], evaluate_every=2)
    plan: dict[str, tuple[Architecture, DetectorSettings]] = {
        "teacher": (big, with_values(alone, epochs=epochs[0])),
        "student alone": (small, alone),
        "student with gkd": (small, taught),
    }
    truth = [data.test.annotations(index) for index in range(len(data.test))]
    scores, weights, seconds, found, logs, checked = {}, {}, {}, {}, {}, ""
    teacher, prototypes, student = None, None, None
    afresh = (out / SUMMARY).exists()
    for title, (architecture, settings) in plan.items():
        folder = out / title.replace(" ", "-")
        afresh = afresh or not _can_go_on(folder, settings)
        if afresh:
            _clear(folder)
            (out / SUMMARY).unlink(missing_ok=True)
        with stage(f"{title}: {settings.training.epochs} epochs of {scenes} scenes") as shown:
            log = EventLog(folder / LOG, resumed=not afresh)
            if settings.taught:
                checked = preflight(small, teacher, data.train, settings, measure=average_precision).describe(flag_of)
            file = train_detector(
                architecture,
                data.train,
                settings,
                out=folder,
                teacher=teacher if settings.taught else None,
                validation=data.val,
                measure=average_precision,
                resume=not afresh,
                device=device,
                events=both(log, shown),
            )
        logs[title] = read_log(folder / LOG)
        model = load_detector(file)[0].to(device)
        adapter = adapt(model)
        found[title] = predict(adapter, data.test)
        scores[title] = average_precision(found[title], truth, classes)
        weights[title] = sum(parameter.numel() for parameter in model.parameters())
        seconds[title] = _seconds(folder)
        if title == "teacher":
            freeze(adapter)
            teacher = adapter
        student = adapter
        if chosen := sorted(folder.glob("prototypes-*.safetensors")):
            prototypes = PrototypeSet.load(chosen[-1])
    assert prototypes is not None
    with stage("which objects the two agree on") as shown:
        reliabilities = measure_objects(student, teacher, prototypes, data.test)
    by_tag = {title: precision_by_tag(item, data.test) for title, item in found.items()}
    write_detector_report(
        out / "report.html",
        data=data,
        scores=scores,
        by_tag=by_tag,
        weights=weights,
        seconds=seconds,
        found=found,
        logs=logs,
        prototypes=prototypes,
        reliabilities=reliabilities,
        preflight=checked,
        settings={
            title: {**asdict(architecture), **{leaf.name: leaf.value for leaf in leaves(settings)}}
            for title, (architecture, settings) in plan.items()
        },
    )
    summary = {
        "scores": {title: score.to_dict() for title, score in scores.items()},
        "by_tag": {
            title: {
                kind: {"objects": score.objects, "ap": score.ap, "ap50": score.ap50} for kind, score in item.items()
            }
            for title, item in by_tag.items()
        },
        "weights": weights,
        "seconds": {title: round(value, 1) for title, value in seconds.items()},
        "reliability": {
            kind: {"objects": count, "mean": round(mean, 4), "standard_error": round(error, 4)}
            for kind, (count, mean, error) in reliability_by_tag(reliabilities, data.test).items()
        },
        "preflight": checked.splitlines(),
    }
    text = json.dumps(summary, indent=1) + "\n"
    write_atomic(out / SUMMARY, lambda path: path.write_text(text))
    return Tour(scores, weights, seconds, reliabilities)


def _can_go_on(folder: Path, settings: DetectorSettings) -> bool:
    """Whether a run of these settings was stopped in the folder."""
    try:
        saved = load_checkpoint(folder)
    except DistilError:
        return False
    try:
        return saved is not None and detector_settings_from_dict(saved[1].get("settings")) == settings
    except DistilError:
        return False


def _clear(folder: Path) -> None:
    remove_checkpoints(folder)
    for old in (folder / LOG, *folder.glob("prototypes-*.safetensors")):
        old.unlink(missing_ok=True)


def _seconds(folder: Path) -> float:
    """Seconds of a finished run, its evaluations included."""
    saved = load_checkpoint(folder)
    return 0.0 if saved is None else float(saved[1]["seconds"])
