"""What a set was put together from: each run that made some of its items, and the images of that run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from distil.checks import check_class_names, check_seed, check_statistics, check_text, is_finite, shown
from distil.data.images.image_set import ImageSet
from distil.errors import DistilError

if TYPE_CHECKING:
    from distil.distilled_set.record import DistilledSet


@dataclass(frozen=True)
class Part:
    """The items of one run in a set.

    classes: those whose items it gave. source_classes: those of the images that it was made from, in their order.
    mean, std: per channel, of that run. The others as in a distilled set of that run alone.
    """

    classes: tuple[str, ...]
    source_classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str
    settings: dict[str, Any]
    seed: int
    source: str
    source_fingerprint: str
    student_lr: float | None = None


def provenance(made: "DistilledSet") -> tuple[Part, ...]:
    """The parts of a set; one as a run made it is its own only part."""
    if made.parts:
        return made.parts
    described = {field.name: getattr(made, field.name) for field in fields(Part) if field.name != "source_classes"}
    return (Part(**described, source_classes=made.classes),)


def merged(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts in the order of their first item, those of one run as one."""
    found: list[Part] = []
    for part in parts:
        for index, other in enumerate(found):
            if replace(other, classes=()) == replace(part, classes=()):
                found[index] = replace(other, classes=other.classes + part.classes)
                break
        else:
            found.append(part)
    return tuple(found)


def description(parts: Sequence[Part], classes: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a set of these parts and classes that say what made it.

    method, source: of all parts, different ones joined by " + ". settings, student_lr: what all parts share. seed: the
    first part's. source_fingerprint: the common one, or a hash of them all. parts: none where a single run made the set
    and all its classes.
    """
    first = parts[0]
    shared = {
        name: value
        for name, value in first.settings.items()
        if all(name in part.settings and part.settings[name] == value for part in parts)
    }
    prints = list(dict.fromkeys(part.source_fingerprint for part in parts))
    whole = len(parts) == 1 and first.source_classes == classes
    return {
        "method": " + ".join(dict.fromkeys(part.method for part in parts)),
        "settings": shared,
        "seed": first.seed,
        "source": " + ".join(dict.fromkeys(part.source for part in parts)),
        "source_fingerprint": prints[0] if len(prints) == 1 else hashlib.sha256("\n".join(prints).encode()).hexdigest(),
        "student_lr": first.student_lr if all(part.student_lr == first.student_lr for part in parts) else None,
        "parts": () if whole else tuple(parts),
    }


def made_from(made: "DistilledSet", images: ImageSet) -> bool:
    """Whether each part of a set was made from these images, or from those of some of their classes."""
    for part in provenance(made):
        if not set(part.source_classes) <= set(images.classes) or len(part.source_classes) < 2:
            return False
        if images.only(part.source_classes).fingerprint() != part.source_fingerprint:
            return False
    return True


def check_parts(parts: Sequence[Part], classes: tuple[str, ...], channels: int) -> tuple[Part, ...]:
    """The parts as a distilled set keeps them.

    Raises: DistilError if a field makes no sense, or if they do not give the set's classes, each by one part.
    """
    checked = []
    for part in parts:
        mean, std = check_statistics(part.mean, part.std, channels)
        for name in ("method", "source", "source_fingerprint"):
            check_text(getattr(part, name), f"the {name} of a part")
        names, source = check_class_names(part.classes), check_class_names(part.source_classes)
        if missing := [name for name in names if name not in source]:
            raise DistilError(f"a part gives class {shown(missing[0])}, which the images that made it lack.")
        if not isinstance(part.settings, dict):
            raise DistilError(f"the settings of a part are {shown(part.settings)}: they must be a dictionary.")
        if part.student_lr is not None and not is_finite(part.student_lr):
            raise DistilError(f"the student_lr of a part is {shown(part.student_lr)}: expected a number, or None.")
        seed = check_seed(part.seed, "the seed of a part")
        checked.append(replace(part, mean=mean, std=std, classes=names, source_classes=source, seed=seed))
    given = [name for part in checked for name in part.classes]
    if checked and sorted(given) != sorted(classes):
        raise DistilError(f"the parts give classes {shown(given)}, and the set has {shown(list(classes))}.")
    return tuple(checked)


def to_header(parts: Sequence[Part]) -> dict[str, Any]:
    """The entry of a file's header, none for a set without parts."""
    return {"parts": [asdict(part) for part in parts]} if parts else {}


def from_header(header: Mapping[str, Any]) -> tuple[Part, ...]:
    """What `to_header` wrote. Raises: DistilError that names the entry."""
    rows, names = header.get("parts", []), {field.name for field in fields(Part)}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() == names for row in rows):
        raise DistilError(f"parts are {shown(rows)}: expected a list of objects with {', '.join(sorted(names))}.")
    lists = ("classes", "source_classes", "mean", "std")
    row: dict[str, Any]
    for row in rows:
        for name in lists:
            if not isinstance(row[name], list):
                raise DistilError(f"the {name} of a part is {shown(row[name])}: expected a list.")
    return tuple(Part(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in rows)
