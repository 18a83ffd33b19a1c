"""A device that is not there: tensors on the CPU that say "cuda", and errors where a real one would raise them.

Every tensor that a call of torch makes is marked with where it would lie. Tensors of two places in one call, a number
drawn on one by a generator of the other and NumPy on a device are errors, as they are on a GPU. Tensors that torch
makes out of sight (in vmap, in a backward pass) are not marked and go with anything.

torch's FakeTensorMode is no substitute: its tensors have no values, so it stops at the first `item` or `nonzero`, of
which evaluation and detection are full; and it counts no waits for the device.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
MOVES = {"to", "cpu", "cuda", "copy_", "type", "_has_compatible_shallow_copy_type"}
TAKES_ANY_INDEX = {"__getitem__", "__setitem__", "index_put_", "index_put"}
LEAVES = {"tolist", "item", "__bool__", "__int__", "__float__", "__index__", "__len__", "__repr__", "__format__"}
WAITS = {"tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "nonzero", "masked_select", "unique"}
MAKERS = {
    *("tensor", "as_tensor", "from_numpy", "empty", "zeros", "ones", "full", "arange", "eye", "linspace", "rand"),
    *("randn", "randint", "randperm", "tril_indices", "triu_indices", "frombuffer", "logspace", "empty_strided"),
}


MOST = 50_000
"""Places kept before those of freed memory are forgotten."""


class WrongDevice(AssertionError):
    """What a GPU would have refused."""


_PLACES: dict[int, tuple[StorageWeakRef, torch.device]] = {}
"""Where the memory of tensors pretends to lie. The reference keeps an address from being given to another."""


def place_of(tensor: Tensor) -> torch.device | None:
    """Where a tensor pretends to lie; None if nobody knows."""
    if (storage := _storage(tensor)) is None:
        return getattr(tensor, "_pretended", None)
    return _PLACES.get(storage._cdata, (None, None))[1]


def _mark(tensor: Tensor, place: torch.device | None) -> None:
    if place is None:
        return
    if (storage := _storage(tensor)) is None:
        tensor._pretended = place  # pyright: ignore[reportAttributeAccessIssue]
    else:
        _PLACES[storage._cdata] = StorageWeakRef(storage), place
        if len(_PLACES) > MOST:
            for address in [address for address, (memory, _) in _PLACES.items() if memory.expired()]:
                del _PLACES[address]


def _storage(tensor: Tensor) -> Any:
    """The memory of a tensor; None for those that functions of torch.func see."""
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in _leaves(values) if isinstance(leaf, Tensor)]


def _leaves(values: Any) -> Iterator[Any]:
    """What lists, tuples and dictionaries hold; torch's own tree_flatten took half of the time here."""
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, (list, tuple)):
        yield values
        return
    for value in values:
        yield from _leaves(value)


def _device(word: Any) -> torch.device | None:
    if isinstance(word, torch.device):
        return word
    if isinstance(word, str) and word.partition(":")[0] in ("cpu", "cuda"):
        return torch.device(word)
    return None


