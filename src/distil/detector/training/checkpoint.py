"""The state of a training run on disk: weights, the losses' own parameters, the optimizer, and where the run is."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil import runs
from distil.checks import shown
from distil.detector.settings import DetectorSettings, detector_settings_from_dict, determining
from distil.errors import DistilError
from distil.runs import CHECKPOINT, has_checkpoint

KIND = "detector training"
VERSION = 2
"""1 is that of version 0.1 (`distil.detector.upgrade`)."""
LARGEST = 1e9
"""No weight of a network that still learns is larger."""
LARGEST_MOMENT = {"momentum_buffer": 1e9, "exp_avg": 1e9, "exp_avg_sq": 1e18}
"""Nor is what an optimizer keeps of its gradients, or of their squares."""
FIELDS: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "settings": (dict,),
    "history": (list,),
    "seconds": (int, float),
    "scaler": (dict,),
}
"""What a checkpoint's header must hold besides its kind and version, and its types."""


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 in hexadecimal of weights, of their names, types and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    header: Mapping[str, Any],
    extra: Mapping[str, Tensor],
) -> None:
    """Write a module's state and its optimizer's into a run folder, atomically; `header` is what JSON can hold.

    The checkpoint before it is kept. extra: what losses keep besides, after the loss's name and a point.

    Raises: DistilError when a weight is not finite: the files of before are then kept.
    """
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    if broken := _not_finite(tensors):
        kept = f", {folder / CHECKPOINT}," if has_checkpoint(folder) else ""
        raise DistilError(
            f"the weights {broken.removeprefix('module.')} are not finite numbers: lower {{lr}}, or set {{clip}}. "
            f"The last checkpoint{kept} is from before and is kept.",
            field=("lr", "clip"),
        )
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": x for key, x in values.items() if isinstance(x, Tensor)}
    tensors |= {f"extra.{name}": x for name, x in extra.items()}
    runs.save_checkpoint(folder, tensors, {"kind": KIND, "version": VERSION, **header})


def refuse_other_run(
    path: Path, header: Mapping[str, Any], settings: DetectorSettings, made_for: Mapping[str, Any]
) -> None:
    """Refuse the header of a checkpoint that does not belong to these settings and this data.

    made_for: facts that must be the same in the header if it has them, as {"data": "NAME", "images": 100}.
    Raises: DistilError that names what differs, or when the file is another kind of file.
    """
    if header.get("kind") != KIND or header.get("version") not in (1, VERSION):
        raise DistilError(f"{path} is no checkpoint of a detector's training: give the folder of such a run.")
    for name, types in FIELDS.items():
        value = header.get(name)
        if not isinstance(value, types) or isinstance(value, bool):
            raise DistilError(f"{path}: {name!r} in its header is {shown(value)}. {REMEDY}")
    saved, now = determining(detector_settings_from_dict(header["settings"])), determining(settings)
    pairs = [(f"{{{name}}}", saved.get(name), value) for name, value in now.items()]
    for key, value in made_for.items():
        before = header.get(key, value)
        if isinstance(value, dict) and isinstance(before, dict):
            pairs += [(f"{key} {name}", before.get(name), value.get(name)) for name in before | value]
        else:
            pairs.append((key, before, value))
    for what, before, value in pairs:
        if before != value:
            raise DistilError(
                f"{path} was made with {what} {before}, and this run has {value}: resume with what the run began with, "
                "or start another run ({out}).",
                field=(*now, "out"),
            )


