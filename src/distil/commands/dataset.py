"""`distil dataset`: start a run, go on with it, finish it."""

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from distil.commands.set_words import Download, Root, Size, SourceWord, in_bytes, open_images, short_name
from distil.errors import DistilError
from distil.flags import Device, device_named, option, parse, scan, versions
from distil.presets import DATASETS, METHODS, preset, source_key
from distil.runs import (
    CHECKPOINT,
    LOG,
    MANIFEST,
    PROXY,
    RESULT,
    EventLog,
    Interrupted,
    read_log,
    read_manifest,
    start_run,
)
from distil.settings import CoresetSettings, MatchingSettings, Settings, check_settings, settings_from_dict

if TYPE_CHECKING:
    from distil.dataset.artifact import DistilledSet
    from distil.sources import ImageSet, Source

RUN_FORMAT = 1
"""Version of run.json."""
LONG = 10_000
"""Matching steps from which a run on a CPU is announced as long."""
FOLLOWED = 300
"""Updates of the network by which a run is followed on held-out images."""
MethodWord = Annotated[str, arg(metavar="METHOD", help=f"{', '.join(METHODS)}.")]


@dataclass(frozen=True)
class RunFlags:
    """Where images come from and results go."""

    recipe: Annotated[
        Literal["published", "fast"],
        arg(
            help="Whose values the settings start from: the paper's, or ours for little time (idc and the udd methods)."
        ),
    ] = "published"
    out: Annotated[Path | None, option("DIR", "Run folder; runs/SOURCE-METHOD-ipcN-seedS unless given.")] = None
    root: Root = None
    size: Size = None
    download: Download = False
    device: Device = "auto"
    checkpoint_seconds: float = 120.0
    """Time between checkpoints."""
    resume: Annotated[
        Path | None, option("DIR", "Go on with the run in this folder; takes no METHOD, SOURCE or settings.")
    ] = None


@dataclass(frozen=True)
class ResumeFlags:
    """Go on with a run that was stopped."""

    resume: Annotated[Path, arg(metavar="DIR")]
    """Its run folder; run.json there holds the settings."""

    root: Annotated[Path | None, option("DIR", "Folder that holds the named data sets, if it has moved.")] = None

    device: Device = "auto"
    checkpoint_seconds: float = 120.0
    """Time between checkpoints."""


Fixed = tyro.conf.Suppress[tyro.conf.Fixed[str]]


@dataclass(frozen=True)
class CoresetFlags(CoresetSettings):
    method: Fixed = "random"  # pyright: ignore[reportIncompatibleVariableOverride]


@dataclass(frozen=True)
class MatchingFlags(MatchingSettings):
    method: Fixed = "idc"


def dataset() -> None:
    """Distil the training images of SOURCE into a few images per class with METHOD.

    The run folder receives run.json (all settings), log.jsonl (every event),
    checkpoint.safetensors every two minutes and distilled.safetensors at the end.
    Ctrl-C saves; --resume goes on.

    Examples:
    distil dataset idc digits
    distil dataset idc cifar10 --ipc 10 --root data
    distil dataset udd photos/ --size 32 --recipe fast --out runs/photos
    distil dataset --resume runs/cifar10-idc-ipc10-seed0
    """


