"""Where real images come from."""

import os
from numbers import Integral
from pathlib import Path

from distil.checks import is_finite
from distil.data.catalog import CATALOG, MEMORY, NAMES, NamedSet
from distil.data.images.image_set import ImageSet, Source
from distil.data.paths import expanded, shown
from distil.errors import DistilError
from distil.lookup import unknown

__all__ = ["ImageSet", "Source", "open_source"]


def open_source(
    spec: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    size: int | None = None,
    download: bool = False,
    seed: int = 0,
    memory: float = MEMORY,
) -> Source:
    """The real images that a spec names. What was read and what was left out is in its `inventory`.

    spec: a name in `distil.data.catalog.CATALOG` | a folder with a folder for each class | FILE.npz | hf:NAME or
        hf:NAME:CONFIG. A folder that has the name of a dataset is written ./NAME; a Path is always a folder
        or a file.
    root: where torchvision's datasets lie; $DISTIL_DATA or ~/.cache/distil if None.
    size: resize every image to size x size pixels; None keeps the source's own size.
    download: allow the network, for torchvision's datasets and hf: alone.
    seed: decides which images are held out where a source has no test split.
    memory: gigabytes that the decoded images of a folder or of hf: may take; those that would take more stay in their
        files and are decoded when they are needed (see `reading.read_images`).

    Raises: DistilError if nothing answers to the spec, or what does cannot be read or does not fit in memory.
    """
    size = _checked_size(size)
    if not is_finite(memory) or isinstance(memory, bool) or memory < 0:
        raise DistilError(f"{{memory}} is {memory!r}: give gigabytes, 0 or more.", field="memory")
    if not isinstance(spec, (str, os.PathLike)):
        raise DistilError(f"the source is {spec!r}: give its name or path as text or Path. {_accepted()}")
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise DistilError(
            f"{{root}} is {root!r}: give the folder of the named data sets as text or Path.", field="root"
        )
    try:
        return _open(spec, None if root is None else expanded(root), size, download, seed, memory)
    except MemoryError as error:
        raise DistilError(
            f"{shown(spec)} does not fit in memory. Use fewer images, or smaller ones: {{size=N}} resizes to N x N.",
            field="size",
        ) from error


def _open(
    spec: str | os.PathLike[str], root: Path | None, size: int | None, download: bool, seed: int, memory: float
) -> Source:
    word = spec if isinstance(spec, str) else ""
    if word in CATALOG:
        return _open_named(CATALOG[word], root, size, download)
    if word.startswith("hf:"):
        from distil.data.images.huggingface import huggingface_source

        return huggingface_source(word.removeprefix("hf:"), size=size, download=download, seed=seed, memory=memory)
    if spec == "":
        raise DistilError(f"unknown source {spec!r}. {_accepted()}")
    return _open_path(spec, expanded(spec), size, seed, memory)


def _open_named(named: NamedSet, root: Path | None, size: int | None, download: bool) -> Source:
    if named.origin == "torchvision":
        from distil.data.images.torchvision_sets import torchvision_source

        return torchvision_source(named.key, root=root, size=size, download=download)
    from distil.data.images.digits import digits_source

    return digits_source(size=size)


def _open_path(spec: str | os.PathLike[str], path: Path, size: int | None, seed: int, memory: float) -> Source:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # such as a name that is too long
        raise DistilError(f"cannot look at {shown(spec)}: {error.strerror or error}. {_accepted()}") from error
    if is_folder:
        from distil.data.images.folder import folder_source

        return folder_source(path, size=size, seed=seed, memory=memory)
    if path.suffix.lower() == ".npz":
        from distil.data.images.npz import npz_source

        return npz_source(path, size=size, seed=seed)
    if is_file:
        raise DistilError(f"{shown(spec)} is a file but not an .npz. {_accepted()}")
    if not isinstance(spec, str) or "/" in spec or spec.startswith((".", "~")):
        raise DistilError(f"there is nothing at {shown(spec)}. {_accepted()}")
    raise unknown("source", spec, NAMES, wanted=_accepted())


def _checked_size(size: int | None) -> int | None:
    if size is not None and (not isinstance(size, Integral) or isinstance(size, bool) or size < 1):
        raise DistilError(f"{{size}} is {size!r}: give the side of the images in pixels, 1 or more.", field="size")
    return None if size is None else int(size)


def _accepted() -> str:
    return (
        f"A source is one of {', '.join(NAMES)}, a folder with a folder of images for each class, "
        "a FILE.npz, or hf:NAME."
    )
