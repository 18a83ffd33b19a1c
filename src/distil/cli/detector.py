"""`distil detector ...`: which command, with defaults that suit its words. Nothing heavy is imported before it runs."""

import shlex
from dataclasses import replace
from typing import Annotated, Any

from tyro.conf import Positional, arg

from distil.cli.detector_compare import compare, preflight, run_comparison, run_preflight
from distil.cli.detector_flags import (
    COMPARED,
    KINDS,
    PLAIN,
    SEVERAL,
    TAUGHT,
    DataFlags,
    MethodWord,
    PlaceFlags,
    RunFlags,
    SourceWord,
    StudentFlags,
    TrainFlags,
    settings_class,
)
from distil.cli.detector_memory import check_memory
from distil.cli.detector_models import evaluate, export, show
from distil.cli.detector_train import resume, start_training, train
from distil.cli.detector_words import adapter_named, architecture_of, open_boxes, pretrained_word
from distil.cli.flags import nearest, option, parse, scan
from distil.cli.settings_flags import from_flags, switches
from distil.detector.presets import detector_preset, student_preset
from distil.detector.settings import DetectorSettings
from distil.errors import DistilError
from distil.runs import Interrupted
from distil.stopping import number_of

HELP = """\
usage: distil detector COMMAND ...

Train a small object detector to see what a large one sees.

  distil detector train SOURCE             a detector from labelled boxes; with --teacher MODEL, a student of it
  distil detector preflight TEACHER SOURCE is this teacher, on this data, worth distilling? Minutes, before hours
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


def detector_command(words: list[str]) -> None:
    """Run `distil detector WORDS`. Raises: DistilError for an unknown command; SystemExit from a help text."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    name, rest = words[0], words[1:]
    _refuse_old_words(name, rest)
    if name not in COMMANDS:
        raise DistilError(
            f"unknown command 'detector {name}'.{nearest(name, COMMANDS)} Commands: {', '.join(COMMANDS)}."
        )
    command = COMMANDS[name]
    if name == "train" and any(word == "--resume" or word.startswith("--resume=") for word in rest):
        command = resume
    elif name in ("train", "compare", "preflight"):
        command = _with_presets(name, rest)
    try:
        parse(command, f"detector {name}", rest, COMMANDS[name])
    except (KeyboardInterrupt, Interrupted) as stop:
        if name != "compare":
            raise
        where = str(stop).partition(": ")[0] if isinstance(stop, Interrupted) else "interrupted"
        command = shlex.join(["distil", "detector", *words])
        raise Interrupted(f"{where}: continue with {command}", number_of(stop)) from stop


def _with_presets(name: str, words: list[str]) -> Any:
    """The command with defaults that suit its SOURCE, --method and --detector."""
    place = 0 if name == "train" else 1
    positional, values = scan(words, _switches(), SEVERAL, wanted=place + 1)
    source = positional[place:][:1]
    key = "custom" if "--pretrained" in values else "scratch"
    key = "scenes" if source and source[0].split(":")[0] == "scenes" else key
    alone = name == "train" and "--teacher" not in values
    method = "plain" if alone else values.get("--method", "gkd")
    kind = values.get("--detector", "")
    kind = kind if kind in KINDS else KINDS[0]
    settings = detector_preset(method, key)
    student = StudentFlags(**student_preset(kind, key, teacher=alone))
    return {
        "train": _train_command(student, settings) if alone else _distil_command(student, settings),
        "compare": _compare_command(student, settings),
        "preflight": _preflight_command(student, settings),
    }[name]


def _switches() -> set[str]:
    """Flags that take no value."""
    others = {"-h", "--help", "--download", "--fix-boxes"}
    paired = {f"--{negation}{name}" for name in ("preflight", "memory-check") for negation in ("", "no-")}
    return others | paired | switches(DetectorSettings())


