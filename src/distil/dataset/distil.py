"""distil_dataset: real images in, a distilled set out."""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.checks import check_class_names, check_statistics, check_text
from distil.data.images.image_set import ImageSet, Source
from distil.data.images.opener import open_source
from distil.dataset.compose import (
    check_parameterization,
    matching_loop,
    real_images_of_a_class,
    task_of,
    trajectory_loop,
)
from distil.dataset.config import Experts as ExpertSettings
from distil.dataset.config import (
    Grid,
    Learning,
    Matching,
    Observer,
    Selection,
    Settings,
    Trajectory,
    check_settings,
    experts_of,
    with_experts,
)
from distil.dataset.experts import check_experts_fit, experts_settings, train_experts
from distil.dataset.labels import hard_labels
from distil.dataset.methods import preset
from distil.dataset.proxies import kept_proxy, preparing
from distil.dataset.run import Run, Validate
from distil.dataset.selecting import selected
from distil.dataset.selection.grid import check_grid
from distil.dataset.selection.tiles import check_tiles, factor_of
from distil.dataset.upgrade import settings_from_dict
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.fields import to_dict
from distil.files import remove_unfinished
from distil.functional.augment import operations_of
from distil.locks import only_writer
from distil.networks import BATCH_NORMED, check_network
from distil.networks.experts import Experts, held_experts, in_memory, open_experts, read_description
from distil.parameterizations.base import Parameterization
from distil.processes import Processes, joined
from distil.runs import EXPERTS_FOLDER, PROXY, RESULT, Events, has_checkpoint, silent

Images = ImageSet | Source | str | Path


def distil_dataset(
    images: Images,
    method: str | Settings = "udd",
    *,
    ipc: int = 1,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    recipe: str | None = None,
    experts: Path | str | None = None,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    resume: bool = False,
    events: Events | None = None,
    validate: Validate | None = None,
    checkpoint_seconds: float = 120.0,
    download: bool = False,
) -> DistilledSet:
    """Distil training images into a few items per class.

    images: an ImageSet of training images; a Source, whose training images are taken; or what `open_source` opens. A
    share `settings.validation` of them is held out before anything else.
    method: the name of a method, whose settings for these images are then taken, with `ipc` items per class, `seed` and
    `recipe` (see `preset`); or settings, a `Matching`, a `Trajectory` or a `Selection`, which hold all that themselves.
    classes: distil these alone, in this order; all of them unless given. Mean and std stay those of all.
    experts: a folder of trained experts (`train_experts`, `distil experts`) for a method that needs some; the settings
    take those with which they were trained. Without it they are trained first, into the run folder if there is one.
    folder: run folder for checkpoints and the result; without one nothing is written.
    resume: continue from the folder's checkpoint if there is one; bit-equal to an uninterrupted run on the CPU. If it
    is damaged, the one before it is taken, and an event "damaged" says so. Without `resume` both are removed.
    events: called as events("step", step=..., steps=..., loss=...) and so on; see docs/runs.md.
    validate: (distilled set, held-out images) -> accuracy, called `settings.validations` times; it selects nothing.
    checkpoint_seconds: time between checkpoints. A stop by Ctrl-C or another signal of `stopping.STOPPING` (in the main
    thread) also writes one, and so does the end, before the last validation.
    download: allow the network, for the pretrained weights of an observer.

    With torchrun all processes call this alike and make one set together, which all get; `device` is then of each
    process, by its type. They spread networks and classes, and on the CPU the bytes are those of one process. Only the
    first uses `folder`, `events` and `validate`.

    Raises: DistilError when settings and images do not fit, when a loss is not finite or a parameter runs away (naming
    the step; the last checkpoint, which was sound, is kept), when the folder cannot be written or another run is
    writing to it, when no checkpoint is sound or it is of other settings or images; Interrupted after a stop.
    """
    events = events or silent
    real, key = _training_images(images)
    real = real if classes is None else real.only(classes)
    settings = (
        method if isinstance(method, (Matching, Trajectory, Selection)) else preset(method, key, ipc, recipe, seed=seed)
    )
    if experts is not None:
        if isinstance(settings, Selection):
            raise DistilError(f"{settings.method} uses no experts: leave {{experts}} out.", field="experts")
        settings = with_experts(settings, experts_settings(read_description(experts)))
    check_settings(settings)
    check_fit(real, settings)
    if not checkpoint_seconds >= 0:
        raise DistilError(
            f"{{checkpoint_seconds}} is {checkpoint_seconds}: give a number of seconds, 0 or more.",
            field="checkpoint_seconds",
        )
    if settings.validation:
        check_can_hold_out(real, settings)
        kept, held_out = real.split(settings.validation, settings.seed)
        check_count(kept, settings, f" after holding out {{validation}} {settings.validation}")
    else:
        kept, held_out = real, None
    processes = joined(device)
    if processes.count > 1 and isinstance(settings, Trajectory):
        raise DistilError(
            f"{settings.method} unrolls the training of one network after another, which cannot be spread over "
            "processes: start it without torchrun."
        )
    _check_alike(processes, settings, real)
    kept = kept.to(device if processes.count == 1 else processes.device)
    follow = None if validate is None or held_out is None else (validate, held_out)
    folder = None if folder is None else Path(folder).absolute()
    if not processes.first:
        folder, events, follow = None, silent, None
    with contextlib.nullcontext() if folder is None else only_writer(folder):
        if folder is not None:
            remove_unfinished(folder)
        if isinstance(settings, Selection):
            if folder is not None and resume and has_checkpoint(folder):
                raise DistilError(
                    f"{folder} holds a checkpoint, and {settings.method}, which chooses real images, makes none: it is "
                    "of another run. Start in another folder."
                )
            result, steps = None, 0
            if processes.first:
                stored, placed = selected(kept, settings, events, download=download)
                result = finished(stored, placed, real=real, settings=settings)
        else:
            path = None if experts is None else Path(experts).absolute()
            run = _learning_run(
                kept, real, settings, folder, path, events, resume, follow, checkpoint_seconds, processes
            )
            result, steps = run.drive(resume), run.loop.steps
        if result is not None and folder is not None:
            result.save(folder / RESULT)
        events("done", step=steps)
    result = processes.from_first(lambda: result)
    assert result is not None
    return result


