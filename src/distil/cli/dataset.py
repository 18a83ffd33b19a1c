"""`distil dataset`: start a run, continue it, finish it."""

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from distil.cli.dataset_processes import Follow, follow_run, lost_of, met
from distil.cli.experts import tell_experts, with_trained
from distil.cli.flags import Device, device_named, flag_of, option, parse, scan, versions
from distil.cli.set_words import (
    Classes,
    Download,
    Memory,
    Root,
    Size,
    SourceWord,
    class_names,
    in_bytes,
    named_in_path,
    of_classes,
    opened,
    short_name,
)
from distil.cli.settings_flags import flag_classes, from_flags, refuse_unknown, switches, with_choices
from distil.data.catalog import MEMORY, UNLIMITED
from distil.dataset.config import (
    Learning,
    Matching,
    Observer,
    Selection,
    Settings,
    Trajectory,
    check_settings,
    experts_of,
    updates_of,
)
from distil.dataset.methods import DATASETS, METHODS, default_recipe, preset, source_key
from distil.dataset.precision import computes_bfloat16
from distil.dataset.upgrade import RENAMED, settings_from_dict
from distil.errors import DistilError
from distil.fields import to_dict
from distil.files import remove_unfinished
from distil.locks import only_writer
from distil.processes import Lost, several
from distil.runs import (
    CHECKPOINT,
    EXPERTS_FOLDER,
    LOG,
    MANIFEST,
    PREVIOUS,
    RESULT,
    EventLog,
    Events,
    Interrupted,
    has_checkpoint,
    is_abandoned,
    read_log,
    read_manifest,
    remove_abandoned,
    start_run,
)
from distil.stopping import number_of

if TYPE_CHECKING:
    from distil.data.images.opener import ImageSet, Source
    from distil.distilled_set.record import DistilledSet

RUN_FORMAT = 1
"""Version of run.json."""
LONG = 10_000
"""Matching steps from which a run on a CPU is announced as long."""
FOLLOWED = 300
"""Updates of the network by which a run is followed on held-out images."""
MethodWord = Annotated[str, arg(metavar="METHOD", help=f"{', '.join(METHODS)}.")]
DAY = 24 * 3600.0


@dataclass(frozen=True)
class RunFlags:
    """Where images come from and results go."""

    recipe: Annotated[
        Literal["published", "fast"] | None,
        option(
            "published|fast",
            "Whose values the settings start from: those of the paper, or those of this library, which take minutes on "
            "a CPU (idc and the udd methods). Unless given, udd takes fast and every other method published.",
        ),
    ] = None
    experts: Annotated[
        Path | None,
        option(
            "DIR", "Trained experts (distil experts) for mtt, datm, fred and ncfm; unless given they are trained first."
        ),
    ] = None
    out: Annotated[Path | None, option("DIR", "Run folder; runs/SOURCE[-CLASSES]-METHOD-ipcN-seedS unless given.")] = (
        None
    )
    root: Root = None
    size: Size = None
    memory: Memory = MEMORY
    download: Download = False
    classes: Classes = None
    device: Device = "auto"
    checkpoint_seconds: float = 120.0
    """Time between checkpoints."""
    resume: Annotated[
        Path | None, option("DIR", "Continue the run in this folder; takes no METHOD, SOURCE or settings.")
    ] = None


@dataclass(frozen=True)
class ResumeFlags:
    """Continue a run that was stopped."""

    resume: Annotated[Path, arg(metavar="DIR")]
    """Its run folder; run.json there holds the settings."""

    root: Annotated[Path | None, option("DIR", "Folder that holds the named data sets, if it has moved.")] = None

    device: Device = "auto"
    checkpoint_seconds: float = 120.0
    """Time between checkpoints."""


def dataset() -> None:
    """Distil the training images of SOURCE into a few images per class with METHOD.

    The run folder receives run.json (all settings), log.jsonl (every event),
    checkpoint.safetensors every two minutes and distilled.safetensors at the end.
    Ctrl-C saves; --resume continues. Several processes or GPUs:
    torchrun --nproc-per-node N -m distil dataset ...

    Examples:
    distil dataset idc digits
    distil dataset idc cifar10 --ipc 10 --root data
    distil dataset udd photos/ --size 32 --recipe fast --out runs/photos
    distil dataset dm digits --classes 0,1,2 --out runs/first
    distil dataset --resume runs/cifar10-idc-ipc10-seed0
    """


