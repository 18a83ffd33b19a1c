"""The command line. Nothing heavy is imported before a command needs it, so that every help text comes at once."""

import inspect
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

import distil
from distil.detector_presets import DETECTOR_METHODS, DETECTOR_SOURCES, detector_preset
from distil.errors import DistilError
from distil.flags import Device, console, device_named, nearest, option, scan, switch, versions
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

HELP = """\
usage: distil COMMAND ...

Distil a dataset into a few images a class, or a detector into a smaller one; judge both fairly.

  distil dataset METHOD SOURCE    make a distilled set; --resume DIR goes on with a stopped run
  distil evaluate FILE SOURCE     train fresh networks on it and report their test accuracy
  distil compare FILE FILE ...    one table of sets that were evaluated
  distil show FILE                draw its images, its regions and the views that a network sees
  distil export FILE --to LAYOUT  write it as an image folder, npz or parquet
  distil methods [NAME]           what each method is, costs and reaches; every published setting
  distil detector COMMAND         train a small object detector with the knowledge of a large one
  distil demo [detector]          the tour on embedded handwriting, in three minutes, or five

  distil COMMAND --help           the flags of a command, with examples
  distil --version

METHOD  {methods}
SOURCE  digits (embedded), mnist, fashionmnist, svhn, cifar10, cifar100,
        a folder with one folder of images per class, FILE.npz, or hf:NAME

Start here:
  distil demo
  distil dataset idc digits
"""

RUN_FORMAT = 1
"""Version of run.json."""
LONG = 10_000
"""Matching steps from which a run on a CPU is announced as long."""
FOLLOWED = 300
"""Updates of the network by which a run is followed on held-out images."""

SourceWord = Annotated[
    str,
    arg(
        metavar="SOURCE",
        help="Real images: digits, mnist, fashionmnist, svhn, cifar10, cifar100, a folder with one folder of images "
        "per class, FILE.npz, or hf:NAME.",
    ),
]
MethodWord = Annotated[str, arg(metavar="METHOD", help=f"{', '.join(METHODS)}.")]
ArtifactFile = Annotated[Path, arg(metavar="FILE", help="A distilled set (.safetensors).")]


