"""`distil detector train` and `distil`: start a run, go on with it, finish it."""

import shlex
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from distil.commands.detector_comparing import run_preflight
from distil.commands.detector_flags import Download, PlaceFlags, StudentFlags
from distil.commands.detector_words import (
    STUDENT,
    adapter_named,
    architecture_of,
    first_weights,
    folder_name,
    is_first,
    lasting,
    open_boxes,
    pretrained_word,
)
from distil.errors import DistilError
from distil.files import load_tensors
from distil.flags import Device, device_named, versions
from distil.runs import CHECKPOINT, LOG, MANIFEST, EventLog, Interrupted, read_manifest, silent, start_run
from distil.settings import DetectorSettings, check_settings, detector_settings_from_dict

if TYPE_CHECKING:
    from distil.sources.detection import DetectionSource

RUN_FORMAT = 1
RECORDED = {
    "source": (str,),
    "root": (str, type(None)),
    "fix_boxes": (bool,),
    "teacher": (str, type(None)),
    "architecture": (dict,),
    "pretrained": (str, type(None)),
    "settings": (dict,),
}
"""What run.json must hold for a run to go on, and its types."""


def train() -> None:
    """Train a detector on the boxes of SOURCE, without a teacher.

    The run folder receives run.json (all settings), log.jsonl (every event), checkpoint.safetensors, last.safetensors
    and best.safetensors. The best epoch is chosen on validation images, never on test images. Ctrl-C saves; --resume
    DIR goes on. Several GPUs: torchrun --nproc-per-node N -m distil.cli detector train ...

    Examples:
    distil detector train scenes
    distil detector train coco:data/coco --detector retinanet --backbone resnet101 --pretrained download
    distil detector train --resume runs/scenes-plain-faster-rcnn-seed0
    """


def distil() -> None:
    """Train a student on the boxes of SOURCE with the knowledge of TEACHER.

    --knowledge joins losses by commas: gkd (prototypes, reliability), mse, pkd, fgd, mgd, defeat, response, crosskd;
    gkd,pkd=0.05 weighs one. A preflight looks at teacher, data and losses first. The student is a plain torchvision
    detector: nothing of the teacher is left in it.

    Examples:
    distil detector distil runs/scenes-plain-faster-rcnn-seed0 scenes
    distil detector distil teacher.safetensors voc:data/VOCdevkit --knowledge gkd,pkd=0.05 --backbone resnet18
    distil detector distil --resume runs/scenes-gkd-faster-rcnn-seed0
    """


def resume(
    resume: Annotated[Path, arg(metavar="DIR", help="Run folder; run.json there holds the settings.")],
    device: Device = "auto",
    download: Download = False,
    checkpoint_seconds: float = 120.0,
) -> None:
    manifest = read_manifest(resume)
    if not isinstance(manifest, dict) or manifest.get("command") != "detector" or "format_version" not in manifest:
        raise DistilError(f"{resume / MANIFEST} does not describe a run of a detector: give the folder of one.")
    if manifest["format_version"] != RUN_FORMAT:
        raise DistilError(f"{resume} was made by a newer distil: upgrade with pip install -U distil")
    if broken := [name for name, types in RECORDED.items() if not isinstance(manifest.get(name, ...), types)]:
        raise DistilError(
            f"{resume / MANIFEST} is damaged, {broken[0]!r} is missing or wrong: start the run again in another folder."
        )
    if (resume / STUDENT).is_file():
        if is_first():
            print(f"This run is finished: {resume / STUDENT}")
        return
    place = PlaceFlags(None, manifest["fix_boxes"], download, device, resume, checkpoint_seconds)
    settings = detector_settings_from_dict(manifest["settings"])
    root = None if manifest["root"] is None else Path(manifest["root"])
    _run(
        resume, open_boxes(manifest["source"], root, manifest["fix_boxes"]), manifest, settings, place, resume_run=True
    )


