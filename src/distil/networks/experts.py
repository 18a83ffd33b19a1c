"""Experts: networks trained on real images, whose weights were kept along the way. A folder of files without pickle.

FOLDER/experts.json says what they are; FOLDER/expert-0000.safetensors and so on hold one expert each: its weights
"weight.0", "weight.1", ... as [snapshots, ...], in the order of the network's parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.checks import check_class_names, check_statistics, is_integer, shown
from distil.errors import DistilError
from distil.files import load_tensors, read_json
from distil.networks import Network, build_network, check_network

EXPERTS = "experts.json"
"""The manifest of a folder of experts."""
FORMAT_VERSION = 1
MOST_RUNS = 100_000
"""Experts in a folder, at most."""


@dataclass(frozen=True)
class ExpertsDescription:
    """What the experts of a folder are, and on what they were trained.

    epochs: after which their weights were kept, rising from 0. runs: how many experts there are to be.
    training: settings of their training. seed: of their draws. images: fingerprint of the images they were trained on.
    """

    network: str
    width: int
    channels: int
    size: tuple[int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: tuple[int, ...]
    runs: int
    training: Mapping[str, Any]
    seed: int
    images: str
    source: str

    def network_at(self, seed: int) -> Network:
        """A fresh network of their kind, on the CPU."""
        shape: dict[str, Any] = {"channels": self.channels, "size": self.size, "classes": len(self.classes)}
        return build_network(self.network, width=self.width, seed=seed, **shape)

    @property
    def bytes(self) -> int:
        """Bytes of all experts' weights."""
        weights = sum(weight.numel() for weight in self.network_at(0).parameters())
        return 4 * weights * len(self.epochs) * self.runs


@dataclass(frozen=True)
class Experts:
    """The weights of trained networks along their training.

    read: (number of the expert, number of the snapshot) -> its weights, in float32 on the CPU.
    runs: how many experts there are. epochs: after which their weights were kept.
    """

    epochs: tuple[int, ...]
    runs: int
    read: Callable[[int, int], list[Tensor]]
    description: ExpertsDescription | None = None

    def weights(self, run: int, epoch: int) -> list[Tensor]:
        """The weights of an expert after an epoch that was kept."""
        return self.read(run, self.epochs.index(epoch))

    def last(self, run: int) -> list[Tensor]:
        """An expert's weights at the end of its training."""
        return self.read(run, len(self.epochs) - 1)


def expert_file(folder: Path, run: int) -> Path:
    """The file of one expert."""
    return folder / f"expert-{run:04d}.safetensors"


def is_experts(folder: Path | str) -> bool:
    """Whether a folder holds experts."""
    return (Path(folder) / EXPERTS).is_file()


def read_description(folder: Path | str) -> ExpertsDescription:
    """What a folder of experts holds.

    Raises: DistilError that names the folder or the file, and what is missing or wrong.
    """
    path = Path(folder) / EXPERTS
    if not path.is_file():
        raise DistilError(
            f"{folder} holds no experts: {EXPERTS} is missing. Give a folder that `distil experts` has made."
        )
    found = read_json(path)
    if not isinstance(found, dict) or found.get("kind") != "experts":
        raise DistilError(f"{path} does not describe experts. Train them again into another folder.")
    version = found.get("format_version")
    if not is_integer(version) or version < 1:
        raise DistilError(f"{path}: no distil writes format version {shown(version)}. Train the experts again.")
    if version > FORMAT_VERSION:
        raise DistilError(f"{path} was made by a newer distil: upgrade with pip install -U distil")
    try:
        return _described(found)
    except (DistilError, KeyError, TypeError, ValueError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise DistilError(f"{path} is damaged: {reason.rstrip('.')}. Put a sound copy there.") from error


def _described(found: dict[str, Any]) -> ExpertsDescription:
    check_network(found["network"])
    numbers = [found[name] for name in ("width", "channels", "runs", "seed")] + list(found["size"])
    if not all(is_integer(number) and number >= 0 for number in numbers) or len(found["size"]) != 2:
        raise DistilError("its width, channels, runs, seed and size must be whole numbers")
    if not 1 <= found["runs"] <= MOST_RUNS:
        raise DistilError(f"runs are {shown(found['runs'])}: they must be between 1 and {MOST_RUNS}")
    epochs = tuple(found["epochs"])
    if not all(map(is_integer, epochs)) or list(epochs) != sorted(set(epochs)) or len(epochs) < 2 or epochs[0] != 0:
        raise DistilError(f"epochs are {shown(list(epochs))}: they must rise from 0")
    if not isinstance(found["training"], dict):
        raise DistilError("its training must be an object of settings")
    classes = check_class_names(tuple(found["classes"]))
    mean, std = check_statistics(tuple(found["mean"]), tuple(found["std"]), found["channels"])
    return ExpertsDescription(
        network=found["network"],
        width=found["width"],
        channels=found["channels"],
        size=(found["size"][0], found["size"][1]),
        classes=classes,
        mean=mean,
        std=std,
        epochs=epochs,
        runs=found["runs"],
        training=found["training"],
        seed=found["seed"],
        images=str(found["images"]),
        source=str(found["source"]),
    )


def open_experts(folder: Path | str) -> Experts:
    """The experts of a folder. Each file is read whole once, to check it; later only the snapshots that are asked for.

    Raises: DistilError as `read_description` does, and if experts are missing; reading one that is damaged names it.
    """
    folder = Path(folder).absolute()
    described = read_description(folder)
    missing = [run for run in range(described.runs) if not expert_file(folder, run).is_file()]
    if missing:
        there, first = described.runs - len(missing), expert_file(folder, missing[0]).name
        raise DistilError(
            f"{folder} holds {there} of {described.runs} experts: {first} is missing. Run the same `distil experts` "
            "command again, which continues."
        )
    shapes = [tuple(weight.shape) for weight in described.network_at(0).parameters()]

    @cache
    def check(run: int) -> None:
        path = expert_file(folder, run)
        tensors, header = load_tensors(path)
        check_weights(tensors, shapes, len(described.epochs), path)
        if header.get("images") != described.images or header.get("epochs") != list(described.epochs):
            raise DistilError(f"{path} is of other experts than {folder / EXPERTS} describes. Train it again.")

    def read(run: int, at: int) -> list[Tensor]:
        from safetensors import safe_open

        check(run)
        with safe_open(expert_file(folder, run), framework="pt") as file:
            return [file.get_slice(f"weight.{i}")[at].clone() for i in range(len(shapes))]

    return Experts(described.epochs, described.runs, read, described)


def check_weights(tensors: Mapping[str, Tensor], shapes: list[tuple[int, ...]], count: int, path: Path) -> None:
    """Refuse an expert's tensors that are not `count` snapshots of weights of these shapes.

    Raises: DistilError that names the file.
    """
    wanted = {f"weight.{i}": (count, *shape) for i, shape in enumerate(shapes)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    sound = found == wanted and all(tensor.dtype == torch.float32 for tensor in tensors.values())
    if not sound or not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise DistilError(f"{path} is damaged: it does not hold {count} snapshots of the network. Train it again.")


def held_experts(snapshots: list[list[list[Tensor]]], epochs: tuple[int, ...]) -> Experts:
    """Experts in memory. snapshots: by expert, by epoch, the weights."""
    return Experts(epochs, len(snapshots), lambda run, at: [weight.clone() for weight in snapshots[run][at]])


def in_memory(experts: Experts) -> list[list[list[Tensor]]]:
    """The snapshots of all experts: by expert, by epoch, the weights."""
    return [[experts.read(run, at) for at in range(len(experts.epochs))] for run in range(experts.runs)]
