"""The equal-budget runner: the same first weights, images, epochs and seeds, with a teacher and without."""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.checks import is_finite
from distil.data.detection.detection_set import DetectionSet
from distil.detector.adapters import adapt, freeze
from distil.detector.settings import DetectorSettings, detector_settings_from_dict
from distil.detector.training.checkpoint import weights_hash
from distil.detector.training.prediction import Measure, predict
from distil.detector.training.setup import class_match, in_data_labels, make_losses, make_student
from distil.detector.training.train import train_detector
from distil.errors import DistilError
from distil.fields import leaves, to_dict, with_value
from distil.files import read_json, write_atomic
from distil.locks import only_writer
from distil.networks.detectors import Architecture, load_detector
from distil.runs import Events, Interrupted, load_checkpoint, silent

BASELINE = "plain"
RESULT = "result.json"
NAMED = {"student": "student", "annotations": "data set", "teacher": "teacher", "weights": "set of first weights"}
"""What a result depends on besides its settings, in words."""
TABLE, DATA = "comparison.md", "comparison.json"
FREE = ("workers", "seed")
"""Settings of the training in which variants may differ."""
SHOWN = ("ap", "ap50", "ap75", "small", "medium", "large", "voc50")


@dataclass(frozen=True)
class Variant:
    """One way to train, and what it reached with each seed."""

    name: str
    losses: str
    """What the teacher adds, or "none"."""
    scores: tuple[dict[str, Any], ...]
    """What the measure gave for each seed, in the order of the seeds, in percent; None where there was no object."""
    seconds: tuple[float, ...]
    """Seconds of each training, its evaluations on held-out images included."""