def start_training(
    source: str,
    teacher: str | None,
    student: StudentFlags,
    settings: DetectorSettings,
    place: PlaceFlags,
    *,
    preflight: bool = True,
) -> None:
    from distil.detector.preparing import make_fabric

    check_settings(settings)
    label = settings.method if teacher is None or settings.method != "gkd" else settings.knowledge
    folder = place.out or Path("runs") / folder_name(source, label, student.detector, settings.seed)
    fabric = make_fabric(device_named(place.device), settings.precision)
    _first_alone(fabric, lambda: _refuse_taken(folder))
    data = open_boxes(source, place.root, place.fix_boxes)
    architecture = architecture_of(student, data.train.classes)
    pretrained = pretrained_word(student)
    manifest = {
        "format_version": RUN_FORMAT,
        "command": "detector",
        "source": lasting(source) if place.root is None else source,
        "root": None if place.root is None else str(place.root.expanduser().absolute()),
        "fix_boxes": place.fix_boxes,
        "teacher": None if teacher is None else lasting(teacher),
        "architecture": asdict(architecture),
        "pretrained": pretrained,
        "settings": asdict(settings),
        "versions": versions(),
    }

    found = None
    if teacher is not None and preflight:  # in every process: what the losses share, all have to compute
        found = run_preflight(teacher, architecture, pretrained, data, settings, place)

    def begin() -> None:
        if found is not None and found.fatal:
            raise DistilError(
                "the preflight found what makes distilling pointless: see the lines marked stop, or go on regardless "
                "with --no-preflight."
            )
        start_run(folder, manifest)

    _first_alone(fabric, begin)
    try:
        _run(folder, data, manifest, settings, place, resume_run=False)
    except Interrupted:
        raise
    except BaseException:
        if is_first() and not (folder / CHECKPOINT).exists():
            for name in (MANIFEST, LOG):
                (folder / name).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def _first_alone(fabric: Any, work: Callable[[], None]) -> None:
    """Let the first process do what only one may do, while the others wait.

    Raises: what `work` refuses, in the first process; SystemExit with the same status in the others.
    """
    refusal = None
    if fabric.is_global_zero:
        try:
            work()
        except DistilError as error:
            refusal = error
    refused = fabric.broadcast(refusal is not None)
    if refusal is not None:
        raise refusal
    if refused:
        raise SystemExit(2)


def _refuse_taken(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        raise DistilError(
            f"{folder} already holds a run. Go on with it: {_resume_command(folder)}; or choose another with --out."
        )
    if (folder / CHECKPOINT).exists():
        raise DistilError(f"{folder} holds {CHECKPOINT} of another run, without its {MANIFEST}: choose another folder.")


def _resume_command(folder: Path) -> str:
    return f"distil detector train --resume {shlex.quote(str(folder))}"


def _run(
    folder: Path,
    data: "DetectionSource",
    manifest: dict[str, Any],
    settings: DetectorSettings,
    place: PlaceFlags,
    *,
    resume_run: bool,
) -> None:
    from distil.detector.training import train_detector
    from distil.evaluate.precision import average_precision
    from distil.models.detectors import architecture_from_dict, load_detector, save_detector
    from distil.report.progress import both, show_progress

    architecture = architecture_from_dict(manifest["architecture"])
    teacher, teacher_classes = (
        (None, None) if manifest["teacher"] is None else adapter_named(manifest["teacher"], place)
    )
    weights = None
    if not (folder / CHECKPOINT).is_file():
        weights = first_weights(architecture, manifest["pretrained"], settings.seed)
    log = silent
    if is_first():
        at = None
        if resume_run:
            at = int(load_tensors(folder / CHECKPOINT)[1]["step"]) + 1 if (folder / CHECKPOINT).is_file() else 0
        log = EventLog(folder / LOG, at)
    title = f"{settings.knowledge if teacher is not None else 'plain'} {architecture.detector} on {data.train.name}"
    try:
        with show_progress(title) if is_first() else nullcontext(silent) as shown:
            file = train_detector(
                architecture,
                data.train,
                settings,
                out=folder,
                teacher=teacher,
                teacher_classes=teacher_classes,
                validation=data.val,
                measure=average_precision,
                weights=weights,
                resume=resume_run,
                device=device_named(place.device),
                events=both(log, shown),
                checkpoint_seconds=place.checkpoint_seconds,
            )
    except (KeyboardInterrupt, Interrupted) as stop:
        if not is_first():
            raise SystemExit(130) from stop
        command = _resume_command(folder)
        if (manifest["teacher"] or "").startswith("torchvision:"):
            command += " --download"
        raise Interrupted(f"{str(stop).partition(':')[0] or 'interrupted'}: go on with {command}") from stop
    if not is_first():
        return
    model, architecture, extra = load_detector(file)
    save_detector(model, architecture, folder / STUDENT, extra={**extra, "settings": asdict(settings)})
    if data.note:
        print(f"Note: {data.note}")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{folder / STUDENT}\n{count:,} weights, {len(architecture.classes)} classes")
    words = f"{shlex.quote(str(folder))} {shlex.quote(manifest['source'])}"
    words += "" if manifest["root"] is None else f" --root {shlex.quote(manifest['root'])}"
    words += " --fix-boxes" if manifest["fix_boxes"] else ""
    words += "" if data.test is not None else f" --split {'train' if data.val is None else 'val'}"
    print(f"Next:\n  distil detector evaluate {words}\n  distil detector show {words}")
