"""`distil detector ...`: the commands on detectors. Nothing heavy is imported before a command needs it."""

import os
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from distil.detector_presets import DETECTOR_METHODS, detector_preset, student_preset
from distil.errors import DistilError
from distil.flags import Device, console, device_named, nearest, option, scan, switch, versions
from distil.runs import (
    CHECKPOINT,
    LOG,
    MANIFEST,
    EventLog,
    Interrupted,
    load_tensors,
    read_manifest,
    silent,
    start_run,
    write_atomic,
)
from distil.settings import DetectorSettings, check_settings, detector_settings_from_dict

if TYPE_CHECKING:
    from distil.models.detectors import Architecture
    from distil.sources.detection import DetectionSet, DetectionSource

DetectorKind = Literal["faster-rcnn", "retinanet", "fcos"]
KINDS: tuple[DetectorKind, ...] = get_args(DetectorKind)

HELP = """\
usage: distil detector COMMAND ...

Train a small object detector to see what a large one sees.

  distil detector train SOURCE             a detector from labelled boxes: a teacher, or a student alone
  distil detector preflight TEACHER SOURCE is this teacher, on this data, worth distilling? Minutes, before hours
  distil detector distil TEACHER SOURCE    a student with the knowledge of TEACHER
  distil detector compare TEACHER SOURCE   students with and without a teacher, at equal budget, over seeds
  distil detector evaluate MODEL SOURCE    average precision, COCO's and PASCAL VOC's
  distil detector show FILE SOURCE         what a model finds, or a gallery of prototypes
  distil detector export MODEL             the weights for plain torchvision

  distil detector COMMAND --help           the flags of a command, with examples

SOURCE   scenes (embedded), scenes:N, coco:FOLDER, voc:FOLDER, yolo:FOLDER, or a folder of one of these
TEACHER  a run folder or .safetensors file of distil, or torchvision:NAME (with --download)

Start here:
  distil demo detector
"""

RUN_FORMAT = 1
STUDENT = "student.safetensors"
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
SEVERAL = {"--scale": 2, "--milestones": None, "--arms": None}
"""Flags of several values, and how many; None: any number."""

SourceWord = Annotated[
    str,
    arg(metavar="SOURCE", help="Images with boxes: scenes, coco:FOLDER, voc:FOLDER, yolo:FOLDER, or such a folder."),
]
ModelWord = Annotated[
    str, arg(metavar="MODEL", help="A run folder, a .safetensors file of distil, or torchvision:NAME.")
]


Root = Annotated[Path | None, option("DIR", "Folder that a relative SOURCE lies in.")]
FixBoxes = Annotated[FlagCreatePairsOff[bool], switch("Clip boxes that reach outside their image, drop empty ones.")]
Download = Annotated[FlagCreatePairsOff[bool], switch("Fetch pretrained weights that are named.")]
Split = Annotated[Literal["train", "val", "test"], arg(help="Which images of SOURCE.")]


@dataclass(frozen=True)
class StudentFlags:
    """The detector that is trained."""

    detector: DetectorKind = "faster-rcnn"
    """Its kind."""
    backbone: str = "resnet50"
    """A torchvision network (resnet18, resnet50, mobilenet_v3_large, ...), or a timm network after timm:."""
    pretrained: Annotated[
        str | None, option("FILE", "The backbone's first weights: a .safetensors file, or download.")
    ] = None
    head: Literal[1, 2] = 1
    """torchvision's heads: 2 are those of its ..._v2 detectors."""
    channels: int = 256
    """Channels of the feature pyramid."""
    min_size: int = 800
    """Shorter side of the resized image."""
    max_size: int = 1333
    """Its longest side."""
    norm: Literal["frozen", "batch", "group"] = "frozen"
    """Norms of the backbone. frozen needs pretrained weights; group trains from nothing."""
    finest: Annotated[int | None, option("STRIDE", "Stride of the finest level; the detector's own unless given.")] = (
        None
    )
    anchor: Annotated[float | None, option("PIXELS", "Side of the smallest anchor; 32 unless given.")] = None
    head_convs: int = 4
    """Convolutions in each tower of a one-stage head."""
    representation: int = 1024
    """Length of Faster R-CNN's vector of a box."""
    proposals: Annotated[int | None, option("N", "Boxes from its first stage; 2000 unless given (1000 to test).")] = (
        None
    )
    sampled: Annotated[int | None, option("N", "Of them train its second stage; 512 unless given.")] = None


