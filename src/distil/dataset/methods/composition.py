"""The parts that settings put together, by their names."""

from typing import Any

from distil.dataset.config import Observer, Selection, Settings, Trajectory
from distil.fields import slots

ROLES = ("parameterization", "objective", "networks", "sampler", "labels")
"""The roles that methods that learn have, in the order in which they are told; others follow."""


def parts_of(settings: Settings) -> dict[str, str]:
    """What stands in each role: {"parameterization": "dct, 32 images, 4 bits, policy response", ...}.

    A role of which a kind of method has none is told in words; parts that are optional are left out where unused.
    """
    if isinstance(settings, Selection):
        seen = "no network"
        if isinstance(settings.observer, Observer):
            seen = f"{settings.observer.network} trained on all images"
        elif settings.observer is not None:
            seen = f"the trained classifier {settings.observer.model}"
        stored = "real images" if settings.tiles is None else "crops of real images, tiled"
        return {"parameterization": stored, "objective": settings.method, "networks": seen, "labels": "hard"}
    found = {path[0]: _told(value) for path, _, value in slots(settings) if len(path) == 1 and value is not None}
    if isinstance(settings, Trajectory):
        experts = settings.experts
        found["objective"] = f"trajectory, {settings.student_steps} updates for {settings.span} epochs"
        found["networks"] = f"a student from {experts.runs} experts of {experts.epochs} epochs"
        found["sampler"] = "none: the experts alone see real images"
    found.setdefault("labels", "hard")
    return {role: found[role] for role in (*ROLES, *(name for name in found if name not in ROLES)) if role in found}


TOLD = ("factor", "images", "bits", "windows", "batch", "distance", "policy")
"""Settings that are told with the part that has them."""


def _told(part: Any) -> str:
    words = [getattr(part, "kind", type(part).__name__.lower())]
    for name in TOLD:
        value = getattr(part, name, None)
        if value is None:
            continue
        if name == "factor":
            words += [f"{value} x {value} cells"] if value > 1 else ["whole images"]
        elif name == "distance":
            words.append(f"{value} distance")
        else:
            words.append(f"{name} {_told(value)}" if hasattr(value, "kind") else f"{name} {value}")
    return ", ".join(words)
