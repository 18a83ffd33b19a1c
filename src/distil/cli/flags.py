"""What the commands share: how tyro shows a flag, what a --device word means, where tables are printed."""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from distil.errors import DistilError
from distil.lookup import nearest as near_name

if TYPE_CHECKING:
    from rich.console import Console


def option(metavar: str, help: str) -> Any:
    """How tyro shows a flag that has no value unless given: without "(default: None)"."""
    return arg(metavar=metavar, help=help, help_behavior_hint="")


def switch(help: str) -> Any:
    """How tyro shows a flag that takes no value."""
    return arg(help=help, help_behavior_hint="")


Device = Annotated[str, arg(metavar="auto|cpu|cuda", help="Where to compute; auto takes a GPU if there is one.")]
Switch = FlagCreatePairsOff[bool]


def parse(
    command: Callable[..., None], name: str, words: Sequence[str], told: Callable[..., None], more: str = ""
) -> None:
    """Let tyro read the words and call the command with them, or print its help.

    name: of the command, after "distil". told: whose docstring is the help text; more: what ends it.
    """
    paragraphs = f"{inspect.getdoc(told) or ''}\n{more}".strip().split("\n\n")
    description = "\n\n".join(text.replace("\n", "\n  ") for text in paragraphs)  # tyro joins unindented lines
    if {"-h", "--help"} & set(words):
        words = ["--help"]  # tyro leaves out of a help text what it has already read
    tyro.cli(command, prog=f"distil {name}", description=description, args=words)


def device_named(word: str) -> str:
    """The device that a --device word means. Raises: DistilError if this machine lacks it."""
    import torch

    if word == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if word.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise DistilError(f"--device {word} is none that distil computes on: use auto, cpu, cuda, cuda:N or mps.")
    try:
        torch.empty(0, device=word)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DistilError(f"--device {word} cannot be used here ({reason}): use auto or cpu.") from error
    return word


def versions() -> dict[str, str]:
    """Versions of distil, torch and Python, for the files that a command writes."""
    import torch

    import distil

    return {"distil": distil.__version__, "torch": str(torch.__version__), "python": sys.version.split()[0]}


def console() -> "Console":
    """Standard output; wide enough for a table when it is not a terminal."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:  # rich would end the program with status 1
            raise BrokenPipeError

    return Output() if sys.stdout.isatty() else Output(width=140)


def scan(
    words: Sequence[str], switches: Iterable[str], several: Mapping[str, int | None] | None = None, *, wanted: int = 0
) -> tuple[list[str], dict[str, str]]:
    """The positional words, and the flags with their values (of those that take several, the first).

    For what has to be known before the words can be read in full. switches: flags that take no value. several: flags
    that take more than one, and how many; None: as many as stand before the next flag, or, as tyro has it, before the
    last words that are needed for `wanted` positional ones.
    """
    positional: list[str] = []
    values: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            positional.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        given = [value] if equals else []
        count = 0 if flag in switches else (several or {}).get(flag, 1)
        if count is None:
            while len(left) > wanted - len(positional) and not left[0].startswith("-"):
                given.append(left.pop(0))
        else:
            while left and len(given) < count:
                given.append(left.pop(0))
        values[flag] = given[0] if given else ""
    return positional, values


def flag_of(reference: str) -> str:
    """The flag of a setting or an argument: of "fix_boxes" --fix-boxes, of "size=64" --size 64, and of a switch,
    "download=True", --download."""
    name, _, value = reference.partition("=")
    flag = "--" + name.replace("_", "-")
    return flag if value in ("", "True") else f"{flag} {value}"


def nearest(word: str, known: Iterable[str]) -> str:
    """ " Did you mean ...?", or nothing."""
    near = near_name(word, known)
    return f" Did you mean {near!r}?" if near else ""