@dataclass(frozen=True)
class DataFlags:
    """Where images and models come from."""

    root: Root = None
    fix_boxes: FixBoxes = False
    download: Download = False
    device: Device = "auto"


@dataclass(frozen=True)
class PlaceFlags(DataFlags):
    """Where images come from and results go."""

    out: Annotated[Path | None, option("DIR", "Run folder; runs/SOURCE-METHOD-DETECTOR-seedS unless given.")] = None
    checkpoint_seconds: float = 120.0
    """Time between checkpoints."""


@dataclass(frozen=True)
class RunFlags(PlaceFlags):
    """The same of a run that can go on."""

    resume: Annotated[
        Path | None, option("DIR", "Go on with the run in this folder; takes no SOURCE, TEACHER or settings.")
    ] = None


@dataclass(frozen=True)
class TrainFlags(RunFlags):
    """The same where no teacher has to be fetched."""

    download: tyro.conf.Suppress[tyro.conf.Fixed[bool]] = False


def detector_command(words: list[str]) -> None:
    """Run `distil detector WORDS`. Raises: DistilError for an unknown command; SystemExit from a help text."""
    import inspect

    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise DistilError(
            f"unknown command 'detector {name}'.{nearest(name, COMMANDS)} Commands: {', '.join(COMMANDS)}."
        )
    command = COMMANDS[name]
    text = "\n\n".join(part.replace("\n", "\n  ") for part in (inspect.getdoc(command) or "").split("\n\n"))
    if name in ("train", "distil") and any(word == "--resume" or word.startswith("--resume=") for word in rest):
        command = resume
    elif name in ("train", "distil", "compare", "preflight"):
        command = _with_presets(name, rest)
    if {"-h", "--help"} & set(rest):
        rest = ["--help"]  # tyro leaves out of a help text what it has already read
    tyro.cli(command, prog=f"distil detector {name}", description=text, args=rest)


def _with_presets(name: str, words: list[str]) -> Any:
    """The command with defaults that suit its SOURCE, --method and --detector."""
    place = 0 if name == "train" else 1
    positional, values = scan(words, _switches(), SEVERAL, wanted=place + 1)
    source = positional[place:][:1]
    key = "scenes" if source and source[0].split(":")[0] == "scenes" else "custom"
    method = "plain" if name == "train" else values.get("--method", "gkd")
    kind = values.get("--detector", "")
    kind = kind if kind in KINDS else KINDS[0]
    settings = detector_preset(method, key)
    student = StudentFlags(**student_preset(kind, key, teacher=name == "train"))
    return {
        "train": _train_command(student, settings),
        "distil": _distil_command(student, settings),
        "compare": _compare_command(student, settings),
        "preflight": _preflight_command(student, settings),
    }[name]


def _switches() -> set[str]:
    """Flags that take no value."""
    names = [field.name.replace("_", "-") for field in fields(DetectorSettings) if field.type is bool]
    return {"-h", "--help", "--download", "--fix-boxes"} | {
        f"--{negation}{name}" for name in (*names, "preflight") for negation in ("", "no-")
    }


MethodWord = Annotated[
    str, arg(metavar="NAME", help=f"Whose values the settings start from: {', '.join(DETECTOR_METHODS)}.")
]