Root = Annotated[
    Path | None, option("DIR", "Folder that holds the named data sets; $DISTIL_DATA or ~/.cache/distil unless given.")
]
Size = Annotated[int | None, option("N", "Resize the images to N x N pixels.")]
Download = Annotated[FlagCreatePairsOff[bool], switch("Fetch a named data set that --root lacks.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for what the user can mend, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except Interrupted as stop:
        return _fail(stop, 130)
    except DistilError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone: nothing is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return _fail("out of memory: lower --width, --size, --ipc or the batch, or take a device with more.", 2)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}. Check the path and its permissions.", 2)


def _out_of_memory(error: Exception) -> bool:
    """Whether memory, of the machine or of its GPU, did not suffice."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in told or "can't allocate memory" in told


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(methods=", ".join(METHODS)), end="")
        return 0
    if words[0] == "--version":
        print(f"distil {distil.__version__}")
        return 0
    name, rest = words[0], words[1:]
    known = (*COMMANDS, "detector")
    if name not in known:
        raise DistilError(f"unknown command {name!r}.{nearest(name, known)} Commands: {', '.join(known)}.")
    try:
        if name == "dataset":
            _dataset(rest)
        elif name == "detector":
            from distil.cli_detector import detector_command

            detector_command(rest)
        else:
            _parse(COMMANDS[name], name, rest)
    except SystemExit as stop:  # tyro has printed a help text, or what is wrong with a flag
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _parse(command: Callable[..., None], name: str, words: list[str], more: str = "") -> None:
    """Let tyro read the words, call the command with them, or print its help (with `more` at the end of the text)."""
    paragraphs = f"{inspect.getdoc(COMMANDS[name])}\n{more}".strip().split("\n\n")
    description = "\n\n".join(text.replace("\n", "\n  ") for text in paragraphs)  # tyro joins unindented lines
    if {"-h", "--help"} & set(words):
        words = ["--help"]  # tyro leaves out of a help text what it has already read
    tyro.cli(command, prog=f"distil {name}", description=description, args=words)


def _fail(message: object, status: int) -> int:
    print(f"distil: {message}", file=sys.stderr)
    return status


# ---------------------------------------------------------------------------------------------------------- dataset


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


def _dataset(words: list[str]) -> None:
    """The flags of a run are the fields of its settings, and their defaults the preset: so METHOD, SOURCE, --ipc and
    --recipe are read first."""
    positional, ipc, recipe = _peek(words)
    wants_help = bool({"-h", "--help"} & set(words))
    if any(word == "--resume" or word.startswith("--resume=") for word in words):
        if positional:
            raise DistilError(f"--resume takes METHOD, SOURCE and settings from run.json: leave {positional[0]!r} out.")
        _parse(_resume_run, "dataset", words)
        return
    if wants_help and not positional:
        more = "\nWith a METHOD and a SOURCE this lists the settings, with the values of that preset:\n"
        _parse(_start_run_without_method, "dataset", words, f"{more}distil dataset idc cifar10 --ipc 10 --help")
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

    _parse(start_run_with, "dataset", words, about)


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
    folder = run.out or Path("runs") / f"{_short_name(word)}-{method}-ipc{settings.ipc}-seed{settings.seed}"
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
    source = _open(word, run.root, run.size, run.download)
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
    start_run(folder, manifest)
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
    source = _open(manifest["source"], root, manifest["size"], download=False)
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
    from distil.report.progress import both, show_progress
    from distil.runs import load_tensors

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
        with show_progress(f"{settings.method} on {_short_name(word)}") as shown:
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
    print(f"{count} images, {distilled.images_per_class} per class, {_bytes(distilled.bytes['total'])}")
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


def _short_name(word: str) -> str:
    """A source's name as part of a folder's name: "cifar10", "photos" of data/photos/, "NAME" of hf:USER/NAME."""
    key = source_key(word)
    name = key if key != "custom" else PurePath(word.removeprefix("hf:")).stem
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip(".") or "images"


def _lasting(word: str) -> str:
    """A SOURCE word that means the same from any working folder."""
    path = Path(word).expanduser()
    return str(path.absolute()) if word not in DATASETS and path.exists() else word


def _shortest(path: str) -> str:
    """An absolute path as seen from the working folder, if that is shorter; other words as they are."""
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return relative if len(relative) < len(path) else path


def _open(word: str, root: Path | None, size: int | None, download: bool) -> "Source":
    from distil.sources import open_source

    return open_source(word, root=root, size=size, download=download)


# --------------------------------------------------------------------------------------------------------- evaluate


def evaluate(
    file: Annotated[
        Positional[str],
        arg(metavar="FILE", help="A distilled set; or whole: all real images; or random:N: N real images per class."),
    ],
    source: Positional[SourceWord],
    protocol: Annotated[str, arg(metavar="idc|dc|quick|medium", help="How the networks are trained.")] = "idc",
    networks: Annotated[
        str, arg(metavar="NAME,NAME", help="convnet3, resnet10, resnet18, vgg11, alexnet, densenet121, vit.")
    ] = "convnet3",
    width: Annotated[int | None, option("N", "Channels of the networks' layers, if not their own.")] = None,
    runs: Annotated[int, arg(metavar="N", help="Networks trained of each kind.")] = 5,
    at_once: Annotated[
        int | None, option("N", "Networks of a kind trained together; all of them on a GPU, else 1, unless given.")
    ] = None,
    seed: Annotated[int, arg(metavar="N", help="Seed of every draw.")] = 0,
    device: Device = "auto",
    root: Root = None,
    size: Size = None,
    download: Download = False,
    json: Annotated[
        Path | None, option("OUT", "Score file; FILE.scores.json beside a distilled set unless given.")
    ] = None,
) -> None:
    """Train fresh networks on FILE and report their accuracy on SOURCE's test images.

    Reported: the last epoch, mean and standard deviation over the runs. The same
    judge scores real images: all of them (whole), or a fresh random draw for each
    run (random:N). Scores of different protocols cannot be compared.

    Examples:
    distil evaluate runs/digits-idc-ipc1-seed0/distilled.safetensors digits --protocol quick
    distil evaluate set.safetensors cifar10 --networks convnet3,resnet18,vit --runs 3
    distil evaluate random:10 cifar10 --json random10.json
    distil evaluate whole digits --protocol quick --json whole.json
    """
    per_class = _images_per_class(file)
    names = [name.strip() for name in networks.split(",") if name.strip()]
    if width is not None and width < 1:
        raise DistilError(f"--width is {width}: it must be at least 1.")

    from distil.dataset.artifact import DistilledSet
    from distil.evaluate.compare import compare_table
    from distil.evaluate.judge import evaluate_distilled, evaluate_real
    from distil.evaluate.protocols import protocol_for
    from distil.report.progress import show_progress
    from distil.report.scores import add_scores, file_hash, read_scores, scores_beside, set_name

    protocol_for(protocol, "custom")
    distilled = None if per_class is not None else DistilledSet.load(file)
    out = json or (None if distilled is None else scores_beside(Path(file)))
    if out is not None and out.exists():
        read_scores(out)  # refuses another file before the work, not after it
    where = device_named(device)
    real = _open(source, root, size, download)
    if real.test is None:
        raise DistilError(f"{real.name} has no test images to judge on: give a source that has a test split.")
    rules = protocol_for(protocol, real.key)
    options = {"networks": names, "width": width, "runs": runs, "seed": seed, "device": where, "at_once": at_once}
    with show_progress(f"{rules.name} on {_short_name(source)}", unit="network") as shown:
        shown("start", step=0, steps=max(1, runs * len(names)))
        if distilled is None:
            scores = evaluate_real(
                real.train, real.test, rules, images_per_class=per_class or None, **options, events=shown
            )
        else:
            scores = evaluate_distilled(distilled, real.test, rules, **options, events=shown)
    row = {
        **scores.to_dict(),
        "file_sha256": None if distilled is None else file_hash(Path(file)),
        "test_fingerprint": real.test.fingerprint(),
        "versions": versions(),
    }
    if distilled is not None:
        row |= {"name": set_name(Path(file)), "path": str(Path(file).absolute())}
    console().print(compare_table([row]))
    if distilled is not None and distilled.source_fingerprint != real.train.fingerprint():
        print(f"Note: this set was made from other images than the training images of {real.name}.")
    if real.note:
        print(f"Note: {real.note}")
    if out is not None:
        try:
            add_scores(out, row)
        except DistilError as error:
            raise DistilError(str(error).replace("--out", "--json")) from error
        print(f"Scores: {out}")


def _images_per_class(file: str) -> int | None:
    """Real images per class that the FILE word of evaluate asks for: 0 for all of them, None if it names a file."""
    if file == "whole":
        return 0
    if not file.startswith("random:"):
        return None
    count = file.removeprefix("random:")
    if not count.isdecimal() or int(count) < 1:
        raise DistilError(f"{file!r} should be random:N with N real images per class, at least 1, as in random:10.")
    return int(count)


def compare(
    files: Annotated[
        Positional[tuple[Path, ...]],
        option("FILE [FILE ...]", "Distilled sets that were evaluated, or score files (.json)."),
    ],
    markdown: Annotated[FlagCreatePairsOff[bool], switch("Print Markdown.")] = False,
) -> None:
    """Print the scores of several sets as one table.

    Sets judged by different protocols or on different test images get a table each.

    Examples:
    distil compare idc.safetensors dsa.safetensors random10.json whole.json
    distil compare runs/*/distilled.safetensors --markdown
    """
    from distil.evaluate.compare import compare_table, to_markdown
    from distil.report.scores import by_table, scores_of

    if not files:
        raise DistilError("give the files to compare: distilled sets that were evaluated, or score files (.json).")
    tables = by_table([row for file in files for row in scores_of(file)])
    for rows in tables:
        if markdown:
            print(to_markdown(rows))
        else:
            console().print(compare_table(rows))
    if len(tables) > 1:
        print("Scores of different protocols or test images are not comparable, so they are in tables of their own.")


# ------------------------------------------------------------------------------------------------- show and export


def show(
    file: Positional[ArtifactFile],
    out: Annotated[Path | None, option("PNG", "Picture file; FILE with .png unless given.")] = None,
) -> None:
    """Draw a distilled set: its images, their regions and the views that a network sees.

    Examples:
    distil show runs/digits-idc-ipc1-seed0/distilled.safetensors
    distil show set.safetensors --out set.png
    """
    from distil.dataset.artifact import DistilledSet
    from distil.functional.utilisation import utilisation_entropy
    from distil.report.pictures import draw_set, save_figure

    distilled = DistilledSet.load(file)
    out = out or file.with_suffix(".png")
    if out.suffix.lower() != ".png":
        raise DistilError(f"--out {out}: pictures are PNG files: give a name that ends in .png.")
    save_figure(draw_set(distilled), out)
    size = _bytes(distilled.bytes["total"])
    print(f"{distilled.method} of {distilled.source}, {distilled.images_per_class} per class, {size}")
    if distilled.utilisation is not None:
        used = float(utilisation_entropy(distilled.utilisation))
        print(f"mUE {used:.3f} (entropy of the utilisation; 1 when every pixel is used alike)")
    print(f"Picture: {out}")


def export(
    file: Positional[ArtifactFile],
    to: Annotated[Literal["folder", "npz", "parquet"], arg(help="Layout.")],
    out: Annotated[Path, arg(metavar="PATH", help="Folder or file to write.")],
    overwrite: Annotated[FlagCreatePairsOff[bool], switch("Replace what an earlier export wrote.")] = False,
) -> None:
    """Write the views of a distilled set in a layout that other programs read.

    Layouts:
    folder   PNG files, one folder per class
    npz      arrays x_train, y_train, classes, mean, std
    parquet  columns image and label, as Hugging Face datasets reads them
    The images are not normalised: subtract mean and divide by std before a network.

    Examples:
    distil export set.safetensors --to folder --out set/
    distil export set.safetensors --to npz --out set.npz
    """
    from distil.dataset.artifact import DistilledSet
    from distil.dataset.export import export as write

    write(DistilledSet.load(file), to, out, overwrite=overwrite)
    print(f"Written: {out}")


# ------------------------------------------------------------------------------------------------ methods and demo


def methods(
    name: Annotated[Positional[str], option("NAME", f"{', '.join((*METHODS, *DETECTOR_METHODS))}.")] = "",
) -> None:
    """List the methods: what each is, costs and reaches.

    With NAME: every setting of that method, for each data set, and its source.

    Examples:
    distil methods
    distil methods idc
    distil methods gkd
    """
    if name in DETECTOR_METHODS:
        _describe_detector_method(name)
    elif name:
        preset(name, "custom", 1)
        _describe_method(name)
    else:
        _list_methods()


def _list_methods() -> None:
    from rich.table import Table

    table = Table(title="Test accuracy (%) as published, on CIFAR-10 at 1 / 10 / 50 images per class", show_lines=True)
    table.add_column("method", no_wrap=True)
    table.add_column("what it is", ratio=3)
    table.add_column("cost (DC = 1)", ratio=2)
    table.add_column("published", no_wrap=True)
    for method in METHODS.values():
        published = method.published.get("cifar10")
        what = f"[bold]{method.title}[/]. {method.description}\n[dim]{method.paper}[/]"
        table.add_row(method.name, what, method.cost, "not known" if published is None else _accuracies(published))
    console().print(table)
    print(f"Every setting of a method: distil methods NAME; of detectors NAME is {', '.join(DETECTOR_METHODS)}.")


def _accuracies(values: Iterable[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values)


IPCS = (1, 10, 50)


def _describe_method(name: str) -> None:
    from rich.table import Table

    method, output = METHODS[name], console()
    output.print(f"[bold]{name}[/]: {method.title}. {method.description}", highlight=False)
    output.print(f"Paper: {method.paper}\nCost, DC at 1 per class being 1: {method.cost}", highlight=False)
    keys = (*DATASETS, "custom")
    if method.published:
        table = Table(title="Published test accuracy (%), ConvNet-3", title_justify="left")
        for column in ("data set", *(f"{ipc} per class" for ipc in IPCS)):
            table.add_column(column)
        for key, values in method.published.items():
            table.add_row(key, *("-" if value is None else f"{value:.1f}" for value in values))
        output.print(table)

    values = {(key, ipc): asdict(preset(name, key, ipc)) for key in keys for ipc in IPCS}
    shared = Table(title="Settings that are the same everywhere", title_justify="left")
    varying = Table(title="Settings that depend on the data set or on the images per class", title_justify="left")
    for table, columns in (
        (shared, ("flag", "value", "source")),
        (varying, ("flag", "data set", *(f"{ipc} per class" for ipc in IPCS), "source")),
    ):
        for column in columns:
            table.add_column(column, no_wrap=column == "flag")
    for field in values[keys[0], IPCS[0]]:
        if field in ("method", "ipc"):
            continue
        flag, source = "--" + field.replace("_", "-"), method.sources.get(field, "")
        rows = {key: tuple(_setting(values[key, ipc][field]) for ipc in IPCS) for key in keys}
        alike: dict[tuple[str, ...], list[str]] = {}
        for key, row in rows.items():
            alike.setdefault(row, []).append(key)
        if len(alike) == 1 and len(set(rows[keys[0]])) == 1:
            shared.add_row(flag, rows[keys[0]][0], source)
            continue
        for index, (row, whose) in enumerate(alike.items()):
            shown, last = "all" if len(alike) == 1 else ", ".join(whose), index == len(alike) - 1
            varying.add_row("" if index else flag, shown, *row, "" if index else source, end_section=last)
    for table in (varying, shared):
        if table.row_count:
            output.print(table)
    print("digits: our own values, sized for two CPU cores. custom: any other source.")


def _describe_detector_method(name: str) -> None:
    from rich.table import Table

    output = console()
    output.print(f"[bold]{name}[/]: {DETECTOR_METHODS[name]}", highlight=False)
    output.print("Paper: Distilling Object Detectors With Global Knowledge. ECCV 2022", highlight=False)
    table = Table(title="Settings of distil detector train and distil", title_justify="left")
    for column in ("flag", "value", "for scenes", "source of the value"):
        table.add_column(column, no_wrap=column == "flag")
    own, scenes = (asdict(detector_preset(name, key)) for key in ("custom", "scenes"))
    for field, value in own.items():
        if field != "method":
            small = "" if scenes[field] == value else _setting(scenes[field])
            table.add_row(f"--{field.replace('_', '-')}", _setting(value), small, DETECTOR_SOURCES.get(field, "ours"))
    output.print(table)


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_setting(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def demo(
    which: Annotated[
        Positional[Literal["dataset", "detector"]], option("dataset|detector", "Which half of the tour.")
    ] = "dataset",
    out: Annotated[Path | None, option("DIR", "Folder for the report; demo or demo-detector unless given.")] = None,
    device: Device = "auto",
) -> None:
    """The tour on embedded handwriting, with an HTML report; no download.

    dataset (about three minutes on two CPU cores): IDC and UDD distil it to one image
    a class, judged beside real images. detector (about five): a teacher, a student
    alone and a student with the teacher's knowledge, on scenes of digits.

    Examples:
    distil demo
    distil demo detector --out somewhere/
    """
    where = device_named(device)
    if which == "detector":
        _demo_detector(out or Path("demo-detector"), where)
    else:
        _demo_dataset(out or Path("demo"), where)


def _demo_detector(out: Path, device: str) -> None:
    from rich.table import Table

    from distil.demo_detector import run_detector_demo
    from distil.report.progress import show_progress

    tour = run_detector_demo(out, device=device, stage=show_progress)
    table = Table(title="Average precision (%) on test scenes")
    for position, column in enumerate(("detector", "weights", "AP", "AP50", "AP75", "training")):
        table.add_column(column, justify="right" if position else "left")
    for name, row in tour.scores.items():
        figures = (f"{value:.1f}" for value in (row.ap, row.ap50, row.ap75))
        table.add_row(name, f"{tour.weights[name]:,}", *figures, f"{tour.seconds[name]:.0f} s")
    console().print(table)
    print("One run each: differences of a point or two are chance. distil detector compare measures them.")
    print(f"Report: {out / 'report.html'}")


def _demo_dataset(out: Path, device: str) -> None:
    from rich.table import Table

    from distil.demo import run_demo
    from distil.report.progress import show_progress

    rows = run_demo(out, device=device, stage=show_progress)
    table = Table(title="Test accuracy (%), mean ± standard deviation over networks")
    for position, column in enumerate(("trained on", "images per class", "bytes", "accuracy")):
        table.add_column(column, justify="right" if position else "left")
    for row in rows:
        count = row["images_per_class"]
        accuracy = f"{row['mean']:.1f} ± {row['std']:.1f}"
        table.add_row(row["name"], "all" if count is None else str(count), f"{row['bytes']:,}", accuracy)
    console().print(table)
    print(f"Report: {out / 'report.html'}")


def _bytes(count: int) -> str:
    return f"{count:,} bytes"


COMMANDS: dict[str, Callable[..., None]] = {
    "dataset": dataset,
    "evaluate": evaluate,
    "compare": compare,
    "show": show,
    "export": export,
    "methods": methods,
    "demo": demo,
}

if __name__ == "__main__":
    sys.exit(main())
