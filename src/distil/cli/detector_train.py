"""`distil detector train`: start a run, continue it, finish it."""

import shlex
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from distil.checks import shown
from distil.cli.detector_compare import run_preflight
from distil.cli.detector_flags import Download, PlaceFlags, StudentFlags
from distil.cli.detector_memory import check_memory
from distil.cli.detector_words import (
    STUDENT,
    adapter_named,
    architecture_of,
    first_weights,
    folder_name,
    lasting,
    open_boxes,
    pretrained_word,
    refuse_among_data,
    tell_notes,
)
from distil.cli.flags import Device, device_named, versions
from distil.detector.settings import DetectorSettings, detector_settings_from_dict
from distil.errors import DistilError
from distil.fields import to_dict
from distil.files import remove_unfinished
from distil.locks import only_writer
from distil.processes import is_first
from distil.runs import (
    CHECKPOINT,
    LOG,
    MANIFEST,
    EventLog,
    Interrupted,
    has_checkpoint,
    read_manifest,
    silent,
    start_run,
)
from distil.stopping import number_of

if TYPE_CHECKING:
    from distil.data.detection.detection_set import DetectionSource

RUN_FORMAT = 2
"""Version of run.json; 1 is that of distil 0.1, with flat settings."""
RECORDED = {
    "source": (str,),
    "root": (str, type(None)),
    "fix_boxes": (bool,),
    "teacher": (str, type(None)),
    "architecture": (dict,),
    "pretrained": (str, type(None)),
    "settings": (dict,),
}
"""What run.json must hold for a run to continue, and its types."""


def train() -> None:
    """Train a detector on the boxes of SOURCE: alone, or as the student of a teacher.

    With --teacher it learns from what the teacher sees as well: --loss names how, and the settings of distillation are
    listed by distil detector train SOURCE --teacher MODEL --help. A preflight looks at teacher, data and losses first.
    The student is a plain torchvision detector: nothing of the teacher is left in it.

    The run folder receives run.json (all settings), log.jsonl (every event), checkpoint.safetensors, last.safetensors
    and best.safetensors. The best epoch is chosen on validation images, never on test images. Ctrl-C saves; --resume
    DIR continues. Several GPUs: torchrun --nproc-per-node N -m distil detector train ...

    Examples:
    distil detector train scenes
    distil detector train coco:data/coco --detector retinanet --backbone resnet101 --pretrained download
    distil detector train scenes --teacher runs/scenes-plain-faster-rcnn-seed0
    distil detector train voc:data/VOCdevkit --teacher teacher.safetensors --loss gkd,pkd=0.05 --backbone resnet18
    distil detector train --resume runs/scenes-plain-faster-rcnn-seed0
    """


def resume(
    resume: Annotated[Path, arg(metavar="DIR", help="Run folder; run.json there holds the settings.")],
    device: Device = "auto",
    download: Download = False,
    checkpoint_seconds: float = 120.0,
) -> None:
    from distil.processes import make_fabric

    manifest, settings = _recorded(resume)
    if (resume / STUDENT).is_file():
        if is_first():
            print(f"This run is finished: {resume / STUDENT}")
        return
    place = PlaceFlags(None, manifest["fix_boxes"], download, device, out=resume, checkpoint_seconds=checkpoint_seconds)
    root = None if manifest["root"] is None else Path(manifest["root"])
    fabric = make_fabric(device_named(device), settings.training.precision)
    with ExitStack() as stack:
        _first_alone(fabric, lambda: stack.enter_context(only_writer(resume)))
        data = open_boxes(manifest["source"], root, manifest["fix_boxes"])
        _run(resume, data, manifest, settings, place, resume_run=True)