def _check_alike(processes: Processes, settings: Settings, real: ImageSet) -> None:
    """Refuse processes that were given different things to make one set of. Raises: DistilError that names them."""
    if processes.count > 1:
        given = processes.every((to_dict(settings), real.fingerprint()))
        for name, values in zip(("settings", "training images"), zip(*given, strict=True), strict=True):
            if differing := [number for number, value in enumerate(values) if value != values[0]]:
                raise DistilError(
                    f"process {differing[0]} of {processes.count} has other {name} than process 0: with torchrun all "
                    "make one set together. Give all the same, or start them without torchrun."
                )


def _training_images(images: Images) -> tuple[ImageSet, str]:
    """(training images, the key of their settings)."""
    if isinstance(images, (str, Path)):
        images = open_source(str(images))
    return (images, "custom") if isinstance(images, ImageSet) else (images.train, images.key)


def check_fit(real: ImageSet, settings: Settings) -> None:
    """Refuse settings that these images cannot serve. Raises: DistilError that names both."""
    check_class_names(real.classes)
    check_statistics(real.mean, real.std, real.channels)
    check_text(real.name, "the name of the images")
    if not isinstance(settings, Selection):
        check_network(settings.network)
        if settings.network in BATCH_NORMED:
            raise DistilError(
                f"{{network}} {settings.network} has batch norm, whose statistics follow each batch: nothing is "
                "matched in it. Use resnet18.",
                field="network",
            )
        trained = (getattr(settings, "networks", None), experts_of(settings))
        for operations in (settings.augment, *(getattr(each, "augment", "none") for each in trained)):
            try:
                operations_of(operations)
            except ValueError as error:
                raise DistilError(f"{error}, joined by underscores, or none.") from error
        check_parameterization(settings.parameterization, real.channels, real.size)
    else:
        if isinstance(settings.observer, Observer):
            check_network(settings.observer.network)
        if settings.tiles is not None:
            factor = factor_of(settings.tiles, real.size)
            check_grid(Grid(factor), real.size)
            check_tiles(settings.tiles, settings.ipc, real.size)
    check_count(real, settings)


def check_can_hold_out(real: ImageSet, settings: Settings) -> None:
    """Refuse to hold out images of a class that has only one. Raises: DistilError that names the class."""
    for name, count in zip(real.classes, real.counts, strict=True):
        if count < 2:
            raise DistilError(
                f"class {name!r} has 1 image, and {{validation}} {settings.validation} holds at least one out: use "
                "{validation} 0, or give that class more images.",
                field="validation",
            )


