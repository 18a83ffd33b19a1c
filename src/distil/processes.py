"""Several processes that do one job together, started by torchrun, and what they tell each other.

What is worked out apart is handed round as it is, never added up, so that the bytes are those of one process.
"""

import atexit
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from distil.errors import DistilError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Value = TypeVar("Value")
Piece = TypeVar("Piece")
Rows = Mapping[str, "Tensor"]
"""Tensors by name whose first dimensions are of one length."""

PATIENCE = timedelta(days=7)
"""How long a process waits for another that is alive, as while that trains a network; one that has died is noticed."""
ALIGNED = 16
"""Every tensor that is packed begins at a multiple of so many bytes."""


class Lost(DistilError):
    """Another process has ended, so that this one cannot go on. explained: whether that one says why."""

    def __init__(self, message: str = "another process has ended, so all have stopped.", *, explained: bool = False):
        super().__init__(message)
        self.explained = explained


def several() -> bool:
    """Whether this is one of several processes that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def is_first() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def is_first_to_tell() -> bool:
    """Whether no other process has asked this before: the one that may tell why all stop. True for a single process."""
    if not several():
        return True
    import torch

    key = f"distil/told/{os.environ['TORCHELASTIC_RUN_ID']}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        connect = torch.distributed.TCPStore  # pyright: ignore[reportPrivateImportUsage]
        store = connect(*address, is_master=False, timeout=timedelta(seconds=5))
        return store.add(key, 1) == 1
    except (
        KeyError,
        RuntimeError,
        ValueError,
    ):  # no store: they have not met yet, or the first, which keeps it, has died
        return is_first() or torch.distributed.is_initialized()


@dataclass(frozen=True)
class Processes:
    """`count` processes, of which this is number `rank`; as it stands, one alone.

    All of them call every method but `mine` and `leading`, in the same order. Raises: Lost where another has ended.
    """

    rank: int = 0
    count: int = 1
    device: "torch.device | str" = "cpu"
    """What this process computes on."""
    known: dict[str, dict[str, tuple[tuple[int, ...], "torch.dtype"]]] = field(default_factory=dict, compare=False)
    """What rows are like that have been shared before."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def waits_for_device(self) -> bool:
        """Whether the processes cannot speak to each other while their devices are computing."""
        return self.count > 1 and str(self.device) != "cpu"

    def mine(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, Piece]]:
        """This process's share of the pieces, with their numbers: they are dealt out in turn."""
        return ((number, piece) for number, piece in enumerate(pieces) if number % self.count == self.rank)

    def rows(self, name: str, sizes: Sequence[int], found: Mapping[int, Rows]) -> dict[str, "Tensor"]:
        """The rows of all pieces, in their order. sizes: rows of each piece. found: those of this process's pieces.

        name: of what is shared. Under one name tensors have the same names, types and trailing dimensions every time.
        """
        import torch

        if self.count == 1:
            return {key: torch.cat([found[i][key] for i in range(len(sizes))]) for key in found[0]}
        if name not in self.known:
            like = {key: (tuple(rows.shape[1:]), rows.dtype) for key, rows in found[0].items()} if self.first else None
            self.known[name] = self.from_first(lambda: like) or {}
        like = self.known[name]
        pieces: dict[tuple[int, str], Tensor] = {}
        for owner in range(self.count):
            wanted = [(i, key) for i in range(owner, len(sizes), self.count) for key in like]
            if owner == self.rank:
                own = {(i, key): found[i][key] for i, key in wanted}
            else:
                shapes = {(i, key): ((sizes[i], *like[key][0]), like[key][1]) for i, key in wanted}
                own = {at: torch.empty(size, dtype=dtype, device=self.device) for at, (size, dtype) in shapes.items()}
            self.same_(list(own.values()), owner)
            pieces |= own
        return {key: torch.cat([pieces[i, key] for i in range(len(sizes))]) for key in like}

    def same_(self, tensors: Sequence["Tensor"], owner: int = 0) -> None:
        """Give tensors of equal shapes everywhere the values that they have in the process `owner`, in place."""
        import torch

        if self.count == 1 or not tensors:
            return
        sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // ALIGNED) * ALIGNED)
        packed = torch.zeros(starts[-1], dtype=torch.uint8, device=self.device)
        places = [
            packed[start : start + size].view(tensor.dtype).view(tensor.shape)
            for start, size, tensor in zip(starts[:-1], sizes, tensors, strict=True)
        ]
        with torch.no_grad():
            for place, tensor in zip(places, tensors, strict=True) if owner == self.rank else ():
                place.copy_(tensor)
            with _noticing():
                torch.distributed.broadcast(packed, owner)
            for place, tensor in zip(places, tensors, strict=True) if owner != self.rank else ():
                tensor.copy_(place)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        import torch

        if self.count == 1:
            return number
        shared = torch.tensor(number, device=self.device)
        with _noticing():
            torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)

    def every(self, value: Value) -> list[Value]:
        """What each process gives, tensors on the CPU, in their order."""
        import torch

        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with _noticing():
            torch.distributed.all_gather_object(values, value)
        return values

    def from_first(self, compute: Callable[[], Value]) -> Value:
        """What `compute()` gives in the first process, tensors on the CPU, in all of them.

        Raises: in the first process what `compute` raises; in the others Lost, since that one tells why.
        """
        if not self.first:
            return self.follow()
        with self.leading() as tell:
            value = compute()
            tell(value)
        return value

    @contextmanager
    def leading(self) -> Iterator[Callable[[Any], None]]:
        """For the first process, in the place of `follow` in the others: does what only one may do before they begin.
        Yields what is called with that which they shall know. Where it is not called, there is nothing for them to do;
        where something is raised before, they end too.
        """
        told = False

        def tell(value: Any) -> None:
            nonlocal told
            told = True
            self._from_first(value)

        try:
            yield tell
        except BaseException:
            if not told and self.count > 1:
                with suppress(Lost):
                    self._from_first(None, refused=True)
            raise
        if not told and self.count > 1:
            self._from_first(None)

    def follow(self) -> Any:
        """What the first process lets the others know (see `leading`); None where there is nothing to do.

        Raises: Lost if that has raised something before.
        """
        return self._from_first(None)

    def _from_first(self, value: Any, *, refused: bool = False) -> Any:
        import torch

        if self.count == 1:
            return value
        told = [(refused, value)]
        with _noticing():
            torch.distributed.broadcast_object_list(told, device=torch.device(self.device))
        refused, value = told[0]
        if refused and not self.first:
            raise Lost(explained=True)
        return value