def refuse_unsound(
    path: Path,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    epoch_steps: int,
) -> None:
    """Refuse a state from which no run can continue: another module's, not finite, or beyond what a run can reach.

    header: one that `refuse_other_run` has passed. epoch_steps: of an epoch, as many in each of the `epochs`.
    Raises: DistilError that names the file, what is wrong in it, and the remedy.
    """
    step, steps = header["step"], epochs * epoch_steps
    if not 0 <= step <= steps:
        raise DistilError(f"{path}: its step is {step}, and the run has {steps} steps. {REMEDY}")
    if not 0 <= header["seconds"] < math.inf:
        raise DistilError(f"{path}: its seconds are {header['seconds']}. {REMEDY}")
    _refuse_history(path, header["history"], step // epoch_steps)
    if broken := _not_finite(tensors):
        raise DistilError(f"{path}: {broken} holds what is no finite number. {REMEDY}")
    _refuse_weights(path, tensors, module)
    _refuse_optimizer(path, tensors, optimizer, steps)


def restore(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's tensors back, strictly; they are those of this module (see `refuse_unsound`)."""
    weights = {name.removeprefix("module."): x for name, x in tensors.items() if name.startswith("module.")}
    module.load_state_dict(weights, strict=True)
    state: dict[int, dict[str, Tensor]] = {}
    for name, x in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = x
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


REMEDY = "It is damaged, and no run can continue from it: start the run again in another folder."


def _refuse_history(path: Path, history: list[Any], epochs: int) -> None:
    """Validations of the epochs that are done: rising epochs, and figures that are finite or None."""
    before = 0
    for entry in history:
        epoch = entry.get("epoch") if isinstance(entry, dict) else None
        figures = [entry.get(name, "") for name in ("ap", "ap50")] if isinstance(entry, dict) else [""]
        good = all(x is None or (isinstance(x, int | float) and abs(x) < math.inf) for x in figures)
        if not isinstance(epoch, int) or not before < epoch <= epochs or not good:
            raise DistilError(f"{path}: its history has {shown(entry)} after {epochs} epochs. {REMEDY}")
        before = epoch


def _refuse_weights(path: Path, tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    stored = {name.removeprefix("module."): x for name, x in tensors.items() if name.startswith("module.")}
    wanted = module.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in stored]
    problems += [f"{name} is left over" for name in stored if name not in wanted]
    problems += [
        f"size mismatch for {name}: {tuple(x.shape)}, not {tuple(wanted[name].shape)}"
        for name, x in stored.items()
        if name in wanted and x.shape != wanted[name].shape
    ]
    if problems:
        raise DistilError(
            f"the checkpoint is of another detector or of other losses ({problems[0]}; {path}): resume with the "
            "architecture and the losses that the run began with."
        )
    for name, x in stored.items():
        if x.dtype != wanted[name].dtype:
            raise DistilError(f"{path}: module.{name} is of {x.dtype}, not {wanted[name].dtype}. {REMEDY}")
        if x.is_floating_point() and x.numel() and float(x.abs().max()) > LARGEST:
            raise DistilError(f"{path}: module.{name} holds {float(x.abs().max()):.3g}. {REMEDY}")


def _refuse_optimizer(path: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, steps: int) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.AdamW) else {"momentum_buffer"}
    found: dict[str, set[str]] = {}
    for name, x in tensors.items():
        if not name.startswith("optimiser."):
            continue
        index, _, key = name.removeprefix("optimiser.").partition(".")
        known = index.isascii() and index.isdigit() and int(index) < len(parameters) and key in keys
        if not known or x.shape != (() if key == "step" else parameters[int(index)].shape):
            raise DistilError(f"{path}: {name} is no state of this run's optimizer. {REMEDY}")
        if not x.is_floating_point() or (key == "exp_avg_sq" and x.numel() and float(x.min()) < 0):
            raise DistilError(f"{path}: {name} cannot be what an optimizer keeps. {REMEDY}")
        if key != "step" and x.numel() and float(x.abs().max()) > LARGEST_MOMENT[key]:
            raise DistilError(f"{path}: {name} holds {float(x.abs().max()):.3g}. {REMEDY}")
        if key == "step" and not 0 <= float(x) <= steps:
            raise DistilError(f"{path}: {name} is {float(x):g}, and the run has {steps} steps. {REMEDY}")
        found.setdefault(index, set()).add(key)
    for index, those in found.items():
        if those != keys:
            raise DistilError(f"{path}: optimiser.{index}.{min(keys - those)} is missing. {REMEDY}")


def _not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor with a value that is not finite; "" where all are."""
    return next((name for name, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()), "")