def _train_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind, flags = PlainFlags, PlainFlags(**asdict(defaults))

    def train_with(
        source: Positional[SourceWord],
        place: Annotated[TrainFlags, arg(name="")],
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        _start(source, None, student, replace(_plain(settings), method="plain", knowledge="none"), place)

    return train_with


def _distil_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind, flags = DetectorFlags, DetectorFlags(**asdict(defaults))

    def distil_with(
        teacher: Annotated[Positional[str], arg(metavar="TEACHER", help="A run folder, a file, or torchvision:NAME.")],
        source: Positional[SourceWord],
        place: Annotated[RunFlags, arg(name="")],
        method: MethodWord = defaults.method,
        preflight: Annotated[
            bool, arg(help="Look at teacher, data and losses first, and stop if they make no sense.")
        ] = True,
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        chosen = replace(_plain(settings), method=method)
        _check_taught(chosen)
        _start(source, teacher, student, chosen, place, preflight=preflight)

    return distil_with


def _preflight_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind, flags = DetectorFlags, DetectorFlags(**asdict(defaults))

    def preflight_with(
        teacher: Annotated[Positional[str], arg(metavar="TEACHER", help="A run folder, a file, or torchvision:NAME.")],
        source: Positional[SourceWord],
        place: Annotated[DataFlags, arg(name="")],
        method: MethodWord = defaults.method,
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        chosen = replace(_plain(settings), method=method)
        _check_taught(chosen)
        data = _open(source, place.root, place.fix_boxes)
        pretrained = _pretrained(student)
        found = _preflight(teacher, _architecture(student, data.train.classes), pretrained, data, chosen, place)
        if found.fatal:
            raise DistilError("distilling from this teacher makes no sense as it is: see the lines marked stop.")

    return preflight_with


def _compare_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind, flags = ArmFlags, ArmFlags(**asdict(defaults))

    def compare_with(
        teacher: Annotated[Positional[str], arg(metavar="TEACHER", help="A run folder, a file, or torchvision:NAME.")],
        source: Positional[SourceWord],
        place: Annotated[PlaceFlags, arg(name="")],
        arms: Annotated[
            tuple[str, ...], arg(metavar="KNOWLEDGE", help="Knowledge of each arm beside the plain student.")
        ] = ("gkd",),
        seeds: Annotated[int, arg(metavar="N", help="Runs of each arm, which begin with the same weights.")] = 3,
        method: MethodWord = defaults.method,
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        _compare(teacher, source, arms, seeds, student, replace(_plain(settings), method=method), place)

    return compare_with


Fixed = tyro.conf.Suppress[tyro.conf.Fixed[str]]


@dataclass(frozen=True)
class DetectorFlags(DetectorSettings):
    method: Fixed = "gkd"


@dataclass(frozen=True)
class ArmFlags(DetectorFlags):
    knowledge: Fixed = "gkd"


TEACHING = ("knowledge", "global_weight", "foreground_weight", "background_weight", "soft_weight", "temperature")
TEACHING += ("decay", "reliability", "projection", "penalty", "use_global", "global_levels", "local_scale")
TEACHING += ("adapting_kernel", "prototypes", "prototype_start", "prototype_every", "prototype_features")
TEACHING += ("prototype_images", "prototype_side", "prototype_alpha", "prototype_quantile", "prototype_bandwidth")
TEACHING += ("prototype_unique", "prototype_orthogonal", "teacher_floor")
"""Settings that say nothing to a detector without a teacher."""

PlainFlags = make_dataclass(
    "PlainFlags",
    [
        (each.name, tyro.conf.Suppress[tyro.conf.Fixed[each.type]], field(default=each.default))
        for each in fields(DetectorSettings)
        if each.name in ("method", *TEACHING)
    ],
    bases=(DetectorSettings,),
    frozen=True,
)
"""The settings of a detector that is trained alone."""


def _plain(flags: DetectorSettings) -> DetectorSettings:
    return DetectorSettings(**{name: getattr(flags, name) for name in asdict(flags)})


def _check_taught(settings: DetectorSettings) -> None:
    if settings.method == "plain" or settings.knowledge == "none":
        flag = "--method plain" if settings.method == "plain" else "--knowledge none"
        raise DistilError(
            f"{flag} learns nothing from TEACHER: leave {flag} out, or take distil detector train SOURCE."
        )


# ------------------------------------------------------------------------------------------------ train and distil


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
    gkd,pkd=0.5 weighs one. A preflight looks at teacher, data and losses first. The student is a plain torchvision
    detector: nothing of the teacher is left in it.

    Examples:
    distil detector distil runs/scenes-plain-faster-rcnn-seed0 scenes
    distil detector distil teacher.safetensors voc:data/VOCdevkit --knowledge gkd,pkd --backbone resnet18
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
        if _is_first():
            print(f"This run is finished: {resume / STUDENT}")
        return
    place = PlaceFlags(None, manifest["fix_boxes"], download, device, resume, checkpoint_seconds)
    settings = detector_settings_from_dict(manifest["settings"])
    root = None if manifest["root"] is None else Path(manifest["root"])
    _run(resume, _open(manifest["source"], root, manifest["fix_boxes"]), manifest, settings, place, resume_run=True)


def _start(
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
    folder = place.out or Path("runs") / _folder_name(source, label, student.detector, settings.seed)
    fabric = make_fabric(device_named(place.device), settings.precision)
    _first_alone(fabric, lambda: _refuse_taken(folder))
    data = _open(source, place.root, place.fix_boxes)
    architecture = _architecture(student, data.train.classes)
    pretrained = _pretrained(student)
    manifest = {
        "format_version": RUN_FORMAT,
        "command": "detector",
        "source": _lasting(source) if place.root is None else source,
        "root": None if place.root is None else str(place.root.expanduser().absolute()),
        "fix_boxes": place.fix_boxes,
        "teacher": None if teacher is None else _lasting(teacher),
        "architecture": asdict(architecture),
        "pretrained": pretrained,
        "settings": asdict(settings),
        "versions": versions(),
    }

    found = None
    if teacher is not None and preflight:  # in every process: what the losses share, all have to compute
        found = _preflight(teacher, architecture, pretrained, data, settings, place)

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
        if _is_first() and not (folder / CHECKPOINT).exists():
            for name in (MANIFEST, LOG):
                (folder / name).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def _is_first() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


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
    teacher, teacher_classes = (None, None) if manifest["teacher"] is None else _teacher(manifest["teacher"], place)
    weights = None
    if not (folder / CHECKPOINT).is_file():
        weights = _first_weights(architecture, manifest["pretrained"], settings.seed)
    log = silent
    if _is_first():
        at = None
        if resume_run:
            at = int(load_tensors(folder / CHECKPOINT)[1]["step"]) + 1 if (folder / CHECKPOINT).is_file() else 0
        log = EventLog(folder / LOG, at)
    title = f"{settings.knowledge if teacher is not None else 'plain'} {architecture.detector} on {data.train.name}"
    try:
        with show_progress(title) if _is_first() else nullcontext(silent) as shown:
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
        if not _is_first():
            raise SystemExit(130) from stop
        command = _resume_command(folder)
        if (manifest["teacher"] or "").startswith("torchvision:"):
            command += " --download"
        raise Interrupted(f"{str(stop).partition(':')[0] or 'interrupted'}: go on with {command}") from stop
    if not _is_first():
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


# ---------------------------------------------------------------------------------------- preflight and comparison


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
    student of the same seed, and its spread over the seeds. What is done is kept: the same command goes on.

    Examples:
    distil detector compare runs/scenes-plain-faster-rcnn-seed0 scenes --arms gkd pkd gkd,pkd --seeds 3
    """


def _preflight(
    teacher: str,
    architecture: "Architecture",
    pretrained: str | None,
    data: "DetectionSource",
    settings: DetectorSettings,
    place: DataFlags,
) -> Any:
    from distil.detector.preflight import preflight as look
    from distil.evaluate.precision import average_precision

    adapter, classes = _teacher(teacher, place)
    found = look(
        architecture,
        adapter,
        data.train,
        settings,
        measure=average_precision,
        teacher_classes=classes,
        weights=_first_weights(architecture, pretrained, settings.seed),
        device=device_named(place.device),
    )
    if _is_first():
        print(found.describe(), flush=True)
    return found


def _compare(
    teacher: str,
    source: str,
    arms: tuple[str, ...],
    seeds: int,
    student: StudentFlags,
    settings: DetectorSettings,
    place: PlaceFlags,
) -> None:
    from distil.detector.comparing import compare_detectors
    from distil.evaluate.precision import average_precision
    from distil.report.progress import show_progress

    if seeds < 1:
        raise DistilError(f"--seeds is {seeds}: it must be at least 1.")
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1":
        raise DistilError("a comparison runs in one process: start it without torchrun.")
    data = _open(source, place.root, place.fix_boxes)
    judged = data.test or data.val
    if judged is None:
        raise DistilError(f"{source} has neither test nor validation images to compare on: give such a split.")
    adapter, classes = _teacher(teacher, place)
    folder = place.out or Path("runs") / _folder_name(source, "compare", student.detector, settings.seed)
    contenders = {"plain": replace(settings, method="plain", knowledge="none")}
    contenders |= {knowledge: replace(settings, knowledge=knowledge) for knowledge in arms}
    architecture = _architecture(student, data.train.classes)
    pretrained = _pretrained(student)
    with show_progress(f"compare on {data.train.name}") as shown:
        made = compare_detectors(
            architecture,
            adapter,
            data.train,
            judged,
            contenders,
            seeds=range(settings.seed, settings.seed + seeds),
            out=folder,
            teacher_classes=classes,
            validation=data.val if data.test is not None else None,
            measure=average_precision,
            weights=None if pretrained is None else lambda seed: _first_weights(architecture, pretrained, seed),
            device=device_named(place.device),
            events=shown,
            checkpoint_seconds=place.checkpoint_seconds,
        )
    print(made.to_markdown())
    print(f"Table: {folder}")


# ------------------------------------------------------------------------------------------ evaluate, show, export


def evaluate(
    model: Positional[ModelWord],
    source: Positional[SourceWord],
    split: Split = "test",
    root: Root = None,
    fix_boxes: FixBoxes = False,
    download: Download = False,
    device: Device = "auto",
    json: Annotated[Path | None, option("OUT", "Write the figures here as JSON.")] = None,
) -> None:
    """Average precision of MODEL on the images of SOURCE.

    COCO: AP over overlaps .50 to .95, AP50, AP75, and by size of object; PASCAL VOC: AP50. In percent.

    Examples:
    distil detector evaluate runs/scenes-gkd-faster-rcnn-seed0 scenes
    distil detector evaluate torchvision:retinanet_resnet50_fpn coco:data/coco --split val --download
    """
    from distil.detector.preparing import class_match, in_data_labels
    from distil.detector.training import predict
    from distil.evaluate.precision import average_precision

    place = DataFlags(root, fix_boxes, download, device)
    data = _split(_open(source, root, fix_boxes), split, source)
    adapter, classes = _teacher(model, place)
    match = class_match(adapter, classes, data)
    adapter.model.to(device_named(device))
    found = in_data_labels(predict(adapter, data), match)
    scores = average_precision(found, [data.annotations(i) for i in range(len(data))], data.classes)
    if not match.complete:
        print(f"Note: {match.describe()}")
    console().print(_precision_table({_short(model): scores}, data))
    if json is not None:
        import json as text

        row = {"model": model, "source": source, "split": split, **scores.to_dict(), "versions": versions()}
        write_atomic(json, lambda temporary: temporary.write_text(text.dumps(row, indent=2) + "\n"))
        print(f"Scores: {json}")


def show(
    file: Annotated[
        Positional[str], arg(metavar="FILE", help="A model as for evaluate, or a file of prototypes (.safetensors).")
    ],
    source: Positional[SourceWord],
    split: Annotated[
        Literal["train", "val", "test"] | None, option("SPLIT", "test for a model, train for prototypes unless given.")
    ] = None,
    images: Annotated[int, arg(metavar="N", help="Images shown.")] = 6,
    least_score: Annotated[float, arg(metavar="SCORE", help="Detections below it are not drawn.")] = 0.5,
    out: Annotated[Path | None, option("PNG", "Picture; beside FILE unless given.")] = None,
    root: Root = None,
    fix_boxes: FixBoxes = False,
    download: Download = False,
    device: Device = "auto",
) -> None:
    """Draw what a model finds beside the true boxes, or the objects that became prototypes.

    Examples:
    distil detector show runs/scenes-gkd-faster-rcnn-seed0 scenes
    distil detector show runs/scenes-gkd-faster-rcnn-seed0/prototypes-0004.safetensors scenes
    """
    from distil.report.pictures import save_figure

    if images < 1:
        raise DistilError(f"--images is {images}: it must be at least 1.")
    opened = _open(source, root, fix_boxes)
    path = Path(file)
    if path.suffix == ".safetensors" and path.is_file() and load_tensors(path)[1].get("kind") == "prototypes":
        from distil.detector.prototypes import PrototypeSet
        from distil.report.detections import draw_prototypes

        prototypes, data = PrototypeSet.load(path), _split(opened, split or "train", source)
        if prototypes.identifiers and not set(prototypes.identifiers) <= {data.identifier(i) for i in range(len(data))}:
            raise DistilError(f"{path} was made from other images than the {split or 'train'} images of {source}.")
        places = {data.identifier(i): i for i in range(len(data))}
        named = dict(zip(prototypes.images.tolist(), prototypes.identifiers, strict=True))
        print(prototypes.describe())
        for level, stride in enumerate(prototypes.strides):
            figure = draw_prototypes(prototypes, lambda index: data.image(places[named[index]]), level)
            picture = (out or path).with_suffix(f".stride{stride}.png")
            save_figure(figure, picture)
            print(f"Picture: {picture}")
        return
    from distil.detector.preparing import class_match, in_data_labels
    from distil.detector.training import predict
    from distil.report.detections import draw_detections

    data = _split(opened, split or "test", source)
    some = data.subset(range(min(images, len(data))))
    adapter, classes = _teacher(file, DataFlags(root, fix_boxes, download, device))
    adapter.model.to(device_named(device))
    found = in_data_labels(predict(adapter, some), class_match(adapter, classes, data))
    truth = [some.annotations(i) for i in range(len(some))]
    columns = {"true": [{"boxes": one.boxes, "labels": one.labels} for one in truth], _short(file): found}
    beside = path.with_suffix(".png") if path.is_file() else Path(f"{_short(file)}.png")
    picture = out or (path / "detections.png" if path.is_dir() else beside)
    save_figure(
        draw_detections([some.image(i) for i in range(len(some))], columns, data.classes, least_score=least_score),
        picture,
    )
    print(f"Picture: {picture}")


def export(
    model: Annotated[Positional[str], arg(metavar="MODEL", help="A run folder, or a .safetensors file of distil.")],
    out: Annotated[Path, arg(metavar="FILE", help="File to write (.safetensors).")],
) -> None:
    """Write the weights of MODEL for plain torchvision, and print the lines that load them.

    Examples:
    distil detector export runs/scenes-gkd-faster-rcnn-seed0 --out student.safetensors
    """
    from distil.models.detectors import load_detector

    if model.startswith("torchvision:"):
        raise DistilError(f"{model} is torchvision's own already: give a run folder or a .safetensors file of distil.")
    if out.suffix != ".safetensors":
        raise DistilError(f"--out {out}: weights are written as safetensors: give a name that ends in .safetensors.")
    from safetensors.torch import save

    detector, architecture, _ = load_detector(_model_file(model, "a run folder or a .safetensors file of distil"))
    data = save({name: tensor.contiguous() for name, tensor in detector.state_dict().items()})
    write_atomic(out, lambda temporary: temporary.write_bytes(data))
    print(f"Written: {out}")
    print("Load it, strictly, into a detector of the same architecture:\n")
    print("    from safetensors.torch import load_file")
    print("    from distil import Architecture, build_detector")
    print(f"    detector = build_detector({architecture!r}, seed=0)")
    print(f"    detector.load_state_dict(load_file({str(out)!r}), strict=True)  # a plain {type(detector).__name__}")


# --------------------------------------------------------------------------------------------------------- helpers


def _architecture(student: StudentFlags, classes: tuple[str, ...]) -> "Architecture":
    from distil.models.detectors import Architecture, check_architecture

    values = {name: value for name, value in asdict(student).items() if name not in ("pretrained", "head")}
    architecture = Architecture(classes=classes, version=student.head, **values)
    check_architecture(architecture)
    return architecture


def _pretrained(student: StudentFlags) -> str | None:
    """What the --pretrained word means from any working folder."""
    if student.pretrained is None:
        if student.norm == "frozen" and _is_first():
            print("Note: random weights with --norm frozen have no norms at all: --norm group trains from nothing.")
        return None
    if student.pretrained == "download":
        return "download"
    path = Path(student.pretrained)
    if not path.is_file():
        raise DistilError(f"--pretrained {path}: no such file. Give a .safetensors file, or download.")
    return str(path.absolute())


def _first_weights(architecture: "Architecture", pretrained: str | None, seed: int) -> Any:
    """The student's first weights where its backbone's are given; None where all are random."""
    from distil.models.detectors import build_detector

    if pretrained is None:
        return None
    return build_detector(architecture, seed=seed, backbone_weights=pretrained).state_dict()


def _model_file(word: str, accepted: str = "a run folder, a .safetensors file, or torchvision:NAME") -> Path:
    """The weights that a MODEL word means, if it is a folder or a file."""
    path = Path(word)
    if path.is_dir():
        for name in (STUDENT, "best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise DistilError(f"{path} holds no detector yet: finish its run, or give a .safetensors file.")
    if not path.is_file():
        raise DistilError(f"no such file or folder: {path}. Give {accepted}.")
    return path


def _teacher(word: str, place: DataFlags) -> tuple[Any, tuple[str, ...]]:
    """The adapter of a MODEL word, and the names of its classes."""
    from distil.detector.adapters import adapt
    from distil.models.detectors import load_detector

    if word.startswith("torchvision:"):
        from distil.models.pretrained import torchvision_detector

        if not place.download:
            raise DistilError(f"{word} has to be fetched: allow it with --download (kept by torch for the next time).")
        model, classes = torchvision_detector(word.removeprefix("torchvision:"), "download")
        return adapt(model), classes
    model, architecture, _ = load_detector(_model_file(word))
    return adapt(model), architecture.classes


def _open(source: str, root: Path | None, fix_boxes: bool) -> "DetectionSource":
    from distil.sources.detection import open_detection

    return open_detection(source, root=root, fix_boxes=fix_boxes)


def _split(data: "DetectionSource", split: str, source: str) -> "DetectionSet":
    chosen = {"train": data.train, "val": data.val, "test": data.test}[split]
    if chosen is None:
        having = [name for name in ("train", "val", "test") if getattr(data, name) is not None]
        raise DistilError(f"{source} has no {split} images: give --split {' or '.join(having)}.")
    return chosen


def _precision_table(rows: dict[str, Any], data: "DetectionSet") -> Any:
    from rich.table import Table

    first = next(iter(rows.values()))
    table = Table(title=f"Average precision (%) on {first.images} images, {first.objects} objects of {data.name}")
    names = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "small": "small", "medium": "medium", "large": "large"}
    names["VOC AP50"] = "voc50"
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right")
    for model, scores in rows.items():
        table.add_row(model, *(_number(getattr(scores, field)) for field in names.values()))
    if len(rows) == 1 and len(first.per_class) <= 20:
        table.caption = "AP by class: " + ", ".join(f"{name} {_number(ap)}" for name, ap in first.per_class.items())
    return table


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.1f}"


def _short(word: str) -> str:
    path = Path(word)
    return path.parent.name if path.name == STUDENT else path.name.removesuffix(".safetensors").replace(":", "-")


def _folder_name(source: str, label: str, detector: str, seed: int) -> str:
    name = source.removeprefix("coco:").removeprefix("voc:").removeprefix("yolo:")
    stem = "scenes" if source.split(":")[0] == "scenes" else Path(name).absolute().name
    parts = f"{stem}-{label}-{detector}-seed{seed}"
    return "".join(letter if letter.isalnum() or letter in "-_.," else "-" for letter in parts)


def _lasting(word: str) -> str:
    """A SOURCE or TEACHER word that means the same from any working folder."""
    kind, colon, rest = word.partition(":")
    if colon and kind in ("coco", "voc", "yolo") and Path(rest).exists():
        return f"{kind}:{Path(rest).absolute()}"
    return str(Path(word).absolute()) if kind != "scenes" and Path(word).exists() else word


COMMANDS: dict[str, Any] = {
    "train": train,
    "preflight": preflight,
    "distil": distil,
    "compare": compare,
    "evaluate": evaluate,
    "show": show,
    "export": export,
}