ONE = Processes()
"""A process alone."""


def joined(device: "torch.device | str") -> Processes:
    """The processes that torchrun started, which meet here; ONE without it. device: of each, by its type.

    Raises: DistilError when the device is not there.
    """
    if not several():
        return ONE
    fabric = make_fabric(device, "32-true", PATIENCE)
    return Processes(fabric.global_rank, fabric.world_size, fabric.device)


def make_fabric(device: "torch.device | str", precision: str, patience: timedelta | None = None) -> Any:
    """Lightning Fabric on one device, or on those of all processes that torchrun started.

    patience: how long processes wait for each other; None: half an hour.

    Raises: DistilError when the device is not there or cannot compute in this precision.
    """
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DistilError("this machine has no CUDA device, or torch cannot see it: use {device=cpu}.", field="device")
    if device.type == "cpu" and precision == "16-mixed":
        raise DistilError("{precision=16-mixed} needs a GPU: use bf16-mixed or 32.", field="precision")
    options: dict[str, Any] = {"devices": 1 if device.index is None else [device.index]}
    if device.type == "cpu":
        options = {"devices": 1}
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        if device.type == "cuda" and local > torch.cuda.device_count():
            raise DistilError(
                f"{local} processes were started, and this machine has {torch.cuda.device_count()} CUDA devices, one "
                "for each process: start no more than that (torchrun --nproc-per-node), or use {device=cpu}.",
                field="device",
            )
        options = {"devices": local, "num_nodes": world // local}
        if world > 1:
            waiting: dict[str, Any] = {} if patience is None else {"timeout": patience}
            options["strategy"] = DDPStrategy(find_unused_parameters=True, **waiting)
    with _without_remarks("lightning_fabric", "lightning.fabric"):
        fabric = Fabric(accelerator=device.type, precision=precision, **options)  # pyright: ignore[reportArgumentType]
        fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Leave the other processes before the interpreter ends: threads that still serve them would abort it."""
    import torch

    if torch.distributed.is_initialized():
        with suppress(RuntimeError):
            torch.distributed.destroy_process_group()


@contextmanager
def _noticing() -> Iterator[None]:
    """Within the block a process that has died is an error of its own."""
    try:
        yield
    except RuntimeError as error:
        raise Lost from error


@contextmanager
def _without_remarks(*loggers: str) -> Iterator[None]:
    """Loggers tell warnings only."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