@dataclass(frozen=True)
class Comparison:
    """Variants of one budget, the first of which learns without a teacher."""

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    data: str
    test: str
    test_images: int
    budget: dict[str, Any]
    teacher: dict[str, Any] | None
    """What the measure gives the teacher on the same test images."""

    def values(self, name: str, metric: str) -> list[float]:
        """A variant's scores, one a seed; nan where there is none."""
        variant = next(each for each in self.variants if each.name == name)
        return [math.nan if (value := score.get(metric)) is None else float(value) for score in variant.scores]

    def delta(self, name: str, metric: str) -> tuple[float, float]:
        """Mean gain over the first variant and its standard error, from differences seed by seed.

        d_i = score_i - baseline_i; (mean d, s / sqrt(n)), s the sample standard deviation; nan with one seed.
        """
        base = self.values(self.variants[0].name, metric)
        gains = [score - baseline for score, baseline in zip(self.values(name, metric), base, strict=True)]
        return _mean_and_error(gains)

    def to_dict(self) -> dict[str, Any]:
        """Everything for JSON, with mean and standard error of every score and gain."""
        table = {each.name: {metric: self._summary(each.name, metric) for metric in SHOWN} for each in self.variants}
        return {**asdict(self), "table": table}

    def _summary(self, name: str, metric: str) -> dict[str, float | None]:
        mean, error = _mean_and_error(self.values(name, metric))
        gain, gain_error = self.delta(name, metric)
        values = {"mean": mean, "error": error, "gain": gain, "gain_error": gain_error}
        return {key: None if value != value else value for key, value in values.items()}

    def to_markdown(self) -> str:
        """A table of the scores and of the gains over the first variant, with what was equal below it."""
        shown = [metric for metric in SHOWN if any(x == x for x in self.values(self.variants[0].name, metric))]
        base = self.variants[0].name
        header = [
            "training",
            "losses of the teacher",
            *(_title(metric) for metric in shown),
            f"AP gain over {base}",
            "time",
        ]
        rows = [header, ["---", "---", *(["---:"] * (len(shown) + 2))]]
        for each in self.variants:
            scores = [_with_error(*_mean_and_error(self.values(each.name, metric))) for metric in shown]
            gain = "" if each.name == base else _with_error(*self.delta(each.name, "ap"), sign="+")
            ratio = sum(each.seconds) / max(sum(self.variants[0].seconds), 1e-9)
            rows.append([each.name, each.losses, *scores, gain, f"{ratio:.2f} x"])
        if self.teacher is not None:
            scores = [_with_error(_number(self.teacher.get(metric)), math.nan) for metric in shown]
            rows.append(["(the teacher)", "", *scores, "", ""])
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        return "\n".join(lines) + f"\n\n{self._caption()}\n"

    def _caption(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        several = len(self.seeds) > 1
        spread = "mean ± standard error over" if several else "one run, so without spread, with"
        word = "seeds" if several else "seed"
        budget = self.budget
        gains = "; gains are differences seed by seed" if several else ""
        return (
            f"In % on {self.test_images} images of {self.test}: {spread} {word} {seeds}{gains}. Equal for all: first "
            f"weights, images of {self.data}, {budget['epochs']} epochs, batch {budget['batch']}, learning rate "
            f"{budget['lr']:g}. Time: of the trainings, against {self.variants[0].name}."
        )

    def save(self, folder: Path | str) -> None:
        """Write comparison.md and comparison.json."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        write_atomic(Path(folder) / TABLE, lambda temporary: temporary.write_text(self.to_markdown()))
        write_atomic(Path(folder) / DATA, lambda temporary: temporary.write_text(text))


def compare_detectors(
    student: Architecture,
    teacher: Any,
    data: DetectionSet,
    test: DetectionSet,
    variants: Mapping[str, DetectorSettings],
    *,
    measure: Measure,
    out: Path | str,
    seeds: Sequence[int] = (0, 1, 2),
    teacher_classes: Sequence[str] | None = None,
    validation: DetectionSet | None = None,
    weights: Mapping[str, Tensor] | Callable[[int], Mapping[str, Tensor]] | None = None,
    device: torch.device | str = "cpu",
    events: Events | None = None,
    checkpoint_seconds: float = 120.0,
) -> Comparison:
    """Train a student in several ways under one budget, and measure all on the same test images.

    variants: name -> settings, of which those of the training must be the same; `plain`, without a teacher, is added
    where no settings have the loss "none", and comes first. seeds: each replaces the seed of the settings, so that
    variant i and the baseline start from the same weights and see the same images, augmented alike, in the same
    order.
    test: not seen in training, neither to choose the epoch. Evaluated are the weights that `train_detector` returns.
    weights: the students' first weights, loaded strictly, or a function of the seed that gives them.
    out: gets a run folder NAME/seed-N each, then comparison.md and comparison.json; no other process can write there
    meanwhile. What is there is not done again: trainings continue from their checkpoints; what was made with other
    settings, data, students or teachers is refused; a damaged result.json is made again.
    events: as of `train_detector`, with variant, run_seed, run (counted from 1) and runs besides; "preparing"
    (what) before the test images are looked at, "compared" (ap) after each run, or at once where it is done already.

    Raises: DistilError when variants differ in their budget, when another run writes into the folder, and as
    `train_detector` does; Interrupted after a signal that asks to stop.
    """
    out = Path(out)
    ways = _with_baseline(variants)
    if not seeds or len(set(seeds)) != len(seeds):
        told = " ".join(map(str, seeds)) or "empty"
        raise DistilError(f"{{seeds}} is {told}: give each seed once, and at least one.", field="seeds")
    if test.classes != data.classes:
        raise DistilError(f"the classes of {test.name} are not those of {data.name}: test on data of the same kind.")

    def of_seed(seed: int) -> Mapping[str, Tensor] | None:
        return weights(seed) if callable(weights) else weights

    for way in ways.values():
        if way.taught and teacher is not None:
            adapter = make_student(student, way.training.seed, data, of_seed(seeds[0]))[1]
            make_losses(adapter, teacher, teacher_classes, data, way)
    truths = [test.annotations(index) for index in range(len(test))]
    heard = events or silent
    made_for = {
        "student": repr(student),
        "annotations": {
            part.name: part.fingerprint for part in (data, test, *([] if validation is None else [validation]))
        },
        "teacher": None if teacher is None else weights_hash(teacher.model.state_dict()),
    }
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    with only_writer(out):
        for seed, name, told in _plan(seeds, ways, heard):
            way, first_weights = ways[name], of_seed(seed)
            facts_of_seed = {**made_for, "weights": None if first_weights is None else weights_hash(first_weights)}
            settings = with_value(way, ("training", "seed"), seed)
            folder = out / name / f"seed-{seed}"
            facts = {**facts_of_seed, "teacher": None} if not way.taught else facts_of_seed
            result = _read_result(folder / RESULT, settings, facts, told)
            if result is None:
                try:
                    path = train_detector(
                        student,
                        data,
                        settings,
                        out=folder,
                        teacher=teacher,
                        teacher_classes=teacher_classes,
                        validation=validation,
                        measure=measure,
                        weights=first_weights,
                        resume=True,
                        device=device,
                        events=told,
                        checkpoint_seconds=checkpoint_seconds,
                    )
                except Interrupted as stop:
                    where = str(stop).partition(":")[0]
                    raise Interrupted(
                        f"{name}, seed {seed}, {where}: the same comparison in {out} continues there", stop.number
                    ) from stop
                told("preparing", what=f"{name}, seed {seed}, on {len(test)} test images")
                saved = load_checkpoint(folder)
                assert saved is not None
                seconds = saved[1]["seconds"]
                trained = adapt(load_detector(path)[0].to(device))
                scores = measure(predict(trained, test, batch=settings.training.batch), truths, test.classes).to_dict()
                result = {"settings": to_dict(settings), "made_for": facts, "scores": scores, "seconds": seconds}
                _write_result(folder / RESULT, result)
            told("compared", ap=result["scores"]["ap"])
            results[name].append(result)
        comparison = _comparison(ways, results, seeds, data, test)
        if teacher is not None:
            heard("preparing", what=f"the teacher on {len(test)} test images")
            evaluated = _evaluated_teacher(teacher, teacher_classes, test, truths, measure, device)
            comparison = replace(comparison, teacher=evaluated)
        comparison.save(out)
    return comparison


def _plan(
    seeds: Sequence[int], ways: Mapping[str, DetectorSettings], heard: Events
) -> Iterator[tuple[int, str, Events]]:
    """Each run in its order: its seed, its variant, and events that tell both."""
    plan = [(seed, name) for seed in seeds for name in ways]
    for run, (seed, name) in enumerate(plan, start=1):
        facts = {"variant": name, "run_seed": seed, "run": run, "runs": len(plan)}
        yield seed, name, partial(heard, **facts)


def _comparison(
    ways: Mapping[str, DetectorSettings],
    results: Mapping[str, Sequence[dict[str, Any]]],
    seeds: Sequence[int],
    data: DetectionSet,
    test: DetectionSet,
) -> Comparison:
    """The variants' results together, the teacher's aside."""
    made = tuple(
        Variant(
            name,
            way.distillation.loss,
            tuple(result["scores"] for result in results[name]),
            tuple(result["seconds"] for result in results[name]),
        )
        for name, way in ways.items()
    )
    first = next(iter(ways.values()))
    return Comparison(
        variants=made,
        seeds=tuple(seeds),
        data=data.name,
        test=test.name,
        test_images=len(test),
        budget=_budget(first),
        teacher=None,
    )


def _budget(settings: DetectorSettings) -> dict[str, Any]:
    """The settings in which no variant may differ, by name."""
    return {leaf.name: leaf.value for leaf in leaves(settings.training) if leaf.name not in FREE}


def _with_baseline(variants: Mapping[str, DetectorSettings]) -> dict[str, DetectorSettings]:
    """The variants, a plain training first. Raises: DistilError when there is none or the budgets differ."""
    if not variants:
        raise DistilError("nothing to compare: name at least one loss.")
    first_name, first = next(iter(variants.items()))
    for name, settings in variants.items():
        for field, one in _budget(first).items():
            if one != (other := _budget(settings)[field]):
                raise DistilError(
                    f"{first_name} and {name} do not have the same budget: {{{field}}} is {one} for the first and "
                    f"{other} for the second. Only what the teacher adds may differ.",
                    field=field,
                )
    plain = [name for name, settings in variants.items() if not settings.taught]
    if not plain:
        alone = with_value(replace(first, method=BASELINE), ("distillation", "loss"), "none")
        return {BASELINE: alone, **variants}
    return {plain[0]: variants[plain[0]], **variants}


def _evaluated_teacher(
    teacher: Any,
    teacher_classes: Sequence[str] | None,
    test: DetectionSet,
    truths: Sequence[Any],
    measure: Measure,
    device: torch.device | str,
) -> dict[str, Any]:
    freeze(teacher)
    teacher.model.to(device)
    found = in_data_labels(predict(teacher, test), class_match(teacher, teacher_classes, test))
    return measure(found, truths, test.classes).to_dict()


def _read_result(
    path: Path, settings: DetectorSettings, facts: Mapping[str, Any], told: Events
) -> dict[str, Any] | None:
    """A finished run's result; None if there is none or it is damaged, which is then told.

    Raises: DistilError when it was made with other settings, data or detectors.
    """
    try:
        result = read_json(path)
        if not _is_result(result):
            raise DistilError(f"{path} is damaged: it does not hold the result of a run.")
    except FileNotFoundError:
        return None
    except DistilError as error:
        told("note", text=f"{error} It is made again from the run beside it.")
        return None
    if detector_settings_from_dict(result["settings"]) != settings:
        raise DistilError(f"{path} was made with other settings: choose another folder ({{out}}).", field="out")
    for what, value in facts.items():
        if result.get("made_for", facts).get(what, value) != value:
            raise DistilError(
                f"{path} was made with another {NAMED[what]}: choose another folder ({{out}}).", field="out"
            )
    return result


def _is_result(result: Any) -> bool:
    """Whether this is what `_write_result` wrote: settings, scores in percent or None, seconds."""
    parts = ("settings", "scores", "made_for")
    if not isinstance(result, dict) or not all(isinstance(result.get(part, {}), dict) for part in parts):
        return False
    figures = [result.get("scores", {}).get(name, "missing") for name in ("ap", "ap50")]
    figures += [x for name, x in result.get("scores", {}).items() if name in SHOWN]
    sound = all(x is None or (is_finite(x) and 0 <= x <= 100) for x in figures)
    seconds = result.get("seconds", -1)
    return sound and "settings" in result and is_finite(seconds) and seconds >= 0


def _write_result(path: Path, result: Mapping[str, Any]) -> None:
    text = json.dumps(result, indent=2, sort_keys=True) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the mean; nan for what cannot be told."""
    mean = math.fsum(values) / len(values)
    if mean != mean or len(values) == 1:
        return mean, math.nan
    return mean, statistics.stdev(values) / math.sqrt(len(values))


def _with_error(mean: float, error: float, sign: str = "") -> str:
    if mean != mean:
        return "-"
    return f"{mean:{sign}.1f}" if error != error else f"{mean:{sign}.1f} ± {error:.1f}"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _title(metric: str) -> str:
    return metric.upper() if metric.startswith("ap") else {"voc50": "VOC AP50"}.get(metric, f"AP {metric}")
