"""The command line. Nothing heavy is imported before a command needs it, so that every help text comes at once."""

import difflib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import distil
from distil.errors import DistilError
from distil.presets import DATASETS, METHODS, preset, source_key
from distil.runs import CHECKPOINT, LOG, MANIFEST, RESULT, EventLog, Interrupted, read_log, read_manifest, start_run
from distil.settings import CoresetSettings, MatchingSettings, Settings, check_settings, settings_from_dict

if TYPE_CHECKING:
    from distil.dataset.artifact import DistilledSet
    from distil.evaluate.judge import Scores
    from distil.sources import Source

HELP = """\
usage: distil COMMAND ...

Distil a dataset into a few images a class, and judge the result fairly.

  distil dataset METHOD SOURCE    make a distilled set; --resume DIR goes on with a stopped run
  distil evaluate FILE SOURCE     train fresh networks on it and report their test accuracy
  distil compare FILE FILE ...    one table of sets that were evaluated
  distil show FILE                draw its images, its regions and the views that a network sees
  distil export FILE --to LAYOUT  write it as an image folder, npz or parquet
  distil methods [NAME]           what each method is, costs and reaches; every published setting
  distil demo                     the whole tour on embedded handwriting, in about three minutes

  distil COMMAND --help           the flags of a command, with examples
  distil --version

METHOD  {methods}
SOURCE  digits (embedded), mnist, fashionmnist, svhn, cifar10, cifar100,
        a folder with a folder of images per class, FILE.npz, or hf:NAME

Start here:
  distil demo
  distil dataset idc digits
"""

SOURCE_HELP = "digits, mnist, fashionmnist, svhn, cifar10, cifar100, a folder, FILE.npz or hf:NAME"
RUN_FORMAT = 1
"""Version of run.json."""


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
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}. Check the path and its permissions.", 2)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP.format(methods=", ".join(METHODS)), end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"distil {distil.__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise DistilError(f"unknown command {name!r}.{_nearest(name, COMMANDS)} Commands: {', '.join(COMMANDS)}.")
    try:
        COMMANDS[name](rest)
    except SystemExit as stop:  # tyro has printed a help text or what is wrong
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _fail(message: object, status: int) -> int:
    print(f"distil: {message}", file=sys.stderr)
    return status


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _parse(command: Callable[..., None], name: str, words: list[str], description: str) -> None:
    """Let tyro read the flags of `command` and call it."""
    import tyro

    tyro.cli(command, prog=f"distil {name}", description=description, args=words)


# Flags that several commands share. tyro reads types from annotations, so these are written out once here.
def _flags() -> Any:
    import tyro

    return tyro.conf


# ---------------------------------------------------------------------------------------------------------- dataset
