"""One run of any loop: its folder, its checkpoints, its events, its stop."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.data.images.image_set import ImageSet
from distil.dataset.protocols import Loop
from distil.dataset.restoring import check_step
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.processes import ONE, Lost, Processes
from distil.runs import (
    CHECKPOINT,
    PREVIOUS,
    Events,
    Interrupted,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from distil.stopping import StopRequest, stop_requests

STOP_CHECK = 10
"""Steps between two looks at the other processes' Ctrl-C where a look waits for the device."""
LOG_LINES = 500
"""About so many "step" events in a run."""

Validate = Callable[[DistilledSet, ImageSet], float]


class StopNow(Exception):
    """A stop was asked for between two steps, where the state is that after a whole step."""


@dataclass
class Run:
    """What a loop runs in.

    head: what a checkpoint's header says beside the step, "settings" and "source_fingerprint". prepare: called once the
    run has begun and before the loop's first state is made, to train what it needs. follow: (validate, held-out images)
    to be called `validations` times. processes: those that take the steps together. Only the first has a folder,
    events and something to follow; all stop after the same step.
    """

    loop: Loop
    head: Mapping[str, Any]
    folder: Path | None
    events: Events
    prepare: Callable[[], None]
    upgrade: Callable[[Any], Any] = lambda settings: settings
    """Turns the settings of a checkpoint's header into those of today."""
    follow: tuple[Validate, ImageSet] | None = None
    validations: int = 0
    checkpoint_seconds: float = 120.0
    processes: Processes = ONE

    def __post_init__(self) -> None:
        steps = self.loop.steps
        self.log_every = max(1, steps // LOG_LINES)
        self.validate_at = set[int]()
        if self.follow is not None and self.validations:
            shares = (i / self.validations for i in range(1, self.validations + 1))
            self.validate_at = {round(steps * share) for share in shares}
        self.bad_step: Tensor | None = None
        self.saved_at = time.monotonic()
        self.stop_asked: StopRequest | None = None
        self.stopped_by = 0

    def drive(self, resume: bool) -> DistilledSet | None:
        """Do all the steps that are left; the set that they make, in the first process."""
        loop = self.loop
        self.begin(resume)
        if self.begun:
            self.validate()  # a checkpoint is written before the validation of its step
        with stop_requests() as self.stop_asked:
            try:
                while loop.done < loop.steps:
                    self.after_step(loop.step())
                    if loop.done < loop.steps:
                        self.pause(looks=loop.done % STOP_CHECK == 0)
                    if loop.done == loop.steps or time.monotonic() - self.saved_at > self.checkpoint_seconds:
                        self.save()
                    self.validate()
            except StopNow:
                raise self.stopped(self.stopped_by) from None
            except Lost:
                if getattr(loop, "whole", False) and loop.done > self.begun:
                    self.save()
                raise
        return loop.snapshot() if self.processes.first else None

    def pause(self, looks: bool = True) -> None:
        """Called between steps, and by what prepares one, at moments when the state is that after a whole step: all
        processes stop if any was asked to. looks: whether now is a time to ask GPUs, which wait for an answer."""
        if self.stop_asked is None or (not looks and self.processes.waits_for_device):
            return
        self.stopped_by = self.processes.largest(self.stop_asked.number or 0)
        if self.stopped_by:
            raise StopNow

    def begin(self, resume: bool) -> None:
        """The state before the first step of this run: a checkpoint's, if it continues from one."""
        loop = self.loop
        saved = self.processes.from_first(lambda: self.read(resume))
        self.begun: int = 0 if saved is None else saved[1]["step"]
        self.events("start", step=self.begun, steps=loop.steps)
        if saved is not None and saved[2]:
            self.events("damaged", step=self.begun, message=saved[2])
        self.prepare()
        if saved is None:
            loop.begin()
            self.told = None
            self.tell_choice()
        else:
            loop.load_state_dict(self.begun, saved[0])
            self.told = loop.event()

    def read(self, resume: bool) -> tuple[dict[str, Any], dict[str, Any], str] | None:
        """The checkpoint that the run continues from; None if it begins, and then older ones are removed."""
        if self.folder is not None and resume:
            return load_checkpoint(self.folder, self.check_sound)
        if self.folder is not None:
            remove_checkpoints(self.folder)
        return None

    def tell_choice(self) -> None:
        """Tell what has been chosen since it was last told."""
        chosen = self.loop.event()
        if chosen is not None and chosen is not self.told:
            self.told = chosen
            name, fields = chosen
            self.events(name, step=self.loop.done, **fields)

    def check_sound(self, tensors: dict[str, Any], header: dict[str, Any]) -> None:
        """Nothing, if this run can continue from a checkpoint. Raises: DistilError that names its file."""
        assert self.folder is not None
        path = next(path for path in (self.folder / CHECKPOINT, self.folder / PREVIOUS) if path.is_file())
        self.refuse_other_run(header, path)
        try:
            self.loop.check(check_step(header.get("step"), self.loop.steps), tensors)
        except DistilError as error:
            raise DistilError(
                f"{path} is damaged: {error}. Put a sound copy there, or remove it to begin again from the first step."
            ) from error

    def after_step(self, losses: dict[str, Tensor]) -> None:
        """Tell what a step has changed; look at the numbers before anything is told or saved of them."""
        loop = self.loop
        sound = torch.stack(list(losses.values())).isfinite().all() & loop.sound()
        if self.bad_step is None:
            self.bad_step = torch.tensor(loop.steps + 1, device=sound.device)
        self.bad_step = torch.where(sound, self.bad_step, self.bad_step.clamp_max(loop.done))
        if loop.done % self.log_every == 0 or loop.done == loop.steps:
            self.refuse_not_finite()
            self.events("step", step=loop.done, steps=loop.steps, **{name: float(x) for name, x in losses.items()})
        self.tell_choice()

    def save(self) -> None:
        """Write a checkpoint, if the numbers are sound and there is a folder."""
        self.refuse_not_finite()
        if self.folder is not None:
            save_checkpoint(self.folder, self.loop.state_dict(), {"step": self.loop.done, **self.head})
            self.events("checkpoint", step=self.loop.done)
        self.saved_at = time.monotonic()

    def validate(self) -> None:
        """The accuracy on the held-out images, at the steps where it is measured."""
        if self.follow is not None and self.loop.done in self.validate_at:
            self.refuse_not_finite()
            validate, held_out = self.follow
            accuracy = validate(self.loop.snapshot(), held_out)
            self.events("validation", step=self.loop.done, accuracy=accuracy)

    def stopped(self, number: int | None) -> Interrupted:
        """Save, and tell where the run stands."""
        step = self.loop.done
        if step == 0:
            return Interrupted("stopped before the first step: nothing was saved", number)
        if step > self.begun:
            self.save()
        kept_where = f"its checkpoint is in {self.folder}" if self.folder else "nothing was saved"
        return Interrupted(f"stopped after step {step} of {self.loop.steps}: {kept_where}", number)

    def refuse_not_finite(self) -> None:
        """Refuse losses that were not finite, and parameters that ran away, at any step so far."""
        steps = self.loop.steps
        if self.bad_step is None or (bad_step := int(self.bad_step)) > steps:
            return
        kept = ""
        if self.folder is not None and (self.folder / CHECKPOINT).is_file():
            kept = f" The last checkpoint, {self.folder / CHECKPOINT}, is from before and is kept."
        raise DistilError(
            f"the loss stopped being a finite number at step {bad_step} of {steps}, or the images left all bounds: "
            "lower {lr}, or {network_lr} where it was raised (or check the images for a class of identical ones)."
            f"{kept}",
            field=("lr", "network_lr"),
        )

    def refuse_other_run(self, saved: dict[str, Any], checkpoint: Path) -> None:
        """Nothing, if a checkpoint's header is of these settings and images; settings it does not name have
        defaults."""
        if not isinstance(saved.get("settings"), dict):
            raise DistilError(f"{checkpoint} is damaged: its header names no settings. Start the run again.")
        wanted = json.loads(json.dumps(self.head["settings"]))
        made = json.loads(json.dumps(self.upgrade(saved["settings"])))
        if differing := first_difference(made, wanted):
            name, was, now = differing
            raise DistilError(
                f"{checkpoint} is of another run: {name} was {was} and is {now} now. Resume with the settings that it "
                "began with, or start in another folder."
            )
        if saved.get("source_fingerprint") not in (None, self.head["source_fingerprint"]):
            raise DistilError(
                f"{checkpoint} was made from other training images (their hash differs): put the old images back, or "
                "start in another folder."
            )


def first_difference(made: Any, wanted: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """(name, there, here) of the first value in which nested settings differ; None if they are alike."""
    if not isinstance(made, dict) or not isinstance(wanted, dict):
        return None if made == wanted else (name, made, wanted)
    for key in dict.fromkeys((*wanted, *made)):
        inner = name if key == "kind" else key
        if found := first_difference(made.get(key), wanted.get(key), inner):
            return found
    return None
