"""distil_dataset: real images in, a distilled set out."""

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
from distil.dataset.artifact import Cosines, DistilledSet, packed
from distil.dataset.coresets import choose, random_choice
from distil.dataset.formation import Spectrum, cosines_of_a_view
from distil.dataset.matching import State, advance, all_regions, initial_state, restored_state, total_steps
from distil.dataset.networks import embed_all, trained_proxy
from distil.dataset.policies import response_utilisation, seam_windows
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.functional.augment import operations_of
from distil.functional.regions import whole_region
from distil.functional.spectrum import shared_among_views
from distil.functional.utilisation import utilisation_entropy
from distil.memory import freed_memory_kept
from distil.models import check_network
from distil.runs import CHECKPOINT, PROXY, RESULT, Events, Interrupted, silent
from distil.settings import CoresetSettings, MatchingSettings, Settings, check_settings, settings_from_dict
from distil.sources.images import ImageSet
from distil.stopping import stop_requests

LARGEST = 1e4
"""A canvas's number beyond this, thousands of times what an image can hold, has run away."""
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
    resume: go on from the folder's checkpoint if there is one; bit-equal to an uninterrupted run on the CPU. Without
    it a checkpoint that lies there is removed.
    events: called as events("step", step=..., steps=..., loss=...) and so on; see docs/runs.md.
    validate: (distilled set, held-out images) -> accuracy, called `settings.validations` times; it selects nothing.
    checkpoint_seconds: time between checkpoints. Ctrl-C (in the main thread) also writes one.

    Raises: DistilError when settings and images do not fit, when a loss is not finite or a canvas runs away (naming the
    step; the last checkpoint, which was sound, is kept), when the folder cannot be written, when a checkpoint is of
    other settings or images; Interrupted after Ctrl-C.
    """
    events = events or silent
    check_settings(settings)
    check_fit(real, settings)
    if settings.validation:
        check_can_hold_out(real, settings)
        kept, held_out = real.split(settings.validation, settings.seed)
        check_count(kept, settings, f" after holding out --validation {settings.validation}")
    else:
        kept, held_out = real, None
    kept = kept.to(device)
    folder = None if folder is None else Path(folder)
    if isinstance(settings, CoresetSettings):
        result = _coreset(kept, real, settings, device, events)
    else:
        follow = None if validate is None or held_out is None else (validate, held_out)
        with freed_memory_kept():
            result = _match(kept, real, settings, device, folder, resume, events, follow, checkpoint_seconds)
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
        net = trained_proxy(settings.network, settings.width, kept, steps, device=device, seed=settings.seed)
        embeddings = embed_all(net, kept)
    for label, name in enumerate(kept.classes):
        members = kept.by_class[label].cpu()
        if embeddings is None:
            chosen = random_choice(len(members), settings.ipc, settings.seed, name)
        else:
            chosen = choose(settings.method, embeddings[members], settings.ipc, settings.seed, name)
        picks.append(members[chosen])
    images = kept.images.cpu()[torch.cat(picks)]
    regions = whole_region(real.size)[None]
    return _finished(images, regions, None, real, settings)


def _match(
    kept: ImageSet,
    real: ImageSet,
    settings: MatchingSettings,
    device: torch.device | str,
    folder: Path | None,
    resume: bool,
    events: Events,
    follow: tuple[Validate, ImageSet] | None,
    checkpoint_seconds: float,
) -> DistilledSet:
    steps = total_steps(settings)
    checkpoint = None if folder is None else folder / CHECKPOINT
    saved = None
    head: dict[str, Any] = {"settings": asdict(settings), "source_fingerprint": real.fingerprint()}
    if checkpoint is not None and checkpoint.is_file() and not resume:
        checkpoint.unlink()
    if checkpoint is not None and checkpoint.is_file():
        saved = load_tensors(checkpoint)
        _refuse_other_run(saved[1], head, checkpoint)
    events("start", step=0 if saved is None else int(saved[1]["step"]), steps=steps)
    proxy = _proxy(kept, settings, device, folder, resume)
    if saved is None:
        state = initial_state(kept, settings, proxy)
        if state.spectrum is not None:
            events("cosines", step=0, kept=state.spectrum.kept.tolist())
    else:
        state = restored_state(int(saved[1]["step"]), saved[0], kept, settings, device)

    log_every = max(1, steps // LOG_LINES)
    validate_at = set()
    if follow is not None and settings.validations:
        validate_at = {round(steps * i / settings.validations) for i in range(1, settings.validations + 1)}
    bad_step = torch.tensor(steps + 1, device=device)
    saved_at = time.monotonic()

    def save() -> None:
        if checkpoint is not None:
            save_tensors(checkpoint, state.tensors(), {"step": state.step, **head})
            events("checkpoint", step=state.step)

    windows_seen, spectrum_seen = state.mined, state.spectrum
    with stop_requests() as stop_asked:
        for _ in advance(state, kept, settings, proxy):
            finite = torch.stack(list(state.losses.values())).isfinite().all()
            sound = finite & (state.canvases.abs().max() < LARGEST)
            bad_step = torch.where(sound, bad_step, bad_step.clamp_max(state.step))
            due = time.monotonic() - saved_at > checkpoint_seconds
            if state.step % log_every == 0 or state.step in validate_at or due or stop_asked():
                _refuse_not_finite(int(bad_step), steps, checkpoint)
            if state.step % log_every == 0 or state.step == steps:
                events("step", step=state.step, steps=steps, **{name: float(x) for name, x in state.losses.items()})
            if state.mined is not None and state.mined is not windows_seen:
                windows_seen = state.mined
                used = float(utilisation_entropy(state.mined.utilisation))
                events("windows", step=state.step, windows=state.mined.windows.int().tolist(), mue=used)
            if state.spectrum is not None and state.spectrum is not spectrum_seen:
                spectrum_seen = state.spectrum
                events("cosines", step=state.step, kept=state.spectrum.kept.tolist())
            if follow is not None and state.step in validate_at:
                accuracy = follow[0](_result(state, kept, real, settings, proxy), follow[1])
                events("validation", step=state.step, accuracy=accuracy)
            if due:
                save()
                saved_at = time.monotonic()
            if stop_asked() and state.step < steps:
                save()
                kept_where = f"its checkpoint is in {folder}" if folder else "nothing was saved"
                raise Interrupted(f"stopped after step {state.step} of {steps}: {kept_where}")
    _refuse_not_finite(int(bad_step), steps, checkpoint)
    return _result(state, kept, real, settings, proxy)


def _refuse_other_run(saved: dict[str, Any], head: dict[str, Any], checkpoint: Path) -> None:
    """Nothing, if a checkpoint's header is of these settings and images; settings it does not name have defaults."""
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


