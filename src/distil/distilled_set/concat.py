"""Distilled sets put together, and some classes of one: what class-by-class distillation needs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from distil.checks import shown
from distil.distilled_set.parts import description, merged, provenance
from distil.errors import DistilError
from distil.lookup import indices_of

if TYPE_CHECKING:
    from distil.distilled_set.record import DistilledSet


def concat(sets: Sequence["DistilledSet"], *, as_images: bool = False) -> "DistilledSet":
    """One set of the items and classes of several; see `DistilledSet.concat`."""
    if not sets:
        raise DistilError("there is no set to concatenate: give at least one.")
    if as_images:
        sets = [made.as_images() for made in sets]
    if len(sets) == 1:
        return sets[0]
    _check_classes(sets)
    _check_images(sets)
    _check_stored(sets)
    first = sets[0]
    classes = tuple(name for made in sets for name in made.classes)
    labels = _labels(sets, len(classes))
    try:
        placed = type(first.parameterization).joined([(made.parameterization, len(made.params)) for made in sets])
    except DistilError as error:
        raise error.within(after=AS_IMAGES, field="as_images") from error
    mean, std = statistics(sets)
    parts = merged([part for made in sets for part in provenance(made)])
    return replace(
        first,
        params=torch.cat([made.params for made in sets]),
        labels=labels,
        item_classes=_item_classes(sets),
        label_source=None,
        student_lr=first.student_lr if len({made.student_lr for made in sets}) == 1 else None,
        parameterization=placed,
        classes=classes,
        mean=mean,
        std=std,
        **description(parts, classes),
    )


AS_IMAGES = " {as_images=True} joins their decoded images instead, each stored as an image of its own."


def only(made: "DistilledSet", classes: Sequence[str]) -> "DistilledSet":
    """The items of some classes of a set; see `DistilledSet.only`."""
    indices = indices_of(classes, made.classes, f"the set of {made.source}")
    classes = tuple(classes)
    if classes == made.classes:
        return made
    owner = made.class_of
    items = torch.cat([(owner == index).nonzero().flatten() for index in indices]).tolist()
    if not items:
        raise DistilError(f"no item of the set of {made.source} is of {', '.join(map(shown, classes))}.")
    place = {index: new for new, index in enumerate(indices)}
    placed = torch.tensor([place[index] for index in owner[items].tolist()])
    soft = made.labels.is_floating_point()
    labels = _conditional(made.labels[items][..., indices], items) if soft else placed
    kept = [replace(part, classes=tuple(name for name in classes if name in part.classes)) for part in provenance(made)]
    parts = tuple(part for part in kept if part.classes)
    return replace(
        made,
        params=made.params[items],
        labels=labels,
        item_classes=None if made.item_classes is None else placed,
        parameterization=made.parameterization.select(items),
        classes=classes,
        **description(parts, classes),
    )


def statistics(sets: Sequence["DistilledSet"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: the common ones, or those of the sets' images taken together.

    With m, s those of a set, w its share of all classes: mean = sum w m, std^2 = sum w (s^2 + m^2) - mean^2, which is
    exact where every class has as many real images and each set was normalized by its own.
    """
    first = sets[0]
    if all((made.mean, made.std) == (first.mean, first.std) for made in sets):
        return first.mean, first.std
    counts = torch.tensor([float(len(made.classes)) for made in sets], dtype=torch.float64)
    share = (counts / counts.sum())[:, None]
    means, stds = (
        torch.tensor([getattr(made, name) for made in sets], dtype=torch.float64) for name in ("mean", "std")
    )
    mean = (share * means).sum(0)
    std = ((share * (stds.square() + means.square())).sum(0) - mean.square()).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def _item_classes(sets: Sequence["DistilledSet"]) -> Tensor | None:
    """The classes that are stored beside soft labels, if one of the sets has them."""
    if all(made.item_classes is None for made in sets):
        return None
    found, before = [], 0
    for made in sets:
        found.append(made.class_of + before)
        before += len(made.classes)
    return torch.cat(found)


def _check_classes(sets: Sequence["DistilledSet"]) -> None:
    owner: dict[str, int] = {}
    for index, made in enumerate(sets, 1):
        for name in made.classes:
            if name in owner:
                raise DistilError(
                    f"class {shown(name)} is in set {owner[name]} and in set {index}: a class comes from one set. "
                    "Leave it out of the other with only([...]), or distil it once with more images per class."
                )
            owner[name] = index


def _check_images(sets: Sequence["DistilledSet"]) -> None:
    first = sets[0]
    for index, made in enumerate(sets[1:], 2):
        if len(made.mean) != len(first.mean):
            raise DistilError(
                f"set 1 has images of {len(first.mean)} channels and set {index} of {len(made.mean)}: distil both from "
                "images with the same channels."
            )
        if made.size != first.size:
            (rows, columns), (height, width) = first.size, made.size
            raise DistilError(
                f"set 1 has images of {rows} x {columns} pixels and set {index} of {height} x {width}: distil both at "
                "one size."
            )


def _check_stored(sets: Sequence["DistilledSet"]) -> None:
    first = sets[0]
    for index, made in enumerate(sets[1:], 2):
        if (made.params.dtype, made.params.shape[1:]) != (first.params.dtype, first.params.shape[1:]):
            described = [
                f"{list(one.params.shape[1:])} in {str(one.params.dtype).removeprefix('torch.')}"
                for one in (first, made)
            ]
            raise DistilError(
                f"an item of set 1 is stored as {described[0]}, one of set {index} as {described[1]}.{AS_IMAGES}",
                field="as_images",
            )


def _labels(sets: Sequence["DistilledSet"], classes: int) -> Tensor:
    """Labels over all classes; soft ones give the classes of other sets probability 0.

    Raises: DistilError where some are hard and some are soft.
    """
    soft = [made.labels.is_floating_point() for made in sets]
    if any(soft) and not all(soft):
        hard = soft.index(False) + 1
        raise DistilError(
            f"set {hard} has hard labels and set {soft.index(True) + 1} soft ones: a score would be of neither kind. "
            "Distil both with labels of one kind; in Python, replace(made, labels=made.class_of) makes them hard."
        )
    each, start, labels = any(made.labels.ndim == 3 for made in sets), 0, []
    for made in sets:
        own, count = made.labels, len(made.classes)
        if not all(soft):
            labels.append(own + start)
        else:
            if each and own.ndim == 2:
                own = own[:, None].expand(-1, made.images_per_item, -1)
            labels.append(pad(own, (start, classes - start - count)))
        start += count
    return torch.cat(labels)


LEAST = 1e-3
"""Probability that the classes which are kept must have in every soft label."""


def _conditional(labels: Tensor, items: list[int]) -> Tensor:
    """Probabilities given that the class is a kept one. Raises: DistilError where that is next to impossible."""
    sums = labels.sum(-1, keepdim=True)
    if bool((low := (sums < LEAST).flatten(1).any(1)).any()):
        item = items[int(low.nonzero()[0])]
        raise DistilError(
            f"a soft label of item {item} gives the classes that are kept a probability below {LEAST:g}: keep more "
            "classes; or replace(made, labels=made.class_of) first, which makes the labels hard."
        )
    return labels / sums
