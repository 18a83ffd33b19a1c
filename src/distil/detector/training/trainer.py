"""The training loop of a detector, with a teacher or without: what is trained, where it is, and what it found."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.data.detection.detection_set import DetectionSet
from distil.data.detection.transforms import loader
from distil.detector.losses.base import TrainingContext, on_first
from distil.detector.settings import DetectorSettings
from distil.detector.training.checkpoint import refuse_other_run, refuse_unsound, restore, save_checkpoint, weights_hash
from distil.detector.training.prediction import Measure, predict
from distil.detector.training.setup import make_augmentation
from distil.detector.training.step import Step, Work, learning_rate, make_optimizer, shares
from distil.detector.upgrade import upgraded
from distil.errors import DistilError
from distil.fields import to_dict
from distil.files import load_tensors, save_tensors
from distil.locks import LOCK
from distil.networks.detectors import Architecture, save_detector
from distil.rng import seed_at
from distil.runs import CHECKPOINT, Events, Interrupted, has_checkpoint, load_checkpoint

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
        self.settings, self.training, self.out, self.events = settings, settings.training, out, events
        training = settings.training
        self.module, self.adapter = module, module.adapter
        fabric.to_device(module)
        self.wrapped, self.optimizer = fabric.setup(module, make_optimizer(module, training))
        if training.batch < fabric.world_size:
            raise DistilError(
                f"{fabric.world_size} processes share {{batch={training.batch}}}, and each needs an image: start fewer "
                "processes or use a larger batch.",
                field="batch",
            )
        self.epoch_steps = -(-len(kept) // training.batch)
        self.steps = training.epochs * self.epoch_steps
        self.log_every = max(1, self.steps // LOG_LINES)
        self.step = 0
        self.saved: tuple[int, int] | None = None
        self.note, self.has_lock = "", (out / LOCK).exists()
        self.stop_asked: Callable[[], bool] = lambda: False
        self.seconds_before, self.began = 0.0, time.monotonic()
        self.history: list[dict[str, Any]] = []
        self.pending: list[tuple[int, tuple[str, ...], Tensor]] = []
        self.seen: dict[str, list[float]] = {}

    def train(self, stop_asked: Callable[[], bool], checkpoint_seconds: float) -> None:
        self.events("start", step=self.step, steps=self.steps, epochs=self.training.epochs, images=len(self.kept))
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
            for loss in self.module.parts:
                loss.before_epoch(self._context(self.step))
            self._epoch(epoch, position, stop_asked)
        if self._unsaved:
            self.save()

    def _tell_again(self) -> None:
        """Tell the validation at the step of the checkpoint that the run continues from, if that holds it: a log
        forgets it, since most often it is made again."""
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
        training, fabric = self.training, self.fabric
        self.wrapped.train()
        batches = loader(
            self.kept,
            batch=training.batch,
            seed=training.seed,
            epoch=epoch,
            shuffle=True,
            augmentation=make_augmentation(training),
            workers=training.workers,
            rank=fabric.global_rank,
            world=fabric.world_size,
            start=position,
        )
        for batch in batches:
            self.update(batch, epoch)
            self.step += 1
            stop, due = self._asked(stop_asked)
            if self.step % self.log_every == 0 or self.step == self.steps:
                self._look()
                means = {name: sum(some) / len(some) for name, some in self.seen.items()}
                self.seen.clear()
                rate = self.optimizer.param_groups[0]["lr"]
                total = sum(means.values())
                self.events("step", step=self.step, steps=self.steps, epoch=epoch, lr=rate, loss=total, losses=means)
            if due or (stop and self.step < self.steps):
                self.save()
            if stop and self.step < self.steps:
                raise self._interrupted(f"after step {self.step} of {self.steps}")

    def _interrupted(self, where: str) -> Interrupted:
        command = f"distil detector train --resume {shlex.quote(str(self.out))}"
        return Interrupted(f"stopped {where}: continue with {command}", getattr(self.stop_asked, "number", None))

    def update(self, batch: Sequence[tuple[Tensor, dict[str, Tensor]]], epoch: int) -> None:
        """One step of the optimizer."""
        training, fabric = self.training, self.fabric
        names = [self.kept.identifier(int(target["image_id"])) for _, target in batch]
        seeds = [seed_at(training.seed, "image", epoch, name) for name in names]
        torch.manual_seed(seed_at(training.seed, "step", self.step, fabric.global_rank))
        device = fabric.device
        images = [image.to(device, non_blocking=True) for image, _ in batch]
        keys = ("boxes", "labels")
        targets = [{key: target[key].to(device, non_blocking=True) for key in keys} for _, target in batch]
        view = self.adapter.view(images, targets, seeds=seeds)
        losses, counts = self.wrapped(Work(view, self.teacher, self.step / self.steps))
        for loss in self.module.parts:
            loss.after_step([target for _, target in batch])
        factors = shares(counts, fabric)
        losses = {name: loss * factors[name] if name in factors else loss for name, loss in losses.items()}
        values = torch.stack(list(losses.values()))
        fabric.backward(values.sum())
        rate = learning_rate(training, self.step, self.steps, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if training.clip:
            fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=training.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
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
                raise self._not_finite(", ".join(bad), step)
            for name, value in zip(names, row.tolist(), strict=True):
                self.seen.setdefault(name, []).append(value)
        self.pending.clear()

    def _not_finite(self, names: str, step: int) -> DistilError:
        checkpoint = self.out / CHECKPOINT
        kept = f" The last checkpoint, {checkpoint}, is from before and is kept." if has_checkpoint(self.out) else ""
        return DistilError(
            f"the loss {names} stopped being a finite number at step {step} of {self.steps}: lower {{lr}}, lengthen "
            f"{{warmup}}, or set {{clip}}.{kept}",
            field=("lr", "warmup", "clip"),
        )

    def _context(self, step: int) -> TrainingContext:
        epoch, position = divmod(step, self.epoch_steps)
        return TrainingContext(
            student=self.adapter,
            teacher=self.teacher,
            data=self.kept,
            epoch=epoch,
            epochs=self.training.epochs,
            step=step,
            position=position,
            batch=self.training.batch,
            seed=self.training.seed,
            folder=self.out,
            device=self.fabric.device,
            events=self.events,
            fabric=self.fabric,
        )

    def _validate(self, epoch: int) -> None:
        """AP on the held-out images after `epoch` epochs, where it is due; the best (the last of equals) is kept."""
        training = self.training
        due = epoch % training.evaluate_every == 0 or epoch == training.epochs
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
        predicts all again when it continues."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        each = max(1, self.training.batch // world)

        def done(images: int) -> None:
            self.events("preparing", what=what, unit="image", done=images * world, of=len(data))
            if world == 1 and self.stop_asked():
                if self._unsaved:
                    self.save()
                raise self._interrupted(f"while validating after step {self.step} of {self.steps}")

        done(0)
        found = predict(self.adapter, data, batch=each, part=slice(rank, None, world), done=done)
        if world == 1:
            return found
        parts: list[Any] = [None] * world
        torch.distributed.all_gather_object(parts, found)
        return [parts[index % world][index // world] for index in range(len(data))]

    def save(self) -> None:
        """Write a checkpoint of finite weights."""
        self._look()
        self.saved_at, self.saved = time.monotonic(), (self.step, len(self.history))
        extra = {f"{loss.name}.{key}": x for loss in self.module.parts for key, x in loss.extra_state().items()}
        if not self.fabric.is_global_zero:
            return
        header = {
            "step": self.step,
            "settings": to_dict(self.settings),
            "history": self.history,
            "seconds": round(self.seconds_before + time.monotonic() - self.began, 3),
            "scaler": self.fabric.strategy.precision.state_dict(),
            **self._made_for,
        }
        if not self.out.is_dir() or (self.has_lock and not (self.out / LOCK).exists()):
            raise DistilError(f"the run folder {self.out} is gone: what it held is lost; start the run again.")
        save_checkpoint(self.out, self.module, self.optimizer.optimizer, header, extra)
        for loss in self.module.parts:
            loss.after_save(self._context(self.step))
        self.events("checkpoint", step=self.step)

    def restore(self) -> None:
        """Continue from the folder's last checkpoint, or from the one before it where the last one is damaged.

        Raises: DistilError when no run with these settings, data and detectors can continue from either.
        """
        read = on_first(self.fabric, lambda: load_checkpoint(self.out, self._refuse))
        assert read is not None
        tensors, header = upgraded(*read[:2])
        self.note = read[2]
        restore(self.module, self.optimizer.optimizer, tensors)
        self.fabric.strategy.precision.load_state_dict(header["scaler"])
        self.step, self.history, self.seconds_before = header["step"], header["history"], float(header["seconds"])
        self.saved = (self.step, len(self.history))
        if damage := on_first(self.fabric, self._damage_of_best):
            for entry in self.history:
                entry["lost"] = True
            lost = f"{damage} It held the weights of the best epoch so far; the best from here on is kept."
            self.note = f"{self.note} {lost}".strip()
        for loss in self.module.parts:
            loss.load_extra_state(_extra(tensors, loss.name))

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
        """Refuse a checkpoint from which this run cannot continue. Raises: DistilError that says why."""
        path, optimizer = self.out / CHECKPOINT, self.optimizer.optimizer
        tensors, header = upgraded(tensors, header)
        refuse_other_run(path, header, self.settings, self._made_for)
        epochs, each = self.training.epochs, self.epoch_steps
        refuse_unsound(path, tensors, header, self.module, optimizer, epochs=epochs, epoch_steps=each)
        scaler = self.fabric.strategy.precision.state_dict()
        if header["scaler"].keys() != scaler.keys():
            raise DistilError(f"{path}: its scaler is another precision's: start the run again in another folder.")
        names = [loss.name for loss in self.module.parts]
        if unknown := [name for name in tensors if name.startswith("extra.") and name.split(".")[1] not in names]:
            raise DistilError(
                f"{path} holds {unknown[0].removeprefix('extra.')}, and this run has no such loss: start another run."
            )
        for loss in self.module.parts:
            loss.check_extra_state(_extra(tensors, loss.name), self._context(header["step"]))

    @cached_property
    def _made_for(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that continues from it."""
        return {
            "data": self.kept.name,
            "images": len(self.kept),
            "architecture": None if self.architecture is None else repr(self.architecture),
            "annotations": self.kept.fingerprint,
            "losses": {loss.name: loss.facts() for loss in self.module.parts},
            "teacher": None if self.teacher is None else weights_hash(self.teacher.model.state_dict()),
        }

    def finish(self) -> Path:
        """Export the last weights; the file of the best ones, or of the last where nothing was measured."""
        if self.fabric.is_global_zero:
            last = self.history[-1] if self.history else {"epoch": self.training.epochs}
            self._export(self.out / LAST, last)
        self.fabric.barrier()
        self.events("done", step=self.step, steps=self.steps)
        return self.out / (BEST if self._candidates else LAST)

    def _export(self, path: Path, result: dict[str, Any]) -> None:
        """The student alone, as plain weights with a header that says how they were made."""
        facts = {"data": self.kept.name, "settings": to_dict(self.settings), "validation": result}
        if self.architecture is not None:
            save_detector(self.adapter.model, self.architecture, path, extra=facts)
        else:
            save_tensors(path, self.adapter.model.state_dict(), {"kind": "detector weights", **facts})


def _extra(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What a loss keeps in a checkpoint besides parameters and buffers."""
    start = f"extra.{name}."
    return {key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}


def _or_none(value: float) -> float | None:
    return None if value != value else float(value)
