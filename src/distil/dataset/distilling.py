"""distil_dataset: real images in, a distilled set out."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.checks import check_class_names, check_statistics, check_text
from distil.data.images.image_set import ImageSet
from distil.dataset.coresets import choose, random_choice
from distil.dataset.formation import Spectrum, cosines_of_a_view
from distil.dataset.matching import LARGEST, State, advance, all_regions, initial_state, restored_state, total_steps
from distil.dataset.networks import Progress, embed_all, trained_proxy
from distil.dataset.policies import response_utilisation, seam_windows
from distil.dataset.proxies import preparing, proxy_of
from distil.dataset.restoring import check_state, check_step
from distil.distilled_set.record import Cosines, DistilledSet, packed
from distil.errors import DistilError
from distil.files import remove_unfinished
from distil.functional.augment import operations_of
from distil.functional.dct import shared_among_views
from distil.functional.regions import whole_region
from distil.functional.utilization import utilisation_entropy
from distil.locks import only_writer
from distil.memory import freed_memory_kept
from distil.networks import check_network
from distil.runs import (
    CHECKPOINT,
    PREVIOUS,
    RESULT,
    Events,
    Interrupted,
    has_checkpoint,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    silent,
)
from distil.settings import CoresetSettings, MatchingSettings, Settings, check_settings, settings_from_dict
from distil.stopping import StopRequest, stop_requests

LOG_LINES = 500
"""About so many "step" events in a run."""

Validate = Callable[[DistilledSet, ImageSet], float]


def distil_dataset(
    real: ImageSet,
    settings: Settings,
    *,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    resume: bool = False,
    events: Events | None = None,
    validate: Validate | None = None,
    checkpoint_seconds: float = 120.0,
) -> DistilledSet:
    """Distil training images into `settings.ipc` images per class.

    real: training images. A share `settings.validation` of them is held out before anything else.
    settings: CoresetSettings or MatchingSettings, from `preset` or written by hand.
    folder: run folder for checkpoints and the result; without one nothing is written.
    resume: go on from the folder's checkpoint if there is one; bit-equal to an uninterrupted run on the CPU. If it is
    damaged, the one before it is taken, and an event "damaged" says so. Without `resume` both are removed.
    events: called as events("step", step=..., steps=..., loss=...) and so on; see docs/runs.md.
    validate: (distilled set, held-out images) -> accuracy, called `settings.validations` times; it selects nothing.
    checkpoint_seconds: time between checkpoints. A stop by Ctrl-C or another signal of `stopping.STOPPING` (in the main
    thread) also writes one, and so does the end, before the last validation.

    Raises: DistilError when settings and images do not fit, when a loss is not finite or a canvas runs away (naming the
    step; the last checkpoint, which was sound, is kept), when the folder cannot be written or another run is writing to
    it, when no checkpoint is sound or it is of other settings or images; Interrupted after a stop.
    """
    events = events or silent
    check_settings(settings)
    check_fit(real, settings)
    if not checkpoint_seconds >= 0:
        raise DistilError(f"--checkpoint-seconds is {checkpoint_seconds}: give a number of seconds, 0 or more.")
    if settings.validation:
        check_can_hold_out(real, settings)
        kept, held_out = real.split(settings.validation, settings.seed)
        check_count(kept, settings, f" after holding out --validation {settings.validation}")
    else:
        kept, held_out = real, None
    kept = kept.to(device)
    follow = None if validate is None or held_out is None else (validate, held_out)
    folder = None if folder is None else Path(folder).absolute()
    with contextlib.nullcontext() if folder is None else only_writer(folder):
        if folder is not None:
            remove_unfinished(folder)
        if isinstance(settings, CoresetSettings):
            if folder is not None and resume and has_checkpoint(folder):
                raise DistilError(
                    f"{folder} holds a checkpoint, and {settings.method}, which chooses real images, makes none: it is "
                    "of another run. Start in another folder."
                )
            result = _coreset(kept, real, settings, device, events)
        else:
            with freed_memory_kept():
                matching = _Matching(kept, real, settings, device, folder, events, follow, checkpoint_seconds)
                result = matching.run(resume)
        if folder is not None:
            result.save(folder / RESULT)
        events("done", step=total_steps(settings) if isinstance(settings, MatchingSettings) else 0)
    return result


def check_fit(real: ImageSet, settings: Settings) -> None:
    """Refuse settings that these images cannot serve. Raises: DistilError that names both."""
    check_network(settings.network)
    check_class_names(real.classes)
    check_statistics(real.mean, real.std, real.channels)
    check_text(real.name, "the name of the images")
    if isinstance(settings, MatchingSettings):
        for strategy in (settings.augment, settings.augment_network):
            try:
                operations_of(strategy)
            except ValueError as error:
                raise DistilError(f"{error}, joined by underscores, or none.") from error
        if settings.formation == "grid" and settings.factor > min(real.size):
            raise DistilError(
                f"--factor {settings.factor} is larger than the images' side, {min(real.size)} pixels: use a factor of "
                "2 or 3."
            )
        starts = [(settings.factor - 1) * math.ceil(side / settings.factor) for side in real.size]
        if settings.formation == "grid" and any(start >= side for start, side in zip(starts, real.size, strict=True)):
            raise DistilError(
                f"--factor {settings.factor} does not cut {real.size[0]}x{real.size[1]} images: its last cells would "
                "start outside. Use a smaller factor, or one that divides the side."
            )
        if settings.windows_factor > min(real.size):
            raise DistilError(
                f"--windows-factor {settings.windows_factor} is larger than the images' side, {min(real.size)} pixels: "
                "use a factor of 3 or 4."
            )
        if settings.storage == "uint4" and settings.formation != "spectrum":
            raise DistilError("--storage uint4 is for coefficients: use --formation spectrum, or --storage uint8.")
        if settings.spectral_refresh and (
            settings.formation != "spectrum" or settings.policy not in ("response", "jitter")
        ):
            raise DistilError(
                f"--spectral-refresh {settings.spectral_refresh} chooses cosines again by a network's response: use "
                "--formation spectrum with --policy response or jitter, or --spectral-refresh 0."
            )
        if settings.formation == "spectrum":
            cosines_of_a_view((real.channels, *real.size), settings)
        elif settings.policy != "none":
            check_windows(real, settings)
    check_count(real, settings)


def check_windows(real: ImageSet, settings: MatchingSettings) -> None:
    """Refuse windows that a canvas does not have, and a response that says nothing."""
    candidates = len(seam_windows(settings.factor, real.size, settings.windows_factor))
    if settings.windows > candidates:
        raise DistilError(
            f"--windows {settings.windows} is more than the {candidates} candidate windows of a "
            f"{real.size[0]}x{real.size[1]} canvas at --factor {settings.factor}: use {candidates} at most."
        )


def check_can_hold_out(real: ImageSet, settings: Settings) -> None:
    """Refuse to hold out images of a class that has only one. Raises: DistilError that names the class."""
    for name, count in zip(real.classes, real.counts, strict=True):
        if count < 2:
            raise DistilError(
                f"class {name!r} has 1 image, and --validation {settings.validation} holds at least one out: use "
                "--validation 0, or give that class more images."
            )


def check_count(real: ImageSet, settings: Settings, when: str = "") -> None:
    """Refuse more images per class than a class has (where real images are chosen or shrunk into cells).

    when: said after the number of images that a class has.
    """
    cells = 1
    if isinstance(settings, MatchingSettings):
        if settings.init == "noise":
            return
        cells = settings.factor**2 if settings.init == "mix" else 1
        if settings.formation == "spectrum":
            cells = 1
    need = settings.ipc * cells
    for name, count in zip(real.classes, real.counts, strict=True):
        if settings.ipc > count:
            raise DistilError(
                f"--ipc {settings.ipc} asks for more images than class {name!r} has ({count}{when}): ask for fewer, or "
                "give that class more images."
            )
        if need > count:
            raise DistilError(
                f"class {name!r} has {count} images{when} and --init mix shrinks {need} (--ipc {settings.ipc} x "
                f"{cells} cells) into its canvases: lower --ipc or --factor, or use --init noise."
            )


def _coreset(
    kept: ImageSet, real: ImageSet, settings: CoresetSettings, device: torch.device | str, events: Events
) -> DistilledSet:
    events("start", steps=0)
    picks, embeddings = [], None
    if settings.method != "random":
        steps = -(-settings.network_epochs * len(kept.labels) // 64)
        training = preparing(events, "training the network that embeds images", "update")
        net = trained_proxy(
            settings.network, settings.width, kept, steps, device=device, seed=settings.seed, progress=training
        )
        embeddings = embed_all(net, kept, progress=preparing(events, "embedding the images", "image"))
    choosing = preparing(events, "choosing images", "class")
    for label, name in enumerate(kept.classes):
        members = kept.by_class[label].cpu()
        if embeddings is None:
            chosen = random_choice(len(members), settings.ipc, settings.seed, name)
        else:
            chosen = choose(settings.method, embeddings[members], settings.ipc, settings.seed, name)
            choosing(label + 1, len(kept.classes))
        picks.append(members[chosen])
    images = kept.images.cpu()[torch.cat(picks)]
    regions = whole_region(real.size)[None]
    return _finished(images, regions, None, real, settings)


class _StopNow(Exception):
    """A stop was asked for while networks are prepared, which the state does not depend on."""


class _Matching:
    """A matching run: what it goes on from, what it tells, and when it saves."""

    def __init__(
        self,
        kept: ImageSet,
        real: ImageSet,
        settings: MatchingSettings,
        device: torch.device | str,
        folder: Path | None,
        events: Events,
        follow: tuple[Validate, ImageSet] | None,
        checkpoint_seconds: float,
    ):
        self.kept, self.real, self.settings, self.device = kept, real, settings, device
        self.folder, self.events, self.follow = folder, events, follow
        self.head: dict[str, Any] = {"settings": asdict(settings), "source_fingerprint": real.fingerprint()}
        self.steps = total_steps(settings)
        self.log_every = max(1, self.steps // LOG_LINES)
        self.validate_at = set[int]()
        if follow is not None and settings.validations:
            shares = (i / settings.validations for i in range(1, settings.validations + 1))
            self.validate_at = {round(self.steps * share) for share in shares}
        self.bad_step = torch.tensor(self.steps + 1, device=device)
        self.checkpoint_seconds, self.saved_at = checkpoint_seconds, time.monotonic()

    def run(self, resume: bool) -> DistilledSet:
        """All the steps that are left, and the set that they make."""
        self.begin(resume)
        if self.begun:
            self.validate()  # a checkpoint is written before the validation of its step
        with stop_requests() as stop_asked:
            prepared = self.prepared(stop_asked)
            try:
                for _ in advance(self.state, self.kept, self.settings, self.proxy, preparing=prepared):
                    self.after_step()
                    if stop_asked() and self.state.step < self.steps:
                        raise _StopNow
                    if self.state.step == self.steps or time.monotonic() - self.saved_at > self.checkpoint_seconds:
                        self.save()
                    self.validate()
            except _StopNow:
                raise self.stopped(stop_asked.number) from None
        return _result(self.state, self.kept, self.real, self.settings, self.proxy)

    def begin(self, resume: bool) -> None:
        """The state before the first step of this run: a checkpoint's, if it goes on from one."""
        saved = None
        if self.folder is not None and resume:
            saved = load_checkpoint(self.folder, self.check_sound)
        elif self.folder is not None:
            remove_checkpoints(self.folder)
        self.begun: int = 0 if saved is None else saved[1]["step"]
        self.events("start", step=self.begun, steps=self.steps)
        if saved is not None and saved[2]:
            self.events("damaged", step=self.begun, message=saved[2])
        self.proxy = proxy_of(self.kept, self.settings, self.device, self.folder, resume=resume, events=self.events)
        if saved is None:
            self.state = initial_state(self.kept, self.settings, self.proxy)
            if self.state.spectrum is not None:
                self.events("cosines", step=0, kept=self.state.spectrum.kept.tolist())
        else:
            self.state = restored_state(self.begun, saved[0], self.kept, self.settings, self.device)
        self.mined, self.spectrum = self.state.mined, self.state.spectrum

    def check_sound(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Nothing, if this run can go on from a checkpoint. Raises: DistilError that names its file."""
        assert self.folder is not None
        path = next(path for path in (self.folder / CHECKPOINT, self.folder / PREVIOUS) if path.is_file())
        _refuse_other_run(header, self.head, path)
        try:
            check_state(check_step(header.get("step"), self.settings), tensors, self.kept, self.settings)
        except DistilError as error:
            raise DistilError(
                f"{path} is damaged: {error}. Put a sound copy there, or remove it to begin again from the first step."
            ) from error

    def prepared(self, stop_asked: StopRequest) -> Progress:
        """Progress of the networks of one outer iteration, at which a run may stop: its state is a whole step's."""
        every = self.settings.inner * self.settings.target_updates
        tell = preparing(self.events, "preparing networks", "network", every=every)

        def prepared(done: int, of: int) -> None:
            tell(done, of)
            if stop_asked():
                raise _StopNow

        return prepared

    def after_step(self) -> None:
        """Tell what a step has changed; look at the numbers before anything is told or saved of them."""
        state = self.state
        finite = torch.stack(list(state.losses.values())).isfinite().all()
        sound = finite & (state.canvases.abs().max() < LARGEST)
        self.bad_step = torch.where(sound, self.bad_step, self.bad_step.clamp_max(state.step))
        if state.step % self.log_every == 0 or state.step == self.steps:
            self.refuse_not_finite()
            losses = {name: float(loss) for name, loss in state.losses.items()}
            self.events("step", step=state.step, steps=self.steps, **losses)
        if state.mined is not None and state.mined is not self.mined:
            self.mined = state.mined
            used = float(utilisation_entropy(state.mined.utilisation))
            self.events("windows", step=state.step, windows=state.mined.windows.int().tolist(), mue=used)
        if state.spectrum is not None and state.spectrum is not self.spectrum:
            self.spectrum = state.spectrum
            self.events("cosines", step=state.step, kept=state.spectrum.kept.tolist())

    def save(self) -> None:
        """Write a checkpoint, if the numbers are sound and there is a folder."""
        self.refuse_not_finite()
        if self.folder is not None:
            save_checkpoint(self.folder, self.state.tensors(), {"step": self.state.step, **self.head})
            self.events("checkpoint", step=self.state.step)
        self.saved_at = time.monotonic()

    def validate(self) -> None:
        """The accuracy on the held-out images, at the steps where it is measured."""
        if self.follow is not None and self.state.step in self.validate_at:
            self.refuse_not_finite()
            validate, held_out = self.follow
            accuracy = validate(_result(self.state, self.kept, self.real, self.settings, self.proxy), held_out)
            self.events("validation", step=self.state.step, accuracy=accuracy)

    def stopped(self, number: int | None) -> Interrupted:
        """Save, and tell where the run stands."""
        step = self.state.step
        if step == 0:
            return Interrupted("stopped before the first step: nothing was saved", number)
        if step > self.begun:
            self.save()
        kept_where = f"its checkpoint is in {self.folder}" if self.folder else "nothing was saved"
        return Interrupted(f"stopped after step {step} of {self.steps}: {kept_where}", number)

    def refuse_not_finite(self) -> None:
        """Refuse losses that were not finite, and canvases that ran away, at any step so far."""
        bad_step = int(self.bad_step)
        if bad_step > self.steps:
            return
        kept = ""
        if self.folder is not None and (self.folder / CHECKPOINT).is_file():
            kept = f" The last checkpoint, {self.folder / CHECKPOINT}, is from before and is kept."
        raise DistilError(
            f"the loss stopped being a finite number at step {bad_step} of {self.steps}, or the images left all "
            "bounds: lower --lr-image, or --network-lr where it was raised (or check the images for a class of "
            f"identical ones).{kept}"
        )


def _refuse_other_run(saved: dict[str, Any], head: dict[str, Any], checkpoint: Path) -> None:
    """Nothing, if a checkpoint's header is of these settings and images; settings it does not name have defaults."""
    if not isinstance(saved.get("settings"), dict):
        raise DistilError(f"{checkpoint} is damaged: its header names no settings. Start the run again.")
    wanted = json.loads(json.dumps(head["settings"]))
    made = json.loads(json.dumps(asdict(settings_from_dict(saved["settings"]))))
    for name in wanted:
        if made.get(name) != wanted[name]:
            raise DistilError(
                f"{checkpoint} is of another run: {name} was {made.get(name)} and is {wanted[name]} now. Resume with "
                "the settings that it began with, or start in another folder."
            )
    if saved.get("source_fingerprint") not in (None, head["source_fingerprint"]):
        raise DistilError(
            f"{checkpoint} was made from other training images (their hash differs): put the old images back, or start "
            "in another folder."
        )


def _result(
    state: State, kept: ImageSet, real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None
) -> DistilledSet:
    if state.spectrum is not None:
        return _spectral_result(state.canvases, state.spectrum, real, settings)
    canvases = state.canvases.clamp(0, 1)
    regions = all_regions(state.mined, settings.factor, kept.size, canvases.device)
    utilisation = None
    if proxy is not None:
        utilisation = response_utilisation(canvases, proxy, factor=settings.factor, mean=kept.mean, std=kept.std)
    if settings.storage == "uint8":
        canvases = (canvases * 255).round().to(torch.uint8)
    return _finished(canvases, regions, utilisation, real, settings)


def _spectral_result(canvases: Tensor, spectrum: Spectrum, real: ImageSet, settings: MatchingSettings) -> DistilledSet:
    """Every coefficient is stored between 0 and 1, as a share of its own span over the views of all canvases."""
    numbers = spectrum.unit * shared_among_views(canvases.flatten(1), len(spectrum.kept))
    spans = (2 * numbers.abs().amax(0)).clamp_min(1e-6)
    shares = (numbers / spans + 0.5).clamp(0, 1).view(len(canvases), -1)
    stored = torch.full_like(canvases.flatten(1), 0.5)
    stored[:, : shares.shape[1]] = shares
    if settings.storage == "uint8":
        stored = (stored * 255).round().to(torch.uint8)
    elif settings.storage == "uint4":
        stored = packed((stored * 15).round().to(torch.uint8))
    described = Cosines(spectrum.kept.cpu(), spans.cpu(), 4 if settings.storage == "uint4" else 8)
    stored = stored.unflatten(1, (real.channels, *real.size))
    return _finished(stored, torch.empty(1, 0, 4), None, real, settings, described)


def _finished(
    canvases: Tensor,
    regions: Tensor,
    utilisation: Tensor | None,
    real: ImageSet,
    settings: Settings,
    cosines: Cosines | None = None,
) -> DistilledSet:
    return DistilledSet(
        canvases=canvases.cpu(),
        labels=torch.arange(len(real.classes)).repeat_interleave(settings.ipc),
        regions=regions.cpu(),
        classes=real.classes,
        mean=real.mean,
        std=real.std,
        view_size=real.size,
        method=settings.method,
        settings=asdict(settings),
        seed=settings.seed,
        source=real.name,
        source_fingerprint=real.fingerprint(),
        utilisation=None if utilisation is None else utilisation.cpu(),
        cosines=cosines,
    )
