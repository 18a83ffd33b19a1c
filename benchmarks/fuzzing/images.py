"""Labeled images: npz files and folders of pictures."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distil.data.images.opener import Source, open_source

from .target import Case, Target, bad_names, files_of, first_of


def _npz(folder: Path) -> None:
    draws = np.random.default_rng(5)
    arrays = {
        "x_train": draws.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8),
        "y_train": np.array([3, 7, 9] * 3),
        "x_test": draws.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8),
        "y_test": np.array([9, 3, 7]),
    }
    np.savez_compressed(folder / "whole.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (folder / "whole.classes.txt").write_text("cat\ndog\nbird\n")
    small = {"train_images": draws.random((10, 4, 4)).astype(np.float32), "train_labels": np.arange(10) % 2}
    np.savez(folder / "shares.npz", **small, classes=np.array(["no", "yes"]))  # pyright: ignore[reportArgumentType]


def _read_npz(folder: Path, name: str) -> Source:
    return open_source(str(folder / name.replace(".classes.txt", ".npz")))


def _source_nonsense(found: Source, case: Case) -> str:
    for images in (found.train, found.test):
        if images is None:
            continue
        height, width = images.size
        labels = images.labels
        reason = first_of(
            bad_names(images.classes),
            "no images" if not len(images) else "",
            "one class" if len(images.classes) < 2 else "",
            f"images of {height} x {width} pixels" if not (1 <= height <= 20_000 and 1 <= width <= 20_000) else "",
            "channels other than 1 or 3" if images.channels not in (1, 3) else "",
            "labels out of range" if not 0 <= int(labels.min()) <= int(labels.max()) < len(images.classes) else "",
            "mean or std outside sense" if not all(0 <= m <= 1 for m in images.mean) or min(images.std) <= 0 else "",
            "a mean or std that is not finite" if not all(map(math.isfinite, (*images.mean, *images.std))) else "",
        )
        if reason:
            return reason
    return ""


def _npz_nonsense(found: Source, case: Case) -> str:
    return _source_nonsense(found, case) or (_npz_differs(found, case) if case.name == "whole.npz" else "")


def _npz_differs(found: Source, case: Case) -> str:
    """Where the arrays are plain, what was read must be what they hold."""
    with np.load(io.BytesIO(case.content or b"")) as archive:
        arrays = {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test") if name in archive.files}
    if len(arrays) < 4 or any(x.dtype.kind not in "iu" for x in arrays.values()):
        return ""
    images, labels = arrays["x_train"], arrays["y_train"].reshape(-1)
    several = max(arrays["x_train"].max(initial=0), arrays["x_test"].max(initial=0)) > 1  # up to 1: black and white
    plain = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3 and several
    if plain and not np.array_equal(found.train.images.numpy(), images.transpose(0, 3, 1, 2)):
        return "pixels differ from those of the array"
    if labels.shape == (len(images),) and not np.array_equal(
        found.train.labels.numpy(), np.unique(labels, return_inverse=True)[1]
    ):
        return "labels differ from those of the array"
    return ""


def _source_content(found: Source) -> Any:
    parts = [images for images in (found.train, found.test) if images is not None]
    return [(images.fingerprint(), images.mean, images.std) for images in parts]


def _pictures(folder: Path) -> None:
    draws = np.random.default_rng(6)
    kinds = (("a.png", "PNG", "RGB"), ("b.jpg", "JPEG", "RGB"), ("c.tif", "TIFF", "L"), ("d.gif", "GIF", "P"))
    for label in ("cat", "dog"):
        (folder / "train" / label).mkdir(parents=True)
        (folder / "test" / label).mkdir(parents=True)
        for name, kind, mode in kinds:
            image = Image.fromarray(draws.integers(0, 256, (10, 12, 3), dtype=np.uint8)).convert(mode)
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(folder / "train" / label / name, kind, **({"exif": exif} if kind == "JPEG" else {}))
        Image.fromarray(draws.integers(0, 256, (10, 12), dtype=np.uint8)).save(folder / "test" / label / "a.png")


def _read_folder(folder: Path, name: str) -> Source:
    return open_source(str(folder), size=8)


def _folder_nonsense(found: Source, case: Case) -> str:
    there = sum(path.stat().st_size > 0 for path in (case.folder / "train").rglob("*.*"))
    if len(found.train) != there and case.content != b"":
        return f"{len(found.train)} images were read, and {there} lie there"
    return _source_nonsense(found, case)


IMAGES: dict[str, Target] = {
    "npz": Target(
        lambda: files_of(_npz), (".npz", ".classes.txt"), _read_npz, _source_content, _npz_nonsense, share=1.5
    ),
    "image folder": Target(
        lambda: files_of(_pictures), (".png", ".jpg", ".tif", ".gif"), _read_folder, _source_content, _folder_nonsense
    ),
}
