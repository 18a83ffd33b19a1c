"""Training of experts: networks on real images, whose weights are kept along the way. Resumable to the epoch."""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from distil.data.images.image_set import ImageSet
from distil.dataset import config
from distil.dataset.network_state import NetworkState, Training, fresh_network, train_batch
from distil.errors import DistilError
from distil.fields import check, from_dict, to_dict
from distil.files import load_tensors, save_tensors, write_atomic
from distil.locks import only_writer
from distil.networks.experts import (
    EXPERTS,
    FORMAT_VERSION,
    Experts,
    ExpertsDescription,
    check_weights,
    expert_file,
    held_experts,
    is_experts,
    open_experts,
    read_description,
)
from distil.rng import stream
from distil.runs import Events, Interrupted, silent
from distil.stopping import stop_requests

UNFINISHED = "unfinished.safetensors"
"""In a folder of experts: the one in training, as it was after its last whole epoch that was saved."""
SAVED_EVERY = 30.0
"""Seconds of training after which an unfinished expert is saved, at the end of its epoch."""


def describe_experts(
    real: ImageSet, settings: config.Experts, network: str, width: int, seed: int
) -> ExpertsDescription:
    """What a folder of such experts holds."""
    check(settings)
    return ExpertsDescription(
        network=network,
        width=width,
        channels=real.channels,
        size=real.size,
        classes=real.classes,
        mean=real.mean,
        std=real.std,
        epochs=config.kept_epochs(settings),
        runs=settings.runs,
        training=to_dict(settings),
        seed=seed,
        images=real.fingerprint(),
        source=real.name,
    )


def train_experts(
    real: ImageSet,
    settings: config.Experts,
    folder: Path | str | None,
    *,
    network: str = "convnet3",
    width: int = 128,
    seed: int = 0,
    events: Events = silent,
) -> Experts:
    """Train experts on real images, on their device, those that the folder lacks; what it has stays.

    Each expert's first weights and its batches are addressed by (seed, number of the expert): more experts can be added
    later, and a run that was stopped goes on to equal bytes (on the CPU) after the last epoch that was saved.

    settings: see `config.Experts`. folder: None keeps them in memory. events: told "preparing" with what is done.

    Raises: DistilError if the folder holds other experts or cannot be written; Interrupted after a stop, when the
    expert in training has been saved.
    """
    described = describe_experts(real, settings, network, width, seed)
    if folder is None:
        return held_experts(
            [_Expert(real, described, run, None, events).train() for run in range(settings.runs)], described.epochs
        )
    folder = Path(folder)
    with only_writer(folder):
        _begin(folder, described)
        for run in range(settings.runs):
            if not expert_file(folder, run).is_file():
                _Expert(real, described, run, folder, events).train()
        (folder / UNFINISHED).unlink(missing_ok=True)
    return open_experts(folder)


def _begin(folder: Path, described: ExpertsDescription) -> None:
    """Write the manifest, or see that the folder's experts are of the same kind; more of them may be wanted now."""
    if is_experts(folder):
        before = read_description(folder)
        refuse_others(folder, before, described)
        if before.runs >= described.runs:
            return
    text = json.dumps({"kind": "experts", "format_version": FORMAT_VERSION, **_plain(described)}, indent=2) + "\n"
    write_atomic(folder / EXPERTS, lambda temporary: temporary.write_text(text))


def _plain(described: ExpertsDescription) -> dict[str, Any]:
    names = ("network", "width", "channels", "runs", "seed", "images", "source")
    lists = {name: list(getattr(described, name)) for name in ("size", "classes", "mean", "std", "epochs")}
    return {name: getattr(described, name) for name in names} | lists | {"training": dict(described.training)}