def _train_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind = settings_class(defaults, PLAIN)
    flags = kind()

    def train_with(
        source: Positional[SourceWord],
        place: Annotated[TrainFlags, arg(name="")],
        teacher: Annotated[
            str | None, option("MODEL", "Learn from this detector as well: a run folder, a file, or torchvision:NAME.")
        ] = None,
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        start_training(source, None, student, replace(from_flags(defaults, settings), method="plain"), place)

    return train_with


def _distil_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind = settings_class(defaults, TAUGHT)
    flags = kind()

    def distil_with(
        source: Positional[SourceWord],
        teacher: Annotated[str, arg(metavar="MODEL", help="The teacher: a run folder, a file, or torchvision:NAME.")],
        place: Annotated[RunFlags, arg(name="")],
        method: MethodWord = defaults.method,
        preflight: Annotated[
            bool, arg(help="Look at teacher, data and losses first, and stop if they make no sense.")
        ] = True,
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        chosen = replace(from_flags(defaults, settings), method=method)
        _check_taught(chosen)
        start_training(source, teacher, student, chosen, place, preflight=preflight)

    return distil_with


def _preflight_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind = settings_class(defaults, TAUGHT)
    flags = kind()

    def preflight_with(
        teacher: Annotated[Positional[str], arg(metavar="TEACHER", help="A run folder, a file, or torchvision:NAME.")],
        source: Positional[SourceWord],
        place: Annotated[DataFlags, arg(name="")],
        method: MethodWord = defaults.method,
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        chosen = replace(from_flags(defaults, settings), method=method)
        _check_taught(chosen)
        data = open_boxes(source, place.root, place.fix_boxes)
        pretrained, architecture = pretrained_word(student), architecture_of(student, data.train)
        taught_by = adapter_named(teacher, place)
        check_memory(architecture, data.train, chosen, place, taught_by=taught_by)
        found = run_preflight(taught_by, architecture, pretrained, data, chosen, place)
        if found.fatal:
            raise DistilError("distilling from this teacher makes no sense as it is: see the lines marked stop.")

    return preflight_with


def _compare_command(student: StudentFlags, defaults: DetectorSettings) -> Any:
    kind = settings_class(defaults, COMPARED)
    flags = kind()

    def compare_with(
        teacher: Annotated[Positional[str], arg(metavar="TEACHER", help="A run folder, a file, or torchvision:NAME.")],
        source: Positional[SourceWord],
        place: Annotated[PlaceFlags, arg(name="")],
        losses: Annotated[
            tuple[str, ...], arg(metavar="LOSSES", help="Losses of each student beside the one without a teacher.")
        ] = ("gkd",),
        seeds: Annotated[int, arg(metavar="N", help="Runs of each student, which begin with the same weights.")] = 3,
        method: MethodWord = defaults.method,
        student: Annotated[StudentFlags, arg(name="")] = student,
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        run_comparison(
            teacher, source, losses, seeds, student, replace(from_flags(defaults, settings), method=method), place
        )

    return compare_with


def _check_taught(settings: DetectorSettings) -> None:
    if settings.method == "plain" or not settings.taught:
        flag = "--method plain" if settings.method == "plain" else "--loss none"
        raise DistilError(
            f"{flag} learns nothing from the teacher: leave {flag} out, or train without one: distil detector train "
            "SOURCE."
        )


RENAMED = {
    "--knowledge": "--loss",
    "--arms": "--losses",
    "--optimiser": "--optimizer",
    "--colour": "--color",
    "--prototypes": "--prototype-count",
}
"""Flags of version 0.1 and their names today."""


def _refuse_old_words(name: str, words: list[str]) -> None:
    """Refuse the command and the flags of version 0.1 that have other names today.

    Raises: DistilError with the new ones, in the user's own words.
    """
    renamed = []
    for word in words:
        flag, equals, value = word.partition("=")
        renamed.append(RENAMED.get(flag, flag) + equals + value)
    if name == "distil":
        told = shlex.join(["distil", "detector", "train", *_with_teacher(words, renamed)])
        raise DistilError(f"distil detector distil is called train now: {told}")
    for before, after in zip(words, renamed, strict=True):
        if before != after:
            raise DistilError(f"{before.partition('=')[0]} is called {after.partition('=')[0]} now.")


def _with_teacher(words: list[str], renamed: list[str]) -> list[str]:
    """The words of `distil detector distil TEACHER SOURCE ...` as those of train."""
    positional, _ = scan(words, _switches(), SEVERAL, wanted=2)
    if len(positional) != 2:
        resumed = any(word.partition("=")[0] == "--resume" for word in words)
        return renamed if resumed else ["SOURCE", "--teacher", "TEACHER", *(w for w in renamed if w not in positional)]
    teacher, source = positional
    rest = list(renamed)
    rest.remove(teacher)
    rest.remove(source)
    return [source, "--teacher", teacher, *rest]


COMMANDS: dict[str, Any] = {
    "train": train,
    "preflight": preflight,
    "compare": compare,
    "evaluate": evaluate,
    "show": show,
    "export": export,
}
