"""Whether a training step of a detector fits into memory, before the first one."""

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from distil.cli.detector_flags import DataFlags
from distil.cli.flags import device_named
from distil.detector.settings import DetectorSettings
from distil.errors import DistilError
from distil.processes import is_first
from distil.runs import silent

if TYPE_CHECKING:
    from distil.data.detection.detection_set import DetectionSet
    from distil.networks.detectors import Architecture

USABLE = 0.9
"""Share of the free memory that is used: the estimate may be somewhat too low."""
GIB = 2**30


def check_memory(
    architecture: "Architecture",
    data: "DetectionSet",
    settings: DetectorSettings,
    place: DataFlags,
    *,
    taught_by: tuple[Any, tuple[str, ...]] | None = None,
) -> None:
    """Refuse a step that needs more memory than is free, unless --no-memory-check is given.

    taught_by: the teacher's adapter and the names of its classes.
    Raises: DistilError with the two sizes and the flags that lower the first.
    """
    from distil.detector.memory import footprint
    from distil.memory import free_memory
    from distil.report.progress import show_progress

    if not place.memory_check:
        return
    device = device_named(place.device)
    free = free_memory(device)
    if free is None or device.startswith("mps"):
        return
    teacher, classes = taught_by or (None, None)
    with show_progress("memory") if is_first() else nullcontext(silent) as shown:
        shown("preparing", what="what a step will need")
        needed = footprint(architecture, data, settings, teacher=teacher, teacher_classes=classes)
    world, local = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    free = int(USABLE * free) // (local if device == "cpu" else 1)
    images = -(-settings.training.batch // world)
    if needed.of(images) <= free:
        return
    fitting = min(needed.largest_batch(free), images) * world
    height, width = needed.view
    remedies = [f"--batch {fitting}"] if fitting else []
    remedies += ["a smaller --min-size and --max-size", "a smaller --backbone"]
    if is_first():
        raise DistilError(
            f"a step with {images} images of {width} x {height} pixels needs about {needed.of(images) / GIB:.1f} GiB "
            f"of memory, and {free / GIB:.1f} GiB can be used here: take {' or '.join(remedies)}. If you know better, "
            "give --no-memory-check."
        )
    raise SystemExit(2)