def dataset_command(words: list[str]) -> None:
    """The flags of a run are the fields of its settings, and their defaults the preset: so METHOD, SOURCE, --ipc and
    --recipe are read first."""
    positional, ipc, recipe = _peek(words)
    wants_help = bool({"-h", "--help"} & set(words))
    if any(word == "--resume" or word.startswith("--resume=") for word in words):
        if positional:
            raise DistilError(f"--resume takes METHOD, SOURCE and settings from run.json: leave {positional[0]!r} out.")
        parse(_resume_run, "dataset", words, dataset)
        return
    if wants_help and not positional:
        more = "\nWith a METHOD and a SOURCE this lists the settings, with the values of that preset:\n"
        parse(_start_run_without_method, "dataset", words, dataset, f"{more}distil dataset idc cifar10 --ipc 10 --help")
        return
    if not positional:
        raise DistilError(f"give a METHOD and a SOURCE: distil dataset idc digits. Methods: {', '.join(METHODS)}.")
    method, source = positional[0], positional[1] if len(positional) > 1 else ""
    if method in DATASETS and source in METHODS:
        raise DistilError(f"METHOD comes before SOURCE: distil dataset {source} {method}")
    key = source_key(source or "custom")
    default = preset(method, key, ipc, recipe)
    if not source and not wants_help:
        raise DistilError(f"give a SOURCE after {method}: {', '.join(DATASETS)}, a folder, FILE.npz or hf:NAME.")
    kind = CoresetFlags if isinstance(default, CoresetSettings) else MatchingFlags
    flags = kind(**asdict(default))
    where = "a source of your own" if key == "custom" else key
    about = f"\nThe defaults of the settings are those of {method} on {where} at {ipc} per class;\n"
    about += f"distil methods {method} tells where each comes from."
    if recipe != "published":
        about = f"\nThe defaults of the settings are our own, of the recipe {recipe}: see docs/speed.md."

    def start_run_with(
        method: Positional[MethodWord],
        source: Positional[SourceWord],
        run: Annotated[RunFlags, arg(name="")],
        settings: Annotated[kind, arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        _start_run(method, source, _plain(settings), run)

    parse(start_run_with, "dataset", words, dataset, about)


def _start_run_without_method(
    method: Positional[MethodWord],
    source: Positional[SourceWord],
    run: Annotated[RunFlags, arg(name="")],
) -> None:
    """Only for its help text."""


def _peek(words: Sequence[str]) -> tuple[list[str], int, str]:
    """The positional words, and the values of --ipc (1 if it is absent or no number: the parser will complain) and of
    --recipe."""
    switches = {"-h", "--help", "--download"}
    for kind in (CoresetSettings, MatchingSettings):
        names = [field.name.replace("_", "-") for field in fields(kind) if field.type is bool]
        switches |= {f"--{negation}{name}" for name in names for negation in ("", "no-")}
    positional, values = scan(words, switches)
    ipc, recipe = values.get("--ipc", "1"), values.get("--recipe", "published")
    return positional, int(ipc) if ipc.removeprefix("-").isdecimal() else 1, recipe


def _plain(flags: Settings) -> Settings:
    """Settings as the library knows them."""
    kind = CoresetSettings if isinstance(flags, CoresetSettings) else MatchingSettings
    return kind(**asdict(flags))


def _start_run(method: str, word: str, settings: Settings, run: RunFlags) -> None:
    check_settings(settings)
    folder = run.out or Path("runs") / f"{short_name(word)}-{method}-ipc{settings.ipc}-seed{settings.seed}"
    if (folder / MANIFEST).exists():
        if (folder / RESULT).is_file():
            raise DistilError(f"{folder} already holds a finished run: choose another folder with --out.")
        raise DistilError(
            f"{folder} already holds a run. Go on with it: {_resume_command(folder)}; or choose another folder with "
            "--out."
        )
    if left := [name for name in (CHECKPOINT, RESULT) if (folder / name).exists()]:
        raise DistilError(f"{folder} holds {left[0]} of another run, without its {MANIFEST}: choose another folder.")
    device = device_named(run.device)
    if isinstance(settings, MatchingSettings) and settings.bfloat16 != "none" and not _computes_bfloat16(device):
        print("This processor has no bfloat16 arithmetic, so it is slow here: --bfloat16 none is faster.")
    source = open_images(word, run.root, run.size, run.download)
    if (key := source_key(word)) != source.key:
        raise DistilError(
            f"{word} is named like {key}, whose settings were taken, but holds other images (its shape or number of "
            "classes differs): give it another name."
        )
    manifest = {
        "format_version": RUN_FORMAT,
        "command": "dataset",
        "source": _lasting(word),
        "root": None if run.root is None else str(run.root.absolute()),
        "size": run.size,
        "device": run.device,
        "settings": asdict(settings),
        "source_fingerprint": source.train.fingerprint(),
        "versions": versions(),
    }

    if device == "cpu" and isinstance(settings, MatchingSettings) and settings.outer * settings.inner >= LONG:
        quicker = "; --recipe fast takes minutes" if settings.network_data == "real" else ""
        print(f"{settings.outer * settings.inner:,} matching steps: hours to days on a CPU{quicker}.")
    try:
        start_run(folder, manifest)
    except DistilError as error:
        raise DistilError(str(error).replace("another place", "another place with --out")) from error
    try:
        _distil(folder, source, settings, device, run.checkpoint_seconds, manifest, resume=False)
    except BaseException as error:
        if _forgotten_if_nothing_happened(folder) and isinstance(error, Interrupted):
            raise Interrupted("interrupted before the first step: nothing was kept") from error
        raise


def _computes_bfloat16(device: str) -> bool:
    """False where bfloat16 is known to be emulated: x86 processors without its instructions."""
    import torch

    if device != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return True
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is None or check() for check in checks)


def _resume_run(resume: Annotated[ResumeFlags, arg(name="")]) -> None:
    folder = resume.resume
    manifest = read_manifest(folder)
    needed = ("format_version", "command", "source", "root", "size", "device", "settings", "source_fingerprint")
    if not isinstance(manifest, dict) or any(name not in manifest for name in needed):
        raise DistilError(f"{folder / MANIFEST} does not describe a run. Start the run again in another folder.")

    if manifest["format_version"] != RUN_FORMAT:
        raise DistilError(f"{folder} was made by a newer distil: upgrade with pip install -U distil")

    if (folder / RESULT).is_file():
        print(f"This run is finished: {folder / RESULT}")
        return
    settings = settings_from_dict(manifest["settings"])
    device = device_named(manifest["device"] if resume.device == "auto" else resume.device)
    root = resume.root or (Path(manifest["root"]) if manifest["root"] else None)
    source = open_images(manifest["source"], root, manifest["size"], download=False)
    if source.train.fingerprint() != manifest["source_fingerprint"]:
        raise DistilError(
            f"the training images of {_shortest(manifest['source'])} are not those that the run in {folder} began with "
            "(their hash differs): put the old images back, or start a new run."
        )

    _distil(folder, source, settings, device, resume.checkpoint_seconds, manifest, resume=True)


def _distil(
    folder: Path,
    source: "Source",
    settings: Settings,
    device: str,
    checkpoint_seconds: float,
    manifest: dict[str, Any],
    *,
    resume: bool,
) -> None:
    from distil.dataset.distilling import distil_dataset
    from distil.evaluate.judge import evaluate_distilled
    from distil.evaluate.protocols import protocol_for
    from distil.files import load_tensors
    from distil.report.progress import both, show_progress

    word = manifest["source"]
    protocol = replace(protocol_for("quick", source.key), epochs=FOLLOWED, max_updates=FOLLOWED)

    def validate(distilled: "DistilledSet", held_out: "ImageSet") -> float:
        scores = evaluate_distilled(
            distilled, held_out, protocol, networks=(settings.network,), width=settings.width, runs=1, device=device
        )
        return scores.mean[settings.network]

    resume_at = 0 if resume else None
    if resume and (folder / CHECKPOINT).is_file():
        resume_at = int(load_tensors(folder / CHECKPOINT)[1]["step"]) + 1
    log = EventLog(folder / LOG, resume_at)

    try:
        with show_progress(f"{settings.method} on {short_name(word)}") as shown:
            distilled = distil_dataset(
                source.train,
                settings,
                device=device,
                folder=folder,
                resume=resume,
                events=both(log, shown),
                validate=validate,
                checkpoint_seconds=checkpoint_seconds,
            )
    except Interrupted as stop:
        raise Interrupted(f"{str(stop).partition(':')[0]}: go on with {_resume_command(folder)}") from stop
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted: go on with {_resume_command(folder)}") from stop
    file, count = shlex.quote(str(folder / RESULT)), len(distilled.canvases)
    where = "" if not manifest["root"] else f" --root {shlex.quote(_shortest(manifest['root']))}"
    where += "" if manifest["size"] is None else f" --size {manifest['size']}"
    if source.note:
        print(f"Note: {source.note}")
    print(f"{folder / RESULT}")
    print(f"{count} images, {distilled.images_per_class} per class, {in_bytes(distilled.bytes['total'])}")
    quick = " --protocol quick" if device == "cpu" else ""
    print(f"Next:\n  distil evaluate {file} {shlex.quote(_shortest(word))}{where}{quick}\n  distil show {file}")


def _forgotten_if_nothing_happened(folder: Path) -> bool:
    """Take back the folder of a run that failed before its first step, so that the mended command can use it."""
    log = folder / LOG
    if (folder / CHECKPOINT).exists() or (folder / RESULT).exists():
        return False
    if log.is_file() and any(line.get("event") == "step" for line in read_log(log)):
        return False

    for name in (MANIFEST, LOG, PROXY):
        (folder / name).unlink(missing_ok=True)

    if not any(folder.iterdir()):
        folder.rmdir()
    return True


def _resume_command(folder: Path) -> str:
    return f"distil dataset --resume {shlex.quote(str(folder))}"


def _lasting(word: str) -> str:
    """A SOURCE word that means the same from any working folder."""
    path = Path(word).expanduser()
    return str(path.absolute()) if word not in DATASETS and path.exists() else word


def _shortest(path: str) -> str:
    """An absolute path as seen from the working folder, if that is shorter; other words as they are."""
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return relative if len(relative) < len(path) else path
