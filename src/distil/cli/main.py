"""The command line. Nothing heavy is imported before a command needs it, so that every help text comes at once."""

import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence

import distil
from distil.cli.concat import concat
from distil.cli.dataset import dataset, dataset_command
from distil.cli.demo import demo
from distil.cli.evaluate import evaluate
from distil.cli.experts import experts, experts_command
from distil.cli.flags import flag_of, parse
from distil.cli.label import label
from distil.cli.methods import methods
from distil.cli.sets import compare, export, show
from distil.cli.streams import lasting_streams, open_standard_streams, to_nowhere
from distil.data.catalog import NAMES
from distil.dataset.methods import METHODS
from distil.errors import DistilError
from distil.lookup import chosen
from distil.memory import freed_memory_kept
from distil.processes import Lost, is_first_to_tell, several
from distil.runs import Interrupted
from distil.stopping import number_of, signals_interrupt

HELP = """\
usage: distil COMMAND ...

Distil a dataset into a few images a class, or a detector into a smaller one; evaluate both fairly.

  distil dataset METHOD SOURCE    make a distilled set; --resume DIR continues a stopped run
  distil experts SOURCE           train the networks that mtt, datm, fred and ncfm need beforehand
  distil evaluate FILE SOURCE     train fresh networks on it and report their test accuracy
  distil label FILE --teacher M   store a teacher's soft labels in it
  distil compare FILE FILE ...    one table of sets that were evaluated
  distil show FILE                draw its images, its regions and the views that a network sees
  distil export FILE --to LAYOUT  write it as an image folder, npz or parquet
  distil concat A B --out C       join sets of different classes in one file
  distil methods [NAME]           what each method is, costs and reaches; every published setting
  distil detector COMMAND         train a small object detector with the knowledge of a large one
  distil demo [detector]          the tour on embedded handwriting, in three minutes, or five

  distil COMMAND --help           the flags of a command, with examples
  distil --version

METHOD  {methods}
SOURCE  {sources} (digits is embedded),
        a folder with one folder of images per class, FILE.npz, or hf:NAME

Start here:
  distil demo
  distil dataset idc digits
"""


RUNS = ("dataset", "experts", "evaluate", "demo", "detector")
"""Commands whose work does not stop when nobody reads what they print."""

SPREAD = ("dataset", "evaluate", "detector")
"""Commands that several processes can share."""

NO_SPACE = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0; 2 for what the user can mend; 128 and the number of the signal
    that stopped it, so 130 for Ctrl-C; 141 if nobody reads what a command only prints."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    open_standard_streams()
    if not words or words[0] not in RUNS:
        with signals_interrupt():
            return _status(words)
    with signals_interrupt(), lasting_streams(), freed_memory_kept():
        return _status(words)


def _status(words: list[str]) -> int:
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except Interrupted as stop:
        return _fail(stop, 128 + stop.number)
    except Lost as lost:
        return 2 if lost.explained else _fail(lost, 2)
    except DistilError as error:
        return _fail(error.told(flag_of), 2)
    except KeyboardInterrupt as stop:
        return _fail("interrupted", 128 + number_of(stop))
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone: nothing is left to tell
        to_nowhere(sys.stdout)
        return 141
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return _fail("out of memory: lower --width, --size, --ipc or the batch, or take a device with more.", 2)
    except OSError as error:
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}. Check the path and its permissions.", 2)
        if _working_folder_is_gone():
            return _fail("the working folder was deleted: change to another one and give the command again.", 2)
        if error.errno not in NO_SPACE:
            raise
        to_nowhere(sys.stdout)
        return _fail(f"the output cannot be written: {error.strerror}. Free space there, or print elsewhere.", 2)


def _working_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _out_of_memory(error: Exception) -> bool:
    """Whether memory, of the machine or of its GPU, did not suffice."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in told or "can't allocate memory" in told


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(methods=_lines(METHODS), sources=", ".join(NAMES)), end="")
        return 0
    if words[0] == "--version":
        print(f"distil {distil.__version__}")
        return 0
    name, rest = words[0], words[1:]
    known = (*COMMANDS, "detector")
    chosen("command", name, known)
    if several() and name not in SPREAD:
        raise DistilError(f"distil {name} runs in one process: start it without torchrun.")
    try:
        if name == "dataset":
            dataset_command(rest)
        elif name == "experts":
            experts_command(rest)
        elif name == "detector":
            from distil.cli.detector import detector_command

            detector_command(rest)
        else:
            parse(COMMANDS[name], name, rest, COMMANDS[name])
    except SystemExit as stop:  # tyro has printed a help text, or what is wrong with a flag
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _lines(words: Iterable[str]) -> str:
    """Words joined by commas, in lines that begin below one another."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 80:
            lines.append("")
        lines[-1] += f"{word}, "
    return "\n        ".join(line.rstrip() for line in lines).rstrip(",")


def _fail(message: object, status: int) -> int:
    """Tell why a command ends; of several processes the first to end does."""
    try:
        if is_first_to_tell():
            print(f"distil: {message}", file=sys.stderr, flush=True)
    except OSError:
        to_nowhere(sys.stderr)
    return status


COMMANDS: dict[str, Callable[..., None]] = {
    "dataset": dataset,
    "experts": experts,
    "evaluate": evaluate,
    "label": label,
    "compare": compare,
    "show": show,
    "export": export,
    "concat": concat,
    "methods": methods,
    "demo": demo,
}

if __name__ == "__main__":
    sys.exit(main())