def refuse_others(folder: Path, found: ExpertsDescription, wanted: ExpertsDescription) -> None:
    """Refuse to go on with experts of another kind. Raises: DistilError that names the first difference."""
    same = {"runs": 0, "training": {**wanted.training, "runs": 0}, "source": "", "epochs": wanted.epochs}
    one = replace(found, **(same | {"training": {**found.training, "runs": 0}}))
    other = replace(wanted, **same)
    for name, value in vars(other).items():
        if getattr(one, name) != value:
            what = {"images": "the images they were trained on", "training": "the settings of their training"}
            differs = what.get(name, f"{name} {getattr(one, name)} against {value}")
            raise DistilError(f"{folder} holds other experts ({differs}): choose another folder.")


def check_experts_fit(found: ExpertsDescription, real: ImageSet, network: str, width: int, folder: Path) -> None:
    """Refuse experts that cannot serve a run. Raises: DistilError that names both sides and the remedy."""
    if (found.network, found.width) != (network, width):
        raise DistilError(
            f"the experts in {folder} are {found.network} of width {found.width}, and the run has {network} of width "
            f"{width}: give {{network}} {found.network} and {{width}} {found.width}, or train others.",
            field=("network", "width"),
        )
    if found.images != real.fingerprint():
        raise DistilError(
            f"the experts in {folder} were trained on {found.source}, and the run learns from other images, "
            f"{real.name}: what is held out depends on {{validation}} and {{seed}}. Use those that the experts were "
            "trained with, or {validation} 0 for both.",
            field=("validation", "seed"),
        )


def training_of(settings: config.Experts) -> Training:
    """How an expert is trained, at first."""
    return Training(
        settings.lr,
        settings.momentum,
        settings.weight_decay,
        batch=settings.batch,
        augment=settings.augment,
        augment_one=settings.augment_one,
        cutmix=settings.cutmix,
    )