def dataset_command(words: list[str]) -> None:
    """The flags of a run are the fields of its settings, and their defaults the preset: so METHOD, SOURCE, --ipc and
    --recipe are read first."""
    positional, values = _peek(words)
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
    key, asked = source_key(source or "custom"), values.get("--recipe")
    ipc = values.get("--ipc", "1")
    default = preset(method, key, int(ipc) if ipc.removeprefix("-").isdecimal() else 1, asked)
    if "--model" in values:
        values = {"--observer": "pretrained", **values}
    default = with_trained(default, values)
    default = with_choices(default, values)
    default = with_trained(default, values)
    refuse_unknown(words, default, COMMAND_FLAGS, {old: flag_of(new) for old, new in RENAMED.items()})
    if not source and not wants_help:
        raise DistilError(f"give a SOURCE after {method}: {', '.join(DATASETS)}, a folder, FILE.npz or hf:NAME.")
    default, emulated = _fitting_precision(default, values)
    first, second = flag_classes(default)
    of_first, of_second = first(), second()
    where = "a source of your own" if key == "custom" else key
    about = f"\nThe defaults of the settings are those of {method} on {where} at {ipc} per class"
    about += (
        f", by the recipe {asked or default_recipe(method, key)};\ndistil methods {method} tells where each comes from."
    )

    def start_run_with(
        method: Positional[MethodWord],
        source: Positional[SourceWord],
        run: Annotated[RunFlags, arg(name="")],
        settings: Annotated[first, arg(name="")] = of_first,  # pyright: ignore[reportInvalidTypeForm]
        more: Annotated[second, arg(name="")] = of_second,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        _start_run(method, source, from_flags(default, settings, more), run, emulated)

    parse(start_run_with, "dataset", words, dataset, about)


COMMAND_FLAGS = {"--help", *("--" + field.name.replace("_", "-") for field in fields(RunFlags))}
"""Flags of the command that are no settings."""


def _fitting_precision(settings: Settings, values: dict[str, str]) -> tuple[Settings, bool]:
    """The settings in a precision that the device computes in: (settings, whether bfloat16 was replaced). What the user
    asks for stays."""
    if not isinstance(settings, Matching) or settings.bfloat16 == "none" or "--bfloat16" in values:
        return settings, False
    if {"-h", "--help"} & set(values) or computes_bfloat16(device_named(values.get("--device", "auto"))):
        return settings, False
    return replace(settings, bfloat16="none"), True


def _start_run_without_method(
    method: Positional[MethodWord],
    source: Positional[SourceWord],
    run: Annotated[RunFlags, arg(name="")],
) -> None:
    """Only for its help text."""


def _peek(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The positional words, and the flags with their values."""
    flags = {"-h", "--help", "--download"}
    for kind in (Matching, Trajectory, Selection):
        flags |= switches(kind())
    return scan(words, flags)


def _start_run(method: str, word: str, settings: Settings, run: RunFlags, emulated: bool) -> None:
    processes = met(run.device)
    if not processes.first:
        follow_run(processes)
        return
    with processes.leading() as tell:
        check_settings(settings)
        folder = (
            run.out
            or Path("runs")
            / f"{short_name(word)}{named_in_path(run.classes)}-{method}-ipc{settings.ipc}-seed{settings.seed}"
        )
        _refuse_inside(folder, word)
        place = folder.absolute()  # that is found again if the working folder is deleted
        with only_writer(folder):
            _refuse_taken(folder)
            made = _start(method, word, settings, run, folder, place, emulated, tell)
    _tell_result(folder, *made)


def _start(
    method: str,
    word: str,
    settings: Settings,
    run: RunFlags,
    folder: Path,
    place: Path,
    emulated: bool,
    tell: Callable[[Follow], None],
) -> "tuple[DistilledSet, Source, dict[str, Any], str]":
    """What a new run made, and what its next commands have to know; its folder is locked."""
    from distil.report.progress import show_progress

    device = device_named(run.device)
    if emulated:
        print("This device has no bfloat16 arithmetic: the run computes in float32.")
    elif isinstance(settings, Matching) and settings.bfloat16 != "none" and not computes_bfloat16(device):
        print("This device has no bfloat16 arithmetic, so it is slow here: --bfloat16 none is faster.")
    with show_progress(f"{method} on {short_name(word)}") as shown:
        source = opened(word, run.root, run.size, run.download, shown, run.memory)
        if (key := source_key(word)) != source.key:
            raise DistilError(
                f"{word} is named like {key}, whose settings were taken, but holds other images (its shape or number "
                "of classes differs): give it another name."
            )
        names = None if run.classes is None else class_names(run.classes, source.train.classes)
        source = source if names is None else of_classes(source, names)
        manifest = {
            "format_version": RUN_FORMAT,
            "command": "dataset",
            "source": _lasting(word),
            "root": None if run.root is None else str(run.root.absolute()),
            "size": run.size,
            "memory": run.memory,
            "classes": names,
            "device": run.device,
            "settings": to_dict(settings),
            "source_fingerprint": source.train.fingerprint(),
            "experts": None if run.experts is None else str(run.experts.absolute()),
            "read": None if source.inventory is None else source.inventory.to_dict(),
            "versions": versions(),
        }
        if not isinstance(settings, Selection) and run.experts is None:
            tell_experts(source, settings, device, folder, shown)
        if not isinstance(settings, Selection) and updates_of(settings) >= LONG:
            _tell_time(method, source, settings, device, run, shown)
        start_run(place, manifest)
        tell(Follow(manifest, run.root, device, settings, False, _resume_command(folder)))
        try:
            seconds, options = run.checkpoint_seconds, {"resume": False, "download": run.download}
            made = _distil(folder, place, source, settings, device, seconds, manifest, shown, **options)
        except BaseException as error:
            if isinstance(error, Lost):
                raise
            if forgotten_if_nothing_happened(place) and isinstance(error, Interrupted):
                raise Interrupted("interrupted before the first step: nothing was kept", error.number) from error
            raise
    return made, source, manifest, device


def _refuse_inside(folder: Path, word: str) -> None:
    """Refuse a run folder inside the folder that the images are read from, where it would become a class."""
    source = Path(word)
    with contextlib.suppress(RuntimeError):  # no such home
        source = source.expanduser()
    if word in DATASETS or not source.is_dir():
        return
    root, inside = source.resolve(), folder.resolve()
    if inside != root and root not in inside.parents:
        return
    if any(part.startswith(".") for part in inside.relative_to(root).parts):
        return  # readers pass over names that begin with a dot
    outside = _shortest(str(root.parent / "runs" / folder.name))
    raise DistilError(
        f"the run folder {folder} would lie inside the data folder {root if word == '.' else word}, whose folders are "
        f"read as classes: choose another one, such as --out {shlex.quote(outside)}"
    )


def _refuse_taken(folder: Path) -> None:
    """Refuse a folder with a run that can be continued or is finished; take over one whose run never got that far."""
    if is_abandoned(folder, "dataset"):
        print(f"Note: the run in {folder} ended before its first checkpoint: it is begun again.")
        remove_abandoned(folder)
        return
    if (folder / MANIFEST).exists():
        if (folder / RESULT).is_file():
            raise DistilError(f"{folder} already holds a finished run: choose another folder with --out.")
        raise DistilError(
            f"{folder} already holds a run. Continue it with: {_resume_command(folder)}; or choose another folder with "
            "--out."
        )
    if left := [name for name in (RESULT, CHECKPOINT, PREVIOUS) if (folder / name).exists()]:
        raise DistilError(f"{folder} holds {left[0]} of another run, without its {MANIFEST}: choose another folder.")


def _tell_time(method: str, source: "Source", settings: Learning, device: str, run: RunFlags, shown: Events) -> None:
    """Print how long a long run will take, and what is quicker. Raises: DistilError where that is days, and nobody has
    asked for it in so many words."""
    from distil.dataset.estimate import seconds_of_experts, seconds_of_run
    from distil.report.progress import spoken

    shown("preparing", what="measuring the first steps")
    images = source.train.to(device)
    seconds = seconds_of_run(images, settings)
    if run.experts is None and (wanted := experts_of(settings)) is not None:
        seconds += seconds_of_experts(images, wanted, settings.network, settings.width)
    where = "here in one process" if several() else "here"
    told = f"{method} by the recipe {run.recipe or 'published'} takes about {spoken(seconds)} {where}"
    quicker = ""
    if METHODS[method].has_fast and run.recipe != "fast":
        fast = preset(method, source.key, settings.ipc, "fast")
        if not isinstance(fast, Selection):
            fast = (
                fast if not isinstance(fast, Matching) or computes_bfloat16(device) else replace(fast, bfloat16="none")
            )
            quicker = f"; --recipe fast takes about {spoken(seconds_of_run(images, fast))}"
    if seconds > DAY and run.recipe is None:
        raise DistilError(f"{told}{quicker}. Give --recipe published if that is what you want.")
    print(f"{told}{quicker}.", flush=True)


def _resume_run(resume: Annotated[ResumeFlags, arg(name="")]) -> None:
    manifest = _checked_manifest(resume.resume)
    processes = met(manifest["device"] if resume.device == "auto" else resume.device)
    if not processes.first:
        follow_run(processes)
        return
    with processes.leading() as tell:
        _resume(resume, manifest, tell)


def _resume(resume: ResumeFlags, manifest: dict[str, Any], tell: Callable[[Follow], None]) -> None:
    from distil.report.progress import show_progress

    folder, place = resume.resume, resume.resume.absolute()
    settings = _checked_settings(folder, manifest)
    if (folder / RESULT).is_file() and _is_sound(folder / RESULT):
        with contextlib.suppress(DistilError), only_writer(folder):
            remove_unfinished(folder)
        print(f"This run is finished: {folder / RESULT}")
        return
    device = device_named(manifest["device"] if resume.device == "auto" else resume.device)
    root = resume.root or (Path(manifest["root"]) if manifest["root"] else None)
    word = manifest["source"]
    with only_writer(folder), show_progress(f"{settings.method} on {short_name(word)}") as shown:
        source = opened(word, root, manifest["size"], False, shown, manifest.get("memory", UNLIMITED))
        if manifest.get("classes") is not None:
            source = of_classes(source, manifest["classes"])
        if source.train.fingerprint() != manifest["source_fingerprint"]:
            raise DistilError(
                f"the training images of {_shortest(word)} are not those that the run in {folder} began with "
                "(their hash differs): put the old images back, or start a new run."
            )
        seconds = resume.checkpoint_seconds
        tell(Follow(manifest, root, device, settings, True, _resume_command(folder)))
        made = _distil(folder, place, source, settings, device, seconds, manifest, shown, resume=True)
    _tell_result(folder, made, source, manifest, device)


def _is_sound(result: Path) -> bool:
    """Whether a finished set can be read; one that cannot is made again from the last checkpoint."""
    from distil.distilled_set.record import DistilledSet

    try:
        DistilledSet.load(result)
    except DistilError as damage:
        print(f"Note: {damage} It is made again.")
        return False
    return True


FIELDS = {
    "format_version": (int,),
    "command": (str,),
    "source": (str,),
    "root": (str, type(None)),
    "size": (int, type(None)),
    "device": (str,),
    "settings": (dict,),
    "source_fingerprint": (str,),
}
"""What run.json has to hold, and of which type."""
LATER_FIELDS = {"memory": (int, float), "experts": (str, type(None))}
"""The same of what run.json holds since there is a choice."""
KINDS = {int: "a whole number", float: "a number", str: "text", dict: "an object", type(None): "null"}


def _checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run of this command. Raises: DistilError that names the file, the field and what it holds."""
    manifest, path = read_manifest(folder), folder / MANIFEST
    if missing := [name for name in FIELDS if name not in manifest]:
        raise DistilError(
            f"{path} does not describe a run: {missing[0]} is missing. Start the run again in another folder."
        )
    later = {name: kinds for name, kinds in LATER_FIELDS.items() if name in manifest}
    for name, kinds in (FIELDS | later).items():
        value = manifest[name]
        if type(value) not in kinds:
            wanted = " or ".join(KINDS[kind] for kind in kinds)
            raise DistilError(
                f"{path} does not describe a run: {name} is {_short(value)} and should be {wanted}. Put a sound copy "
                "there, or start the run again in another folder."
            )
    names = manifest.get("classes")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DistilError(
            f"{path} does not describe a run: classes is {_short(names)} and should be a list of names or null. Put a "
            "sound copy there, or start the run again in another folder."
        )
    if manifest["command"] != "dataset":
        raise DistilError(
            f"{folder} holds a run of distil {manifest['command']}, not of distil dataset: give the folder of one."
        )
    if manifest["format_version"] > RUN_FORMAT:
        raise DistilError(f"{folder} was made by a newer distil: upgrade with pip install -U distil")
    if manifest["format_version"] < 1:
        raise DistilError(f"{path} does not describe a run: format_version is {_short(manifest['format_version'])}.")
    return manifest


def _checked_settings(folder: Path, manifest: dict[str, Any]) -> Settings:
    """The settings that a manifest holds. Raises: DistilError that names the file and the setting."""
    try:
        settings = settings_from_dict(manifest["settings"])
        check_settings(settings)
    except DistilError as error:
        raise DistilError(f"{folder / MANIFEST}: {error}") from error
    return settings


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _distil(
    folder: Path,
    place: Path,
    source: "Source",
    settings: Settings,
    device: str,
    checkpoint_seconds: float,
    manifest: dict[str, Any],
    shown: Events,
    *,
    resume: bool,
    download: bool = False,
) -> "DistilledSet":
    from distil.dataset.distil import distil_dataset
    from distil.evaluation.evaluator import evaluate_distilled
    from distil.evaluation.protocols import protocol_for
    from distil.report.progress import both

    protocol = replace(protocol_for("quick", source.key), epochs=FOLLOWED, max_updates=FOLLOWED)
    seen = Observer() if isinstance(settings, Selection) else settings

    def validate(distilled: "DistilledSet", held_out: "ImageSet") -> float:
        scores = evaluate_distilled(
            distilled, held_out, protocol, networks=(seen.network,), width=seen.width, runs=1, device=device
        )
        return scores.mean[seen.network]

    def watch(name: str, **fields: Any) -> None:
        if name == "damaged":
            print(f"Note: {fields['message']}")
        if name in ("checkpoint", "done") and not (place / MANIFEST).is_file():
            print(f"Note: {folder} was deleted during the run; it is made anew, without the earlier log.")
            start_run(place, manifest)

    try:
        return distil_dataset(
            source.train,
            settings,
            experts=manifest.get("experts"),
            device=device,
            folder=place,
            resume=resume,
            events=both(EventLog(place / LOG, resumed=resume), shown, watch),
            validate=validate,
            checkpoint_seconds=checkpoint_seconds,
            download=download,
        )
    except Lost as lost:
        raise lost_of(lost, _resume_command(folder)) from lost
    except Interrupted as stop:
        where = f"{str(stop).partition(':')[0]}: continue with {_resume_command(folder)}"
        raise Interrupted(where, stop.number) from stop
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted: continue with {_resume_command(folder)}", number_of(stop)) from stop


def _tell_result(
    folder: Path, distilled: "DistilledSet", source: "Source", manifest: dict[str, Any], device: str
) -> None:
    """What was made, and the commands that use it."""
    file, count = shlex.quote(str(folder / RESULT)), len(distilled.params)
    where = "" if not manifest["root"] else f" --root {shlex.quote(_shortest(manifest['root']))}"
    where += "" if manifest["size"] is None else f" --size {manifest['size']}"
    memory = manifest.get("memory", MEMORY)
    where += "" if memory == MEMORY else f" --memory {memory:g}"
    names = manifest.get("classes")
    where += "" if names is None else f" --classes {shlex.quote(','.join(names))}"
    if source.note:
        print(f"Note: {source.note}")
    print(f"{folder / RESULT}")
    print(f"{count} images, {distilled.images_per_class} per class, {in_bytes(distilled.bytes['total'])}")
    quick = " --protocol quick" if device == "cpu" else ""
    word = shlex.quote(_shortest(manifest["source"]))
    print(f"Next:\n  distil evaluate {file} {word}{where}{quick}\n  distil show {file}")


def forgotten_if_nothing_happened(folder: Path) -> bool:
    """Take back what a run wrote that failed before its first step, so that the mended command can use the folder."""
    log = folder / LOG
    if has_checkpoint(folder) or (folder / RESULT).exists() or (folder / EXPERTS_FOLDER).exists():
        return False
    if log.is_file() and any(line.get("event") == "step" for line in read_log(log)):
        return False
    remove_abandoned(folder)
    return True


def _resume_command(folder: Path) -> str:
    return f"distil dataset --resume {shlex.quote(str(folder))}"


def _lasting(word: str) -> str:
    """A SOURCE word that means the same from any working folder."""
    if word in DATASETS:
        return word
    path = Path(word).expanduser()
    return str(path.absolute()) if path.exists() else word


def _shortest(path: str) -> str:
    """An absolute path as seen from the working folder, if that is shorter; other words as they are."""
    try:
        relative = os.path.relpath(path) if os.path.isabs(path) else path
    except OSError:  # the working folder was deleted
        return path
    return relative if len(relative) < len(path) else path
