"""The state of a training run on disk: weights, the losses' own parameters, the optimiser, and where the run is."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.settings import DetectorSettings

KIND = "detector training"
VERSION = 1
FREE = ("method", "workers", "teacher_floor")
"""Settings that decide nothing about the weights: a resumed run may have others."""


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 in hexadecimal of weights, of their names, types and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    header: Mapping[str, Any],
    gathered: Mapping[str, Tensor],
) -> None:
    """Write a module's state and its optimiser's, atomically; `header` is what JSON can hold.

    gathered: features gathered so far for the next choice of prototypes.

    Raises: DistilError when a weight is not finite: the file of before is then kept.
    """
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise DistilError(
            f"the weights {broken[0].removeprefix('module.')} are not finite numbers: lower --lr, or set --clip. The "
            f"last checkpoint{f', {path},' if path.is_file() else ''} is from before and is kept."
        )
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": x for key, x in values.items() if isinstance(x, Tensor)}
    tensors |= {f"gathered.{name}": x for name, x in gathered.items()}
    save_tensors(path, tensors, {"kind": KIND, "version": VERSION, **header})


def read_checkpoint(path: Path, settings: DetectorSettings, made_for: Mapping[str, Any]) -> tuple[dict, dict]:
    """Tensors and header of a checkpoint that belongs to these settings and this data.

    made_for: facts that must be the same in the header if it has them, as {"data": "NAME", "images": 100}.
    Raises: DistilError that names what differs, or when the file is another kind of file.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != KIND or header.get("version") != VERSION:
        raise DistilError(f"{path} is no checkpoint of a detector's training: give the folder of such a run.")
    saved = asdict(DetectorSettings()) | header["settings"]  # of a setting that is new, the default is what was
    saved = {key: list(x) if isinstance(x, tuple) else x for key, x in saved.items()}
    now = {key: list(x) if isinstance(x, tuple) else x for key, x in asdict(settings).items()}
    pairs = [(f"--{key.replace('_', '-')}", saved.get(key), value) for key, value in now.items() if key not in FREE]
    pairs += [(key, header[key], value) for key, value in made_for.items() if key in header]
    for what, before, value in pairs:
        if before != value:
            raise DistilError(
                f"{path} was made with {what} {before}, and this run has {value}: resume with what the run began with, "
                "or start another run with --out."
            )
    return tensors, header


def restore(module: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's tensors back, strictly.

    Raises: DistilError when the module is another one than the checkpoint's.
    """
    weights = {name.removeprefix("module."): x for name, x in tensors.items() if name.startswith("module.")}
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise DistilError(
            f"the checkpoint is of another detector or of other losses ({str(error).splitlines()[-1].strip()}): resume "
            "with the architecture and --knowledge that the run began with."
        ) from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, x in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = x
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