class _Expert:
    """The training of one expert."""

    def __init__(self, real: ImageSet, described: ExpertsDescription, run: int, folder: Path | None, events: Events):
        self.real, self.described, self.run, self.folder, self.events = real, described, run, folder, events
        training = dict(described.training)
        self.epochs, self.decay, self.seed = training["epochs"], training["lr_decay"] == "steps", described.seed
        self.training = training_of(experts_settings(described))
        one = {name: value for name, value in training.items() if name != "runs"}
        self.header = {"kind": "expert", "run": run, "images": described.images, "training": one}
        self.state = self._fresh()
        self.kept: list[list[Tensor]] = []

    def _fresh(self) -> NetworkState:
        address = ("expert", self.run)
        options: dict[str, Any] = {"device": self.real.images.device, "seed": self.seed, "address": address}
        return fresh_network(self.described.network, self.described.width, self.real, **options)

    def train(self) -> list[list[Tensor]]:
        """Its weights by epoch that is kept; in a folder, its file is written."""
        done, saved_at = self._resumed(), time.monotonic()
        if done == 0:
            self._keep(0)
        with stop_requests() as stop_asked:
            for epoch in range(done, self.epochs):
                before = copy.deepcopy((self.state.net.state_dict(), self.state.momenta))
                if not self._epoch(epoch, stop_asked):
                    self.state.net.load_state_dict(before[0])
                    self.state.momenta = before[1]
                    self._stopped(epoch, stop_asked.number)
                self._keep(epoch + 1)
                self._tell(epoch + 1)
                if time.monotonic() - saved_at > SAVED_EVERY and epoch + 1 < self.epochs:
                    self._save_unfinished(epoch + 1)
                    saved_at = time.monotonic()
            stopped = stop_asked.number
        if self.folder is not None:
            tensors = {f"weight.{i}": torch.stack(rows) for i, rows in enumerate(zip(*self.kept, strict=True))}
            header = {**self.header, "epochs": list(self.described.epochs)}
            save_tensors(expert_file(self.folder, self.run), tensors, header)
        if stopped is not None:
            raise Interrupted(f"interrupted: {self.run + 1} of {self.described.runs} experts are trained", stopped)
        return self.kept

    def _stopped(self, done: int, number: int | None) -> NoReturn:
        """Save what there is after `done` epochs. Raises: Interrupted, always."""
        self._save_unfinished(done)
        told = f"expert {self.run + 1} of {self.described.runs}"
        if self.folder is None:
            told = f"{told} was in training, and none is kept without a folder"
        elif done:
            told = f"{told} is kept in {self.folder} as it is after {done} of {self.epochs} epochs"
        else:
            told = f"{told} was in its first epoch; those before it are kept in {self.folder}"
        raise Interrupted(f"interrupted: {told}", number)

    def _epoch(self, epoch: int, stop_asked: Callable[[], bool]) -> bool:
        """Train for an epoch; whether it was finished before a stop was asked for."""
        training = self.training
        if self.decay:
            late = int(3 * epoch >= 2 * self.epochs) + int(6 * epoch >= 5 * self.epochs)
            training = replace(training, lr=training.lr * 0.2**late)
        generator = stream(self.seed, "expert", self.run, "epoch", epoch)
        order = torch.randperm(len(self.real), generator=generator)
        for rows in order.split(training.batch):
            if stop_asked():
                return False
            train_batch(self.state, self.real.batch(rows), training, self.real, generator)
        return True

    def _keep(self, epoch: int) -> None:
        weights = [weight.detach().float().cpu().clone() for weight in self.state.weights]
        if not all(bool(weight.isfinite().all()) for weight in weights):
            raise DistilError(
                f"expert {self.run + 1} is not finite after {epoch} epochs: lower {{expert_lr}}.", field="expert_lr"
            )
        if epoch in self.described.epochs:
            self.kept.append(weights)

    def _tell(self, epoch: int) -> None:
        done, of = self.run * self.epochs + epoch, self.described.runs * self.epochs
        self.events("preparing", what="training experts", unit="epoch", done=done, of=of)

    def _save_unfinished(self, done: int) -> None:
        if self.folder is None or done == 0:
            return
        named = {f"weight.{i}": weight for i, weight in enumerate(self.state.weights)}
        named |= {f"momentum.{i}": each for i, each in enumerate(self.state.momenta)}
        named |= {f"kept.{i}": torch.stack(rows) for i, rows in enumerate(zip(*self.kept, strict=True))}
        save_tensors(self.folder / UNFINISHED, named, {**self.header, "done": done})

    def _resumed(self) -> int:
        """Epochs that are done, after taking up what an unfinished expert's file holds, if it is this one's."""
        path = None if self.folder is None else self.folder / UNFINISHED
        if path is None or not path.is_file():
            return 0
        try:
            tensors, header = load_tensors(path)
            done = header.pop("done", 0)
            if header != self.header or not 0 < done < self.epochs:
                return 0
            shapes = [tuple(weight.shape) for weight in self.state.weights]
            count = sum(epoch <= done for epoch in self.described.epochs)
            groups = {
                name: {f"weight.{i}": tensors[f"{name}.{i}"] for i in range(len(shapes))}
                for name in ("weight", "momentum", "kept")
            }
            check_weights(groups["kept"], shapes, count, path)
            for name in ("weight", "momentum"):
                check_weights({key: tensor[None] for key, tensor in groups[name].items()}, shapes, 1, path)
        except (DistilError, KeyError) as damage:
            self.events("damaged", message=f"{damage} Expert {self.run + 1} is trained again.")
            return 0
        with torch.no_grad():
            for i, weight in enumerate(self.state.weights):
                weight.copy_(groups["weight"][f"weight.{i}"])
                self.state.momenta[i].copy_(groups["momentum"][f"weight.{i}"])
        self.kept = [[groups["kept"][f"weight.{i}"][at] for i in range(len(shapes))] for at in range(count)]
        return done


def experts_settings(found: ExpertsDescription) -> config.Experts:
    """The settings with which experts were trained. Raises: DistilError if they are of another version."""
    return from_dict(config.Experts, {**found.training, "runs": found.runs})
