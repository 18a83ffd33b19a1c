"""`distil detector preflight` and `compare`: before the work, and what it was worth."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.cli.detector_flags import DataFlags, PlaceFlags, StudentFlags
from distil.cli.detector_memory import check_memory
from distil.cli.detector_words import (
    adapter_named,
    architecture_of,
    first_weights,
    folder_name,
    open_boxes,
    pretrained_word,
    refuse_among_data,
    tell_notes,
)
from distil.cli.flags import device_named, flag_of
from distil.detector.settings import DetectorSettings
from distil.errors import DistilError
from distil.fields import with_values
from distil.locks import only_writer
from distil.processes import is_first, several
from distil.runs import Events

if TYPE_CHECKING:
    from distil.data.detection.detection_set import DetectionSource
    from distil.networks.detectors import Architecture


def preflight() -> None:
    """Look at a teacher, a student and their data before anything expensive.

    Tells the teacher's average precision on this data, which classes both know, which levels they share, whether every
    loss of a first step is finite and what share of the gradient it has, and what a step costs beside a plain one.
    Exit status 2 if distilling makes no sense.

    Examples:
    distil detector preflight runs/scenes-plain-faster-rcnn-seed0 scenes
    distil detector preflight torchvision:fasterrcnn_resnet50_fpn coco:data/coco --download --backbone resnet18
    """


def compare() -> None:
    """Train students with and without TEACHER at equal budget: same first weights, epochs, batches and seeds.

    Prints average precision on the test images (validation images where there are none), the difference to the plain
    student of the same seed, and its spread over the seeds. What is done is kept: the same command continues.

    Examples:
    distil detector compare runs/scenes-plain-faster-rcnn-seed0 scenes --losses gkd pkd gkd,pkd=0.05 --seeds 3
    """


def run_preflight(
    taught_by: tuple[Any, tuple[str, ...]],
    architecture: "Architecture",
    pretrained: str | None,
    data: "DetectionSource",
    settings: DetectorSettings,
    place: DataFlags,
) -> Any:
    """Look at a teacher, given by its adapter and the names of its classes, and print what was found."""
    from distil.detector.preflight import preflight as look
    from distil.evaluation.precision import average_precision
    from distil.report.progress import show_progress

    with show_progress("preflight") if is_first() else nullcontext() as shown:
        found = look(
            architecture,
            taught_by[0],
            data.train,
            settings,
            measure=average_precision,
            teacher_classes=taught_by[1],
            weights=first_weights(architecture, pretrained, settings.training.seed),
            device=device_named(place.device),
            events=shown,
        )
    if is_first():
        print(found.describe(flag_of), flush=True)
    return found


def run_comparison(
    teacher: str,
    source: str,
    losses: tuple[str, ...],
    seeds: int,
    student: StudentFlags,
    settings: DetectorSettings,
    place: PlaceFlags,
) -> None:
    if seeds < 1:
        raise DistilError(f"--seeds is {seeds}: it must be at least 1.")
    if several():
        raise DistilError("a comparison runs in one process: start it without torchrun.")
    variants = {"plain": with_values(settings, method="plain", loss="none")}
    variants |= {named: with_values(settings, loss=named) for named in losses}
    folder = place.out or Path("runs") / folder_name(source, "compare", student.detector, settings.training.seed)
    refuse_among_data(folder, source, place.root)
    with only_writer(folder):
        made = _compare(teacher, source, variants, seeds, student, settings, place, folder)
    print(made.to_markdown())
    print(f"Table: {folder}")


def _compare(
    teacher: str,
    source: str,
    variants: dict[str, DetectorSettings],
    seeds: int,
    student: StudentFlags,
    settings: DetectorSettings,
    place: PlaceFlags,
    folder: Path,
) -> Any:
    """Open data and teacher, and run every variant with every seed."""
    from distil.detector.comparison import compare_detectors
    from distil.evaluation.precision import average_precision
    from distil.report.progress import both, show_progress

    data = open_boxes(source, place.root, place.fix_boxes)
    images = data.test or data.val
    if images is None:
        raise DistilError(f"{source} has neither test nor validation images to compare on: give such a split.")
    adapter, classes = adapter_named(teacher, place)
    architecture = architecture_of(student, data.train)
    pretrained = pretrained_word(student)
    most = max(variants.values(), key=lambda each: (each.taught, each.distillation.loss.count(",")))
    check_memory(architecture, data.train, most, place, taught_by=(adapter, classes))
    with show_progress(f"compare on {data.train.name}") as shown:
        return compare_detectors(
            architecture,
            adapter,
            data.train,
            images,
            variants,
            seeds=range(settings.training.seed, settings.training.seed + seeds),
            out=folder,
            teacher_classes=classes,
            validation=data.val if data.test is not None else None,
            measure=average_precision,
            weights=None if pretrained is None else lambda seed: first_weights(architecture, pretrained, seed),
            device=device_named(place.device),
            events=both(tell_notes, OfTheWhole(shown)),
            checkpoint_seconds=place.checkpoint_seconds,
        )


class OfTheWhole:
    """Events of the runs of a comparison passed on as those of one long run, with what is at work in words.

    Steps count over all runs, which have equally many. What was done before counts as done, and the time left is
    reckoned from what was done since.
    """

    def __init__(self, shown: Events):
        self.shown = shown
        self.each, self.before = 0, 0

    def __call__(self, name: str, **fields: Any) -> None:
        if name == "start":
            self.each, self.before = fields["steps"], (fields["run"] - 1) * fields["steps"]
        if "run" in fields:
            of = f"run {fields['run']} of {fields['runs']}"
            fields["part"] = f"{fields['variant']}, seed {fields['run_seed']} ({of})"
        if "steps" in fields:
            fields["steps"] = fields["runs"] * self.each
            fields["step"] = self.before + fields["step"]
        self.shown(name, **fields)