def _recorded(folder: Path) -> tuple[dict[str, Any], DetectorSettings]:
    """What run.json holds, and its settings. Raises: DistilError that names the file and the field that is wrong."""
    from distil.networks.detectors import architecture_from_dict, check_architecture

    manifest = read_manifest(folder)
    if manifest.get("command") != "detector" or "format_version" not in manifest:
        raise DistilError(f"{folder / MANIFEST} does not describe a run of a detector: give the folder of one.")
    version = manifest["format_version"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DistilError(_damaged(folder, f"'format_version' is {shown(version)}"))
    if version > RUN_FORMAT:
        raise DistilError(f"{folder} was made by a newer distil: upgrade with pip install -U distil")
    if broken := [name for name, types in RECORDED.items() if not isinstance(manifest.get(name, ...), types)]:
        raise DistilError(_damaged(folder, f"{broken[0]!r} is missing or wrong"))
    try:
        settings = detector_settings_from_dict(manifest["settings"])
    except DistilError as error:
        reason = str(error).removeprefix("the settings in the saved run cannot be used: ").rstrip(".")
        raise DistilError(_damaged(folder, f"'settings' cannot be used ({reason})")) from error
    try:
        check_architecture(architecture_from_dict(manifest["architecture"]))
    except DistilError as error:
        raise DistilError(_damaged(folder, f"'architecture' cannot be used ({str(error).rstrip('.')})")) from error
    return manifest, settings


def _damaged(folder: Path, what: str) -> str:
    return f"{folder / MANIFEST} is damaged, {what}: start the run again in another folder."


def start_training(
    source: str,
    teacher: str | None,
    student: StudentFlags,
    settings: DetectorSettings,
    place: PlaceFlags,
    *,
    preflight: bool = True,
) -> None:
    from distil.processes import make_fabric

    label = settings.method if teacher is None or settings.method != "gkd" else settings.distillation.loss
    folder = place.out or Path("runs") / folder_name(source, label, student.detector, settings.training.seed)
    fabric = make_fabric(device_named(place.device), settings.training.precision)
    with ExitStack() as stack:

        def take() -> None:
            refuse_among_data(folder, source, place.root)
            stack.enter_context(only_writer(folder))
            _refuse_taken(folder)

        _first_alone(fabric, take)
        _start(fabric, folder, source, teacher, student, settings, place, preflight=preflight)


def _start(
    fabric: Any,
    folder: Path,
    source: str,
    teacher: str | None,
    student: StudentFlags,
    settings: DetectorSettings,
    place: PlaceFlags,
    *,
    preflight: bool,
) -> None:
    """Open the data, look at teacher and losses, make the run folder, and train."""
    data = open_boxes(source, place.root, place.fix_boxes)
    architecture = architecture_of(student, data.train)
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
        "settings": to_dict(settings),
        "read": None if data.inventory is None else data.inventory.to_dict(),
        "versions": versions(),
    }

    found = None
    taught_by = None if teacher is None else adapter_named(teacher, place)
    check_memory(architecture, data.train, settings, place, taught_by=taught_by)
    if taught_by is not None and preflight:  # in every process: what the losses share, all have to compute
        found = run_preflight(taught_by, architecture, pretrained, data, settings, place)

    def begin() -> None:
        if found is not None and found.fatal:
            raise DistilError(
                "the preflight found what makes distilling pointless: see the lines marked stop, or continue "
                "regardless with --no-preflight."
            )
        if (folder / MANIFEST).exists():
            _clear_beginning(folder)
        start_run(folder, manifest)

    _first_alone(fabric, begin)
    try:
        _run(folder, data, manifest, settings, place, resume_run=False)
    except Interrupted:
        raise
    except BaseException:
        if is_first() and not has_checkpoint(folder):
            _clear_beginning(folder)
        raise


def _first_alone(fabric: Any, work: Callable[[], object]) -> None:
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
    """Refuse a folder with a run that can be continued or is done. What a run left that ended before its first
    checkpoint gives way."""
    checkpoint = has_checkpoint(folder)
    if checkpoint and not (folder / MANIFEST).exists():
        raise DistilError(f"{folder} holds {CHECKPOINT} of another run, without its {MANIFEST}: choose another folder.")
    if checkpoint or ((folder / MANIFEST).exists() and not _only_begun(folder)):
        raise DistilError(
            f"{folder} already holds a run. Continue it with: {_resume_command(folder)}; or choose another with --out."
        )


def _only_begun(folder: Path) -> bool:
    """Whether a run of a detector lies there of which nothing can be used: no weights, and no checkpoint."""
    if any(not path.name.startswith("prototypes-") for path in folder.glob("*.safetensors")):
        return False
    try:
        return read_manifest(folder).get("command") == "detector"
    except DistilError:
        return False


def _clear_beginning(folder: Path) -> None:
    """Remove what a run left that ended before its first checkpoint."""
    for path in (folder / MANIFEST, folder / LOG, *folder.glob("prototypes-*.safetensors")):
        path.unlink(missing_ok=True)
    remove_unfinished(folder)


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
    from distil.detector.training.train import train_detector
    from distil.evaluation.precision import average_precision
    from distil.networks.detectors import architecture_from_dict, load_detector, save_detector
    from distil.report.progress import both, show_progress

    architecture = architecture_from_dict(manifest["architecture"])
    teacher, teacher_classes = (
        (None, None) if manifest["teacher"] is None else adapter_named(manifest["teacher"], place)
    )
    weights = None
    if not has_checkpoint(folder):
        weights = first_weights(architecture, manifest["pretrained"], settings.training.seed)
    log = EventLog(folder / LOG, resumed=resume_run) if is_first() else silent
    title = (
        f"{settings.distillation.loss if teacher is not None else 'plain'} {architecture.detector} on {data.train.name}"
    )
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
                events=both(log, tell_notes if is_first() else silent, shown),
                checkpoint_seconds=place.checkpoint_seconds,
            )
    except (KeyboardInterrupt, Interrupted) as stop:
        if not is_first():
            raise SystemExit(128 + number_of(stop)) from stop
        command = _resume_command(folder)
        if (manifest["teacher"] or "").startswith("torchvision:"):
            command += " --download"
        where = str(stop).partition(":")[0] if isinstance(stop, Interrupted) else "interrupted"
        raise Interrupted(f"{where}: continue with {command}", number_of(stop)) from stop
    if not is_first():
        return
    model, architecture, extra = load_detector(file)
    save_detector(model, architecture, folder / STUDENT, extra={**extra, "settings": to_dict(settings)})
    if data.note:
        print(f"Note: {data.note}")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{folder / STUDENT}\n{count:,} weights, {len(architecture.classes)} classes")
    words = f"{shlex.quote(str(folder))} {shlex.quote(manifest['source'])}"
    words += "" if manifest["root"] is None else f" --root {shlex.quote(manifest['root'])}"
    words += " --fix-boxes" if manifest["fix_boxes"] else ""
    words += "" if data.test is not None else f" --split {'train' if data.val is None else 'val'}"
    print(f"Next:\n  distil detector evaluate {words}\n  distil detector show {words}")
