"""The training loop of a detector, with a teacher or without: what is trained, where it is, and what it found."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.data.detection.detection_set import DetectionSet
from distil.data.detection.transforms import loader
from distil.detector.gkd.feature_bank import FeatureBank
from distil.detector.gkd.generation import Candidates, choose_candidates, generate_prototypes, prototypes_among
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.losses.base import DistillationLoss, TrainingContext
from distil.detector.training.checkpoint import refuse_other_run, refuse_unsound, restore, save_checkpoint, weights_hash
from distil.detector.training.prediction import Measure, predict
from distil.detector.training.setup import make_augmentation, on_first, prototype_settings
from distil.detector.training.step import Step, Work, learning_rate, make_optimiser, shares
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.locks import LOCK
from distil.networks.detectors import Architecture, save_detector
from distil.rng import seed_at
from distil.runs import CHECKPOINT, Events, Interrupted, has_checkpoint, load_checkpoint
from distil.settings import DetectorSettings

BEST = "best.safetensors"
LAST = "last.safetensors"
LOG_LINES = 500
"""About so many "step" events in a run."""
STOP_CHECK = 10
"""Steps between two looks at the other processes' Ctrl-C: a look waits for the device."""


class Run:
    """A training run under way: what is trained, where it is, and what it found."""

    def __init__(
        self,
        fabric: Any,
        module: Step,
        architecture: Architecture | None,
        teacher: Any,
        kept: DetectionSet,
        held_out: DetectionSet | None,
        settings: DetectorSettings,
        measure: Measure | None,
        out: Path,
        events: Events,
    ):
        self.fabric, self.architecture, self.teacher = fabric, architecture, teacher
        self.kept, self.held_out, self.measure = kept, held_out, measure
        self.settings, self.out, self.events = settings, out, events
        self.module, self.adapter = module, module.adapter
        fabric.to_device(module)
        self.wrapped, self.optimiser = fabric.setup(module, make_optimiser(module, settings))
        if settings.batch < fabric.world_size:
            raise DistilError(
                f"{fabric.world_size} processes share --batch {settings.batch}, and each needs an image: start fewer "
                "processes or use a larger batch."
            )
        self.epoch_steps = -(-len(kept) // settings.batch)
        self.steps = settings.epochs * self.epoch_steps
        self.log_every = max(1, self.steps // LOG_LINES)
        self.step = 0
        self.saved: tuple[int, int] | None = None
        self.saved_prototypes: int | None = None
        self.note, self.has_lock = "", (out / LOCK).exists()
        self.stop_asked: Callable[[], bool] = lambda: False
        self.seconds_before, self.began = 0.0, time.monotonic()
        self.prototypes_of: int | None = None
        self.gathering: FeatureBank | None = None
        self.history: list[dict[str, Any]] = []
        self.pending: list[tuple[int, tuple[str, ...], Tensor]] = []
        self.seen: dict[str, list[float]] = {}

    def train(self, stop_asked: Callable[[], bool], checkpoint_seconds: float) -> None:
        self.events("start", step=self.step, steps=self.steps, epochs=self.settings.epochs, images=len(self.kept))
        if self.note:
            self.events("note", text=self.note)
        self._tell_again()
        self.saved_at, self.checkpoint_seconds, self.stop_asked = time.monotonic(), checkpoint_seconds, stop_asked
        while True:
            epoch, position = divmod(self.step, self.epoch_steps)
            if self.step == self.steps and self._unsaved:
                self.save()
            if position == 0 and epoch > 0:
                self._validate(epoch)
            if self.step == self.steps:
                break
            self._prototypes(epoch, position)
            self._gather(epoch, position)
            for loss in self._hooked:
                loss.before_epoch(self._context(epoch))
            self._epoch(epoch, position, stop_asked)
        if self._unsaved:
            self.save()

    def _tell_again(self) -> None:
        """Tell the validation at the step of the checkpoint that the run goes on from, if that holds it: a log forgets
        it, since most often it is made again."""
        entry = self.history[-1] if self.history else None
        if entry is not None and entry["epoch"] * self.epoch_steps == self.step:
            told = {name: entry[name] for name in ("epoch", "ap", "ap50")}
            best = self._candidates[-1:] == [entry] and entry["ap"] == max(other["ap"] for other in self._candidates)
            self.events("validation", step=self.step, steps=self.steps, **told, best=best)

    @property
    def _unsaved(self) -> bool:
        """Whether the last checkpoint lacks a step or a validation."""
        return self.saved != (self.step, len(self.history))

    def _epoch(self, epoch: int, position: int, stop_asked: Callable[[], bool]) -> None:
        settings, fabric = self.settings, self.fabric
        self.wrapped.train()
        batches = loader(
            self.kept,
            batch=settings.batch,
            seed=settings.seed,
            epoch=epoch,
            shuffle=True,
            augmentation=make_augmentation(settings),
            workers=settings.workers,
            rank=fabric.global_rank,
            world=fabric.world_size,
            start=position,
        )
        for batch in batches:
            self._update(batch, epoch)
            self.step += 1
            stop, due = self._asked(stop_asked)
            if self.step % self.log_every == 0 or self.step == self.steps:
                self._look()
                means = {name: sum(some) / len(some) for name, some in self.seen.items()}
                self.seen.clear()
                rate = self.optimiser.param_groups[0]["lr"]
                total = sum(means.values())
                self.events("step", step=self.step, steps=self.steps, epoch=epoch, lr=rate, loss=total, losses=means)
            if due or (stop and self.step < self.steps):
                self.save()
            if stop and self.step < self.steps:
                raise self._interrupted(f"after step {self.step} of {self.steps}")

    def _interrupted(self, where: str) -> Interrupted:
        command = f"distil detector train --resume {shlex.quote(str(self.out))}"
        return Interrupted(f"stopped {where}: continue with {command}", getattr(self.stop_asked, "number", None))

    def _update(self, batch: Sequence[tuple[Tensor, dict[str, Tensor]]], epoch: int) -> None:
        """One step of the optimiser."""
        settings, fabric = self.settings, self.fabric
        names = [self.kept.identifier(int(target["image_id"])) for _, target in batch]
        seeds = [seed_at(settings.seed, "image", epoch, name) for name in names]
        torch.manual_seed(seed_at(settings.seed, "step", self.step, fabric.global_rank))
        device = fabric.device
        images = [image.to(device, non_blocking=True) for image, _ in batch]
        keys = ("boxes", "labels")
        targets = [{key: target[key].to(device, non_blocking=True) for key in keys} for _, target in batch]
        view = self.adapter.view(images, targets, seeds=seeds)
        losses, counts = self.wrapped(Work(view, self.teacher, self.step / self.steps))
        if self.gathering is not None:
            self.gathering.add([target for _, target in batch], self._knowledge.truth)
        for loss in self._hooked:
            loss.after_step([target for _, target in batch])
        factors = shares(counts, fabric)
        losses = {name: loss * factors[name] if name in factors else loss for name, loss in losses.items()}
        values = torch.stack(list(losses.values()))
        fabric.backward(values.sum())
        rate = learning_rate(settings, self.step, self.steps, epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if settings.clip:
            fabric.clip_gradients(self.wrapped, self.optimiser, max_norm=settings.clip, error_if_nonfinite=False)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.pending.append((self.step + 1, tuple(losses), values.detach()))

    def _asked(self, stop_asked: Callable[[], bool]) -> tuple[bool, bool]:
        """Whether any process was asked to stop, and whether a checkpoint is due."""
        due = time.monotonic() - self.saved_at > self.checkpoint_seconds
        if self.fabric.world_size == 1:
            return stop_asked(), due
        if self.step % STOP_CHECK:
            return False, False
        wishes = torch.tensor([stop_asked(), due and self.fabric.is_global_zero], device=self.fabric.device).float()
        stop, due = (self.fabric.all_reduce(wishes, reduce_op="sum") > 0).tolist()
        return stop, due

    def _look(self) -> None:
        """Fetch the losses of the steps since the last look. Raises: DistilError when one was not finite."""
        if not self.pending:
            return
        values = torch.cat([values for _, _, values in self.pending])
        if self.fabric.world_size > 1:
            values = self.fabric.all_reduce(values, reduce_op="mean")
        rows = values.cpu().split([len(names) for _, names, _ in self.pending])
        for (step, names, _), row in zip(self.pending, rows, strict=True):
            bad = [name for name, value in zip(names, row.isfinite().tolist(), strict=True) if not value]
            if bad:
                raise DistilError(self._not_finite(", ".join(bad), step))
            for name, value in zip(names, row.tolist(), strict=True):
                self.seen.setdefault(name, []).append(value)
        self.pending.clear()

    def _not_finite(self, names: str, step: int) -> str:
        checkpoint = self.out / CHECKPOINT
        kept = f" The last checkpoint, {checkpoint}, is from before and is kept." if has_checkpoint(self.out) else ""
        return (
            f"the loss {names} stopped being a finite number at step {step} of {self.steps}: lower --lr, lengthen "
            f"--warmup, or set --clip.{kept}"
        )

    @property
    def _hooked(self) -> list[DistillationLoss]:
        return [] if self.module.knowledge is None else getattr(self.module.knowledge, "hooked", [])

    def _context(self, epoch: int) -> TrainingContext:
        return TrainingContext(
            student=self.adapter,
            teacher=self.teacher,
            data=self.kept,
            epoch=epoch,
            epochs=self.settings.epochs,
            step=self.step,
            seed=self.settings.seed,
            folder=self.out,
            device=self.fabric.device,
        )

    @property
    def _knowledge(self) -> Any:
        """The part of the knowledge that measures by prototypes, if they are wanted."""
        knowledge = self.module.knowledge
        return getattr(knowledge, "global_knowledge", None) if getattr(knowledge, "wants_prototypes", False) else None

    def _due(self, epoch: int) -> bool:
        """Whether prototypes are chosen before this epoch."""
        since = epoch - self.settings.prototype_start
        return self._knowledge is not None and since >= 0 and since % self.settings.prototype_every == 0

    def _prototypes(self, epoch: int, position: int) -> None:
        """Choose prototypes where it is time to, or read those that a resumed epoch began with."""
        settings = self.settings
        if self._knowledge is None or epoch < settings.prototype_start:
            return
        chosen_at = self._chosen_at(epoch)
        if chosen_at == self.prototypes_of:
            return
        path = self._prototypes_file(chosen_at)
        if chosen_at == epoch and position == 0:
            began = time.monotonic()
            gathered = self.gathering and self.gathering.together(self.fabric)
            chosen = on_first(self.fabric, lambda: self._choose(epoch, path, gathered))
            seconds = round(time.monotonic() - began, 3)
            self.events("prototypes", step=self.step, epoch=epoch, count=len(chosen), file=path.name, seconds=seconds)
        else:
            chosen = on_first(self.fabric, lambda: PrototypeSet.load(path))
        self._knowledge.use(chosen.to(self.fabric.device))
        self.prototypes_of = chosen_at

    def _chosen_at(self, epoch: int) -> int:
        """The epoch before which the prototypes of an epoch, at or after the first choice, are chosen."""
        return epoch - (epoch - self.settings.prototype_start) % self.settings.prototype_every

    def _prototypes_file(self, epoch: int) -> Path:
        return self.out / f"prototypes-{epoch:04d}.safetensors"

    def _choose(
        self, epoch: int, path: Path, gathered: tuple[Candidates, tuple[Tensor, Tensor]] | None
    ) -> PrototypeSet:
        settings, data = prototype_settings(self.settings), self.kept
        if gathered is not None and len(gathered[0].labels):
            strides, device = self._knowledge.strides, self.fabric.device
            chosen = prototypes_among(*gathered, data, strides, settings, epoch=epoch, device=device)
        else:
            self.events("preparing", what=f"features of candidate prototypes for epoch {epoch + 1}")
            chosen = generate_prototypes(
                self.adapter, self.teacher, data, settings, seed=self.settings.seed, epoch=epoch
            )
        chosen.save(path)
        return chosen

    def _gather(self, epoch: int, position: int) -> None:
        """Gather features in the epoch before prototypes are chosen; a resumed epoch goes on with its own."""
        wanted = self.settings.prototype_features == "training" and self._due(epoch + 1)
        wanted = wanted and epoch + 1 < self.settings.epochs
        if self._knowledge is not None:
            self._knowledge.gathers = wanted
        if not wanted:
            self.gathering = None
        elif position == 0 or self.gathering is None:
            self.gathering = self._new_gathering()

    def _new_gathering(self) -> FeatureBank:
        knowledge = self._knowledge
        candidates = choose_candidates(self.kept, prototype_settings(self.settings), self.settings.seed)
        return FeatureBank(candidates, len(knowledge.strides), knowledge.channels)

    def _validate(self, epoch: int) -> None:
        """AP on the held-out images after `epoch` epochs, where it is due; the best (the last of equals) is kept."""
        settings = self.settings
        due = epoch % settings.evaluate_every == 0 or epoch == settings.epochs
        if self.held_out is None or not due or any(entry["epoch"] == epoch for entry in self.history):
            return
        self._look()
        found = self._predict_together(self.held_out, f"validation after epoch {epoch}")
        entry = on_first(self.fabric, lambda: self._judge(found, epoch))
        best = entry["ap"] is not None and all(other["ap"] <= entry["ap"] for other in self._candidates)
        self.history.append(entry)
        self.events("validation", step=self.step, steps=self.steps, **entry, best=best)
        if best:
            if self.fabric.is_global_zero:
                self._export(self.out / BEST, entry)
            self.save()

    def _judge(self, found: list[dict[str, Tensor]], epoch: int) -> dict[str, Any]:
        data = self.held_out
        assert data is not None
        assert self.measure is not None
        result = self.measure(found, [data.annotations(index) for index in range(len(data))], data.classes)
        return {"epoch": epoch, "ap": _or_none(result.ap), "ap50": _or_none(result.ap50)}

    def _predict_together(self, data: DetectionSet, what: str) -> list[dict[str, Tensor]]:
        """Every process predicts its share; all get all. A single process may be stopped between two batches: then it
        predicts all again when it goes on."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        each = max(1, self.settings.batch // world)

        def done(images: int) -> None:
            self.events("preparing", what=what, unit="image", done=images * world, of=len(data))
            if world == 1 and self.stop_asked():
                if self._unsaved:
                    self.save()
                raise self._interrupted(f"while validating after step {self.step} of {self.steps}")

        done(0)
        own = predict(self.adapter, data, batch=each, part=slice(rank, None, world), done=done)
        if world == 1:
            return own
        parts: list[Any] = [None] * world
        torch.distributed.all_gather_object(parts, own)
        return [parts[index % world][index // world] for index in range(len(data))]

    def save(self) -> None:
        """Write a checkpoint of finite weights; prototypes that neither it nor the one before it needs go."""
        self._look()
        self.saved_at, self.saved = time.monotonic(), (self.step, len(self.history))
        gathered = {} if self.gathering is None else self.gathering.tensors(self.fabric)
        extra = {f"{loss.name}.{key}": x for loss in self._hooked for key, x in loss.extra_state().items()}
        if not self.fabric.is_global_zero:
            return
        header = {
            "step": self.step,
            "settings": asdict(self.settings),
            "history": self.history,
            "seconds": round(self.seconds_before + time.monotonic() - self.began, 3),
            "scaler": self.fabric.strategy.precision.state_dict(),
            **self._made_for,
        }
        if not self.out.is_dir() or (self.has_lock and not (self.out / LOCK).exists()):
            raise DistilError(f"the run folder {self.out} is gone: what it held is lost; start the run again.")
        save_checkpoint(self.out, self.module, self.optimiser.optimizer, header, gathered, extra)
        before, self.saved_prototypes = self.saved_prototypes, self.prototypes_of
        for old in sorted(self.out.glob("prototypes-*.safetensors"))[:-1]:
            if before is not None and old.name < self._prototypes_file(before).name:
                old.unlink(missing_ok=True)
        self.events("checkpoint", step=self.step)

    def restore(self) -> None:
        """Go on from the folder's last checkpoint, or from the one before it where the last one is damaged.

        Raises: DistilError when no run with these settings, data and detectors can go on from either.
        """
        read = on_first(self.fabric, lambda: load_checkpoint(self.out, self._refuse))
        assert read is not None
        tensors, header, self.note = read
        restore(self.module, self.optimiser.optimizer, tensors)
        self.fabric.strategy.precision.load_state_dict(header["scaler"])
        self.step, self.history, self.seconds_before = header["step"], header["history"], float(header["seconds"])
        self.saved = (self.step, len(self.history))
        if damage := on_first(self.fabric, self._damage_of_best):
            for entry in self.history:
                entry["lost"] = True
            lost = f"{damage} It held the weights of the best epoch so far; the best from here on is kept."
            self.note = f"{self.note} {lost}".strip()
        for loss in self._hooked:
            start = f"extra.{loss.name}."
            loss.load_extra_state(
                {name.removeprefix(start): x for name, x in tensors.items() if name.startswith(start)}
            )
        if gathered := _gathered(tensors):
            self.gathering = self._new_gathering()
            self.gathering.restore(gathered)

    @property
    def _candidates(self) -> list[dict[str, Any]]:
        """Validations of which the best epoch is one: those with an AP, since the weights of the best were lost."""
        return [entry for entry in self.history if entry["ap"] is not None and not entry.get("lost")]

    def _damage_of_best(self) -> str:
        """Why the weights of the best epoch cannot be used; "" where they can, or there are none yet."""
        try:
            if self._candidates:
                load_tensors(self.out / BEST)
        except DistilError as error:
            return str(error)
        return ""

    def _refuse(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Refuse a checkpoint from which this run cannot go on. Raises: DistilError that says why."""
        path, optimiser = self.out / CHECKPOINT, self.optimiser.optimizer
        refuse_other_run(path, header, self.settings, self._made_for)
        epochs, each = self.settings.epochs, self.epoch_steps
        refuse_unsound(path, tensors, header, self.module, optimiser, epochs=epochs, epoch_steps=each)
        scaler = self.fabric.strategy.precision.state_dict()
        if header["scaler"].keys() != scaler.keys():
            raise DistilError(f"{path}: its scaler is another precision's: start the run again in another folder.")
        if gathered := _gathered(tensors):
            if self._knowledge is None:
                raise DistilError(f"{path} has features for prototypes, and this run has none: start another run.")
            self._new_gathering().restore(gathered, path)
        epoch, position = divmod(header["step"], each)
        if self._knowledge is not None and self.settings.prototype_start <= epoch < epochs:
            chosen_at = self._chosen_at(epoch)
            if chosen_at < epoch or position > 0:
                PrototypeSet.load(self._prototypes_file(chosen_at))

    @cached_property
    def _made_for(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that goes on from it."""
        return {
            "data": self.kept.name,
            "images": len(self.kept),
            "architecture": None if self.architecture is None else repr(self.architecture),
            "annotations": self.kept.fingerprint,
            **({"losses": [f"{loss.name}={loss.weight}" for loss in self._hooked]} if self._hooked else {}),
            "teacher": None if self.teacher is None else weights_hash(self.teacher.model.state_dict()),
        }

    def finish(self) -> Path:
        """Export the last weights; the file of the best ones, or of the last where nothing was measured."""
        if self.fabric.is_global_zero:
            last = self.history[-1] if self.history else {"epoch": self.settings.epochs}
            self._export(self.out / LAST, last)
        self.fabric.barrier()
        self.events("done", step=self.step, steps=self.steps)
        return self.out / (BEST if self._candidates else LAST)

    def _export(self, path: Path, result: dict[str, Any]) -> None:
        """The student alone, as plain weights with a header that says how they were made."""
        facts = {"data": self.kept.name, "settings": asdict(self.settings), "validation": result}
        if self.architecture is not None:
            save_detector(self.adapter.model, self.architecture, path, extra=facts)
        else:
            save_tensors(path, self.adapter.model.state_dict(), {"kind": "detector weights", **facts})


def _gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The features in a checkpoint that were gathered for the next choice of prototypes."""
    return {name.removeprefix("gathered."): x for name, x in tensors.items() if name.startswith("gathered.")}


def _or_none(value: float) -> float | None:
    return None if value != value else float(value)
