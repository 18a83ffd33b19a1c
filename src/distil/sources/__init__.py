"""Where real images come from."""

import difflib
from pathlib import Path

from distil.errors import DistilError
from distil.sources.images import ImageSet, Source

__all__ = ["ImageSet", "Source", "open_source"]

TORCHVISION_SETS = ("mnist", "fashionmnist", "svhn", "cifar10", "cifar100")
NAMED_SOURCES = ("digits", *TORCHVISION_SETS)


def open_source(
    spec: str, *, root: Path | None = None, size: int | None = None, download: bool = False, seed: int = 0
) -> Source:
    """The real images that a spec names.

    spec: digits | mnist | fashionmnist | svhn | cifar10 | cifar100 | a folder with a folder for each class | FILE.npz |
        hf:NAME or hf:NAME:CONFIG. A folder that has the name of a dataset is written ./NAME.
    root: where torchvision's datasets lie; $DISTIL_DATA or ~/.cache/distil if None.
    size: resize every image to size x size pixels; None keeps the source's own size.
    download: allow the network, for torchvision's datasets and hf: alone.
    seed: decides which images are held out where a source has no test split.

    Raises: DistilError if nothing answers to the spec, or what does cannot be read.
    """
    if size is not None and size < 1:
        raise DistilError(f"--size {size}: give the side of the images in pixels, 1 or more.")
    path = Path(spec).expanduser()
    if spec == "digits":
        from distil.sources.digits import digits_source

        return digits_source(size=size)
    if spec in TORCHVISION_SETS:
        from distil.sources.torchvision_sets import torchvision_source

        return torchvision_source(spec, root=root, size=size, download=download)
    if spec.startswith("hf:"):
        from distil.sources.huggingface import huggingface_source

        return huggingface_source(spec.removeprefix("hf:"), size=size, download=download, seed=seed)
    if spec and path.is_dir():
        from distil.sources.folder import folder_source

        return folder_source(path, size=size, seed=seed)
    if path.suffix.lower() == ".npz":
        from distil.sources.npz import npz_source

        return npz_source(path, size=size, seed=seed)
    if path.is_file():
        raise DistilError(f"{spec} is a file but not an .npz. {_accepted()}")
    if "/" in spec or spec.startswith((".", "~")):
        raise DistilError(f"there is nothing at {spec}. {_accepted()}")
    close = difflib.get_close_matches(spec.lower().replace("-", "").replace("_", ""), NAMED_SOURCES, n=1)
    suggestion = f" Did you mean {close[0]}?" if close else ""
    raise DistilError(f"unknown source {spec!r}.{suggestion} {_accepted()}")


def _accepted() -> str:
    return (
        f"A source is one of {', '.join(NAMED_SOURCES)}, a folder with a folder of images for each class, "
        "a FILE.npz, or hf:NAME."
    )
