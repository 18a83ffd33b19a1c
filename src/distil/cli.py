"""The command line. Nothing heavy is imported before a command needs it, so that every help text comes at once."""

import os
import sys
from collections.abc import Callable, Sequence

import distil
from distil.commands.dataset import dataset, dataset_command
from distil.commands.demo import demo
from distil.commands.methods import methods
from distil.commands.sets import compare, evaluate, export, show
from distil.errors import DistilError
from distil.flags import nearest, parse
from distil.presets import METHODS
from distil.runs import Interrupted

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
            dataset_command(rest)
        elif name == "detector":
            from distil.commands.detector import detector_command

            detector_command(rest)
        else:
            parse(COMMANDS[name], name, rest, COMMANDS[name])
    except SystemExit as stop:  # tyro has printed a help text, or what is wrong with a flag
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _fail(message: object, status: int) -> int:
    print(f"distil: {message}", file=sys.stderr)
    return status


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