def _refuse_not_finite(bad_step: int, steps: int, checkpoint: Path | None) -> None:
    if bad_step > steps:
        return
    kept = ""
    if checkpoint is not None and checkpoint.is_file():
        kept = f" The last checkpoint, {checkpoint}, is from before and is kept."
    raise DistilError(
        f"the loss stopped being a finite number at step {bad_step} of {steps}, or the images left all bounds: lower "
        f"--lr-image, or --network-lr where it was raised (or check the images for a class of identical ones).{kept}"
    )


def _proxy(
    kept: ImageSet, settings: MatchingSettings, device: torch.device | str, folder: Path | None, resume: bool
) -> nn.Module | None:
    """The proxy network of a policy that needs one: read from the folder when a run is resumed, else trained."""
    if settings.policy not in ("response", "jitter"):
        return None
    path = None if folder is None else folder / PROXY
    made_by = {name: getattr(settings, name) for name in ("network", "width", "proxy_steps", "seed")}
    made_by["images"] = kept.fingerprint()
    if resume and path is not None and path.is_file():
        tensors, header = load_tensors(path)
        if header == made_by:
            net = trained_proxy(settings.network, settings.width, kept, 0, device=device, seed=settings.seed)
            net.load_state_dict(tensors)
            return net
    steps = settings.proxy_steps
    net = trained_proxy(settings.network, settings.width, kept, steps, device=device, seed=settings.seed)
    if path is not None:
        save_tensors(path, net.state_dict(), made_by)
    return net


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
