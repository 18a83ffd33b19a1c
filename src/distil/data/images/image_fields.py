"""What a user may give for the fields of a set of images, turned into what the library works with."""

import unicodedata
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from distil.data.images.lazy_images import LazyImages
from distil.errors import DistilError

LEAST_STD = 1e-3


def composed(name: str) -> str:
    """A name in the composed Unicode form (NFC), so that one text is one name on every system."""
    return unicodedata.normalize("NFC", name)


def as_images(images: Any, name: str) -> UInt8[Tensor, "n c h w"] | LazyImages:
    """Raises: DistilError unless these are uint8 of shape (n, c, h, w) as tensor or NumPy array, or in their files."""
    if isinstance(images, LazyImages):
        return images
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        images = torch.from_numpy(np.ascontiguousarray(images))
    if not isinstance(images, (Tensor, np.ndarray)):
        raise DistilError(f"{name}: images must be a uint8 tensor or NumPy array, not {type(images).__name__}.")
    if not isinstance(images, Tensor) or images.ndim != 4 or images.dtype != torch.uint8:
        raise DistilError(
            f"{name}: images must be uint8 of shape (n, channels, height, width), "
            f"not {images.dtype} of shape {tuple(images.shape)}."
        )
    if 0 in images.shape[1:]:
        raise DistilError(f"{name}: images have shape {tuple(images.shape)}: they need at least one pixel.")
    return images


def as_labels(labels: Any, count: int, name: str) -> Int[Tensor, " n"]:
    """Labels of any integer type as int64. Raises: DistilError unless there is one integer an image."""
    try:
        tensor = labels if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DistilError(
            f"{name}: labels must be integers, the indices of the class names: give a tensor, an array or a list."
        ) from error
    if tensor.is_floating_point() or tensor.is_complex() or tensor.shape != (count,):
        raise DistilError(
            f"{name}: expected one int64 label an image, {count} in all, "
            f"not {tensor.dtype} of shape {tuple(tensor.shape)}."
        )
    return tensor.to(torch.int64)


def as_classes(classes: Any, name: str) -> tuple[str, ...]:
    """Names as text, composed; integers become text. Raises: DistilError if another type is among them, or they have
    no order."""
    if isinstance(classes, (np.ndarray, Tensor)):
        classes = classes.tolist()
    if not isinstance(classes, (list, tuple, range)):
        raise DistilError(
            f"{name}: classes must be the names in the order of the labels, as a list or tuple, "
            f"not {type(classes).__name__}."
        )
    for each in classes:
        if not isinstance(each, (str, int, np.integer)) or isinstance(each, bool):
            raise DistilError(f"{name}: the class name {each!r} is neither text nor an integer.")
        if not str(each).strip():
            raise DistilError(f"{name}: class name {each!r} is empty: give every class a name.")
        if not _is_utf8(str(each)):
            raise DistilError(f"{name}: class name {each!r} cannot be written as UTF-8: give it another name.")
    return tuple(composed(str(each)) for each in classes)


def as_statistics(mean: Any, std: Any, channels: int, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel as floats, from sequences, arrays or tensors.

    Raises: DistilError unless each is one number a channel that images in [0, 1] can have.
    """
    means, deviations = _numbers(mean, "mean", name), _numbers(std, "std", name)
    if len(means) != channels or len(deviations) != channels:
        raise DistilError(
            f"{name}: {channels} channels need as many means and standard deviations, "
            f"not {len(means)} and {len(deviations)}."
        )
    for which, values, least in (("mean", means, 0.0), ("std", deviations, LEAST_STD)):
        if not all(least <= value <= 1 for value in values):  # False for NaN too
            raise DistilError(
                f"{name}: {which} is {values}: each number must lie in [{least:g}, 1], for it is of images in [0, 1]. "
                "Divide by 255 what was taken of pixels from 0 to 255."
            )
    return means, deviations


def _numbers(values: Any, which: str, name: str) -> tuple[float, ...]:
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DistilError(f"{name}: {which} must be one number a channel, not {values!r}.") from error
    return tuple(array.reshape(-1).tolist())


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