class PretendedGpu(TorchFunctionMode):
    """While it lasts, device="cuda" works without one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        """How many calls had a tensor on the device."""
        self.waits: Counter[str] = Counter()
        """Calls for which the processor would have to wait until the device is done, by name."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        owner = getattr(func, "__self__", None)
        if name == "__get__" and owner is Tensor.device:
            return place_of(args[0]) or GPU
        if name == "__get__" and owner is Tensor.is_cuda:
            return (place_of(args[0]) or GPU).type == "cuda"

        given = _tensors((args, kwargs))
        places = {place for tensor in given if (place := place_of(tensor)) is not None}
        self.calls += any(place.type == "cuda" for place in places)
        wanted, args, kwargs = _asked_for(name, args, kwargs)
        if given and place_of(given[0]) == GPU:
            by_mask = name in TAKES_ANY_INDEX and any(each.dtype == torch.bool and each.dim() for each in given[1:])
            if name in WAITS or by_mask or (name == "to" and wanted == CPU):
                self.waits[name] += 1
        self._refuse(name, given, args, kwargs, wanted)
        made = func(*args, **kwargs)
        if name in LEAVES or not isinstance(args, tuple):
            return made
        if wanted is not None and made is args[0] and place_of(made) != wanted:
            made = made.clone()
        source = args[0] if name in ("copy_", "__setitem__", "index_put_") and given else None
        place = wanted if wanted is not None else _common(given, source)
        if not given and place is None and name in MAKERS:
            place = CPU
        for tensor in _tensors(made) if name != "__set__" else ():
            _mark(tensor, place)
        return made

    def _refuse(self, name: str, given: list[Tensor], args: Any, kwargs: Any, wanted: torch.device | None) -> None:
        if name in ("numpy", "__array__") and place_of(given[0]) not in (None, CPU):
            raise WrongDevice(f"{name} of a tensor on {place_of(given[0])}: a GPU wants .cpu() first")
        generators = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, torch.Generator)]
        target = wanted or _common(given, None)
        if generators and target is not None and target.type == "cuda":
            raise WrongDevice(f"{name} on {target} with a generator of the CPU")
        if name in MOVES or name == "__set__":
            return
        if name in TAKES_ANY_INDEX:
            if place_of(args[0]) == CPU and any(place_of(each) == GPU for each in _tensors(args[1])):
                raise WrongDevice(f"{name}: a tensor on the CPU is indexed by one on {GPU}")
            return
        places = {place for tensor in given if (place := place_of(tensor)) is not None}
        if len(places) > 1 and any(place_of(each) == CPU and each.dim() for each in given):
            told = ", ".join(f"{tuple(each.shape)} on {place_of(each) or 'anything'}" for each in given)
            raise WrongDevice(f"{name} of {told}")
        if len(places) > 1 and name in ("cat", "stack", "matmul", "mm", "bmm", "linear", "conv2d"):
            raise WrongDevice(f"{name} of tensors on {places}")


def _common(given: list[Tensor], first: Tensor | None) -> torch.device | None:
    """Where a result lies."""
    if first is not None:
        return place_of(first)
    places = [place_of(each) for each in given]
    if GPU in places:
        return GPU
    return CPU if places and all(place == CPU for place in places) else None


def _asked_for(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[torch.device | None, Any, dict[str, Any]]:
    """The device that a call names, and its arguments with the CPU in its place."""
    wanted = _device(kwargs.get("device"))
    if wanted is not None:
        kwargs["device"] = CPU
    if name == "cpu":
        wanted = CPU
    if name == "to":
        for position, word in enumerate(args[1:], 1):
            if isinstance(word, Tensor):
                wanted = place_of(word)
            elif (device := _device(word)) is not None:
                wanted, args = device, (*args[:position], CPU, *args[position + 1 :])
    if wanted is not None and wanted.type == "cuda":
        wanted = GPU
    kwargs.pop("non_blocking", None)
    return wanted, args, kwargs


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Inside, device="cuda" works and is watched."""
    from_numpy, fork_rng = torch.from_numpy, torch.random.fork_rng

    def marked(array: Any) -> Tensor:
        tensor = from_numpy(array)
        _mark(tensor, CPU)
        return tensor

    module = SimpleNamespace(
        device=lambda device: nullcontext(),
        manual_seed=torch.default_generator.manual_seed,
        is_available=lambda: False,
    )
    with ExitStack() as stack:
        for place, name, instead in (
            (torch, "from_numpy", marked),
            (torch.random, "fork_rng", lambda devices=None, **options: fork_rng([], **options)),
            (torch, "get_device_module", lambda device=None: module),
            (torch.cuda, "synchronize", lambda device=None: None),
        ):
            stack.enter_context(mock.patch.object(place, name, instead))
        stack.callback(_PLACES.clear)
        yield stack.enter_context(PretendedGpu())