def check_count(real: ImageSet, settings: Settings, when: str = "") -> None:
    """Refuse more images per class than a class has (where real images are chosen or shrunk into cells).

    when: said after the number of images that a class has.
    """
    each = 1 if isinstance(settings, Selection) else real_images_of_a_class(settings.parameterization)
    tiles = settings.tiles if isinstance(settings, Selection) else None
    if tiles is not None:
        each = factor_of(tiles, real.size) ** 2
    for name, count in zip(real.classes, real.counts, strict=True):
        if each and settings.ipc > count:
            raise DistilError(
                f"{{ipc}} {settings.ipc} asks for more images than class {name!r} has ({count}{when}): ask for fewer, "
                "or give that class more images.",
                field=("ipc", "validation"),
            )
        if tiles is not None and settings.ipc * each > count:
            raise DistilError(
                f"class {name!r} has {count} images{when} and {{ipc}} {settings.ipc} takes crops of "
                f"{settings.ipc * each} ({settings.ipc} x {each} cells): lower {{ipc}} or {{factor}}, or give that "
                "class more images.",
                field=("ipc", "factor", "validation"),
            )
        if settings.ipc * each > count:
            raise DistilError(
                f"class {name!r} has {count} images{when} and {{init}} mix shrinks {settings.ipc * each} ({{ipc}} "
                f"{settings.ipc} x {each} cells) into its items: lower {{ipc}} or {{factor}}, or use {{init}} noise.",
                field=("ipc", "init", "factor", "validation"),
            )


def _learning_run(
    kept: ImageSet,
    real: ImageSet,
    settings: Learning,
    folder: Path | None,
    experts: Path | None,
    events: Events,
    resume: bool,
    follow: tuple[Validate, ImageSet] | None,
    checkpoint_seconds: float,
    processes: Processes,
) -> Run:
    task = task_of(kept, settings)
    every = 1 if isinstance(settings, Trajectory) else settings.inner * settings.target_reuse * processes.count
    tell = preparing(events, "preparing networks", "network", every=every)
    if experts is not None:
        check_experts_fit(read_description(experts), kept, settings.network, settings.width, experts)

    def prepared(done: int, of: int) -> None:
        tell(done, of)
        run.pause()

    def prepare() -> None:
        """Only the first process trains, and asks the proxy network; experts are read by all."""
        made = processes.from_first(prepared_first)
        if not processes.first and made is not None:
            task.experts = open_experts(made) if isinstance(made, Path) else held_experts(*made)

    def prepared_first() -> Any:
        train_first()
        if processes.count == 1 or task.experts is None:
            return None
        kept_in = experts or (None if folder is None else folder / EXPERTS_FOLDER)
        return kept_in or (in_memory(task.experts), task.experts.epochs)

    def train_first() -> None:
        if (wanted := experts_of(settings)) is not None:
            task.experts = open_experts(experts) if experts else trained(wanted)
        steps = getattr(getattr(settings.parameterization, "policy", None), "proxy_steps", None)
        if steps is None:
            return
        made_by = {"network": settings.network, "width": settings.width, "proxy_steps": steps, "seed": settings.seed}
        path = None if folder is None else folder / PROXY
        task.proxy = kept_proxy(made_by, kept, path, events, resume=resume)

    def trained(wanted: ExpertSettings) -> Experts:
        where = None if folder is None else folder / EXPERTS_FOLDER
        made_by: dict[str, Any] = {"network": settings.network, "width": settings.width, "seed": settings.seed}
        return train_experts(kept, wanted, where, events=events, **made_by)

    finish = partial(finished, real=real, settings=settings)
    if isinstance(settings, Trajectory):
        loop = trajectory_loop(task, settings, finish)
    else:
        loop = matching_loop(task, settings, finish, preparing=prepared, processes=processes)
    head = {"settings": to_dict(settings), "source_fingerprint": real.fingerprint()}
    run = Run(
        loop, head, folder, events, prepare, _upgraded, follow, settings.validations, checkpoint_seconds, processes
    )
    return run


def _upgraded(saved: Any) -> Any:
    """The settings of a checkpoint in today's form; those with parts of the user's making stay as they are."""
    try:
        return to_dict(settings_from_dict(saved))
    except DistilError:
        if "parameterization" not in saved:
            raise
        return saved


def finished(stored: Tensor, placed: Parameterization, *, real: ImageSet, settings: Settings) -> DistilledSet:
    """The distilled set of stored parameters, class by class. real: all the training images."""
    return DistilledSet(
        params=stored.cpu(),
        labels=hard_labels(len(real.classes), settings.ipc),
        parameterization=placed,
        classes=real.classes,
        mean=real.mean,
        std=real.std,
        method=settings.method,
        settings=to_dict(settings),
        seed=settings.seed,
        source=real.name,
        source_fingerprint=real.fingerprint(),
    )
