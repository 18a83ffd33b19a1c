"""The distilled set: a few stored items per class, and all that is needed to use them."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from distil.checks import check_class_names, check_seed, check_statistics, check_text, is_finite, is_integer, shown
from distil.distilled_set import concat, file_format
from distil.distilled_set.parts import Part, check_parts
from distil.errors import DistilError
from distil.parameterizations.base import Items, Parameterization, check_range, plain, require
from distil.parameterizations.crops import Crops
from distil.types import Batch

LONGEST_SIDE = 2**14
"""The longest side of a decoded image, in pixels."""
DECODED_BYTES = 2**28
"""What all images of any set may take once decoded; larger sets are bounded by DECODED_SHARE instead."""
DECODED_SHARE = 2**13
"""Decoded bytes for each stored byte of the items: those of 2000 images of an item in its own size."""


def checked_params(params: object) -> Tensor:
    """Stored parameters as a distilled set keeps them: without history, floating point as float32.

    Raises: DistilError unless they are a dense tensor of four axes, of uint8 or of floating point in [0, 1].
    """
    params = plain(params, "params")
    require(
        params.ndim == 4 and params.numel() > 0,
        f"params have shape {list(params.shape)}: expected [items, channels, height, width], none of them 0.",
    )
    if params.is_floating_point():
        params = params.float()
        check_range(params, "params", "they are stored before normalization")
    require(
        params.dtype in (torch.uint8, torch.float32),
        f"params are {params.dtype}: expected uint8, or floating point in [0, 1].",
    )
    return params


class DecodedImages(Dataset[tuple[Tensor, int | Tensor]]):
    """Decoded images as a map-style torch dataset: (image [c, h, w], label: int, or probabilities [k])."""

    def __init__(
        self,
        batch: Batch,
        transform: Callable[[Tensor], Tensor] | None,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        self.images, self.labels, self.transform = batch.images, batch.labels, transform
        self.mean, self.std = (batch.images.new_tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        image, label = self.images[index], self.labels[index]
        if self.transform is not None:
            image = self.transform(image)
        return (image - self.mean) / self.std, label if label.ndim else int(label)


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """A few items per class that stand for a whole training set, and all that is needed to use them.

    params: the stored parameters of every item [n, ...]: uint8, or float32 in [0, 1]; never normalized.
    labels: class indices [n]; probabilities of each item [n, k]; or of each decoded image [n, r, k], as float32 or
        float16.
    parameterization: what the parameters mean: `Crops` (images and their regions), `Dct` (DCT coefficients), or one of
        the user's making.
    classes: names, by class index. mean, std: per channel, to apply to an image before it enters a network.
    method, settings, seed: what made the set; settings must be what JSON can hold.
    source, source_fingerprint: name and content hash of the images it was made from.
    item_classes: where labels are probabilities, the class of each item [n], if it is known: a teacher may think
        otherwise.
    label_source: where a teacher gave the labels, what is known of it: its "words" (several of an ensemble), "sha256"
        of its weights, "bytes", and "temperature". Where labels are class indices this and item_classes become None.
    student_lr: learning rate of gradient descent on the images that was learned with them; None if none was.
    parts: the runs it was put together from, where that is not one run and all of its classes (`concat`, `only`).

    Raises: DistilError where the fields contradict each other or are out of range.
    """

    params: UInt8[Tensor, "n ..."] | Float[Tensor, "n ..."]
    labels: Int[Tensor, " n"] | Float[Tensor, "n k"] | Float[Tensor, "n r k"]
    parameterization: Parameterization
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str
    settings: dict[str, Any]
    seed: int
    source: str
    source_fingerprint: str
    item_classes: Int[Tensor, " n"] | None = None
    label_source: dict[str, Any] | None = None
    student_lr: float | None = None
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        self._check_description()
        self._check_params()
        self._set(parameterization=self.parameterization.checked(self.params))
        self._check_decoded()
        self._check_labels()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_description(self) -> None:
        for name in ("method", "source", "source_fingerprint"):
            check_text(getattr(self, name), name)
        require(
            self.student_lr is None or (is_finite(self.student_lr) and self.student_lr > 0),
            f"student_lr is {shown(self.student_lr)}: expected a finite number above 0, or None.",
        )
        self._set(seed=check_seed(self.seed), classes=check_class_names(self.classes))
        for name in ("settings", "label_source"):
            value = getattr(self, name)
            if value is None and name == "label_source":
                continue
            require(isinstance(value, dict), f"{name.replace('_', ' ')} are {shown(value)}: they must be a dictionary.")
            try:
                self._set(**{name: json.loads(json.dumps(value, allow_nan=False, sort_keys=True))})
            except (TypeError, ValueError, RecursionError) as error:
                raise DistilError(
                    f"{name} cannot be written as JSON ({error}): use numbers, text and lists."
                ) from error

    def _check_params(self) -> None:
        params = checked_params(self.params)
        mean, std = check_statistics(self.mean, self.std, self.parameterization.channels(params))
        self._set(params=params, mean=mean, std=std, parts=check_parts(self.parts, self.classes, len(mean)))

    def _check_decoded(self) -> None:
        """Refuse images that are out of all proportion to what is stored."""
        size = self.size
        sized = isinstance(size, tuple) and len(size) == 2 and all(is_integer(side) for side in size)
        require(
            sized and all(1 <= side <= LONGEST_SIDE for side in size),
            f"the size of a decoded image is {shown(size)}: it must be (height, width), both at least 1 and at most "
            f"{LONGEST_SIDE}.",
        )
        count, _, height, width = self.params.shape
        images, (rows, columns) = count * self.images_per_item, size
        channels = self.parameterization.channels(self.params)
        largest = max(channels * rows * max(columns, width), rows * height, columns * width)
        needed, stored = 4 * images * largest, self.params.numel() * self.params.element_size()
        require(
            needed <= max(DECODED_BYTES, DECODED_SHARE * stored),
            f"the size of a decoded image is {size}: all {images} images would take {needed:,} bytes, and the stored "
            f"parameters have {stored:,}. Give a smaller size, or fewer images in each item.",
        )

    def _check_labels(self) -> None:
        count, images, classes = len(self.params), self.images_per_item, len(self.classes)
        labels = plain(self.labels, "labels")
        if labels.is_floating_point():
            labels = labels if labels.dtype == torch.float16 else labels.float()
            require(
                tuple(labels.shape) in ((count, classes), (count, images, classes)),
                f"soft labels have shape {list(labels.shape)}: expected [{count}, {classes}] or "
                f"[{count}, {images}, {classes}] for {count} items, {images} images each, and {classes} classes.",
            )
            sums = labels.float().sum(-1)
            require(
                bool((labels >= 0).all()) and bool(((sums - 1).abs() <= 1e-3).all()),
                f"soft labels reach from {float(labels.min()):.4g} to {float(labels.max()):.4g} and add up to "
                f"{float(sums.min()):.4g} to {float(sums.max()):.4g}: expected probabilities that add up to 1.",
            )
            if self.item_classes is not None:
                self._set(item_classes=self._checked_classes(self.item_classes, "item classes"))
        else:
            labels = self._checked_classes(labels, "labels")
            self._set(item_classes=None, label_source=None)
        self._set(labels=labels)

    def _checked_classes(self, labels: Tensor, what: str) -> Int[Tensor, " n"]:
        """The class index of each item."""
        labels, count, classes = plain(labels, what), len(self.params), len(self.classes)
        require(
            tuple(labels.shape) == (count,) and not labels.is_floating_point(),
            f"{what} have shape {list(labels.shape)}: expected [{count}], one class index for each item.",
        )
        require(
            int(labels.min()) >= 0 and int(labels.max()) < classes,
            f"{what} reach from {int(labels.min())} to {int(labels.max())}: expected 0 to {classes - 1}, "
            f"for {classes} classes.",
        )
        return labels.long()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a decoded image."""
        return self.parameterization.size

    @property
    def class_of(self) -> Int[Tensor, " n"]:
        """The class of each item: its label, or the class that is stored beside its soft labels, or else the most
        probable one of these."""
        if not self.labels.is_floating_point():
            return self.labels
        if self.item_classes is not None:
            return self.item_classes
        labels = self.labels.float()
        return (labels.mean(1) if labels.ndim == 3 else labels).argmax(-1)

    @property
    def images_per_item(self) -> int:
        """Decoded images of each item."""
        return self.parameterization.images_per_item

    @property
    def images_per_class(self) -> int:
        """Items of a class, each counted as one image; of the largest class where they differ."""
        return int(torch.bincount(self.class_of).max())

    @property
    def bytes(self) -> dict[str, int]:
        """Stored bytes that training needs, before any compression: images, labels, what the parameterization needs
        beside them, and their total.

        Class indices count, and are stored, in the smallest integer type that holds them. `extra` is what is stored
        for people, such as utilization maps, and no part of the total.
        """
        stored, accounts = self.stored(), self.parameterization.accounts
        sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in stored.items()}
        needed = {"images": sizes.pop("canvases"), "labels": sizes.pop("labels"), "regions": 0}
        needed["labels"] += sizes.pop("item_classes", 0)
        for name, account in accounts.items():
            needed[account] = needed.get(account, 0) + sizes.pop(name, 0)
        return {**needed, "total": sum(needed.values()), "extra": sum(sizes.values())}

    def decoded(self) -> Batch:
        """All n*r images, item by item, in [0, 1]; those of DCT coefficients may leave it."""
        each = self.images_per_item
        images = self.decoded_of(range(len(self.params)))
        labels = self.labels.flatten(0, 1) if self.labels.ndim == 3 else self.labels.repeat_interleave(each, dim=0)
        return Batch(images, labels.float() if labels.is_floating_point() else labels)

    def decoded_of(self, items: Items) -> Float[Tensor, "images c h w"]:
        """The images of some items."""
        picked = items if isinstance(items, slice) else list(items)
        return self.parameterization.select(items).decode(self.params[picked])

    def dataset(self, transform: Callable[[Tensor], Tensor] | None = None, *, normalize: bool = True) -> DecodedImages:
        """The images, decoded once, as a torch dataset of (image, label); see `DecodedImages`.

        transform: called on each image in [0, 1], before normalization, each time it is read.
        normalize: subtract `mean` and divide by `std`.
        """
        mean, std = (self.mean, self.std) if normalize else ((0.0,), (1.0,))
        return DecodedImages(self.decoded(), transform, mean, std)

    def as_images(self, storage: Literal["uint8", "float32"] = "uint8") -> "DistilledSet":
        """The decoded images as a set of pixels, each an item by itself, held within [0, 1]. Its file is read
        everywhere, also where the parameterization is not known.

        storage: a byte for each value, to which it is rounded, or four.
        """
        batch = self.decoded()
        whole = Crops.grid(1, self.size, 8 if storage == "uint8" else 32, batch.images.device)
        params, placed = whole.quantize(batch.images)
        classes = self.item_classes
        classes = None if classes is None else classes.repeat_interleave(self.images_per_item)
        labels = batch.labels.to(self.labels.dtype)
        return replace(self, params=params, labels=labels, parameterization=placed, item_classes=classes)

    def only(self, classes: Sequence[str]) -> "DistilledSet":
        """The items of some classes, class by class in the order given, with their stored numbers.

        Soft labels become probabilities given that the class is one of these.

        Raises: DistilError on a class that the set lacks, one named twice, none, classes without an item, and soft
        labels that give these classes next to no probability.
        """
        return concat.only(self, classes)

    @staticmethod
    def concat(sets: Sequence["DistilledSet"], *, as_images: bool = False) -> "DistilledSet":
        """One set of the items of several, which have different classes; both in the order of the sets.

        Its decoded images are those of the sets, one after another. Images per class may differ. Where mean and std
        differ, they become those of all images together, `concat.statistics`. Soft labels give the classes of other
        sets probability 0. What made each set stays in `parts`.
        as_images: join the decoded images, each as an item by itself in bytes, whatever their parameterizations.

        Raises: DistilError if a class is in two sets; if image sizes, channels, parameterizations, images in an item or
        the bits of stored numbers differ; if some labels are hard and some soft; for no set.
        """
        return concat.concat(sets, as_images=as_images)

    def stored(self) -> dict[str, Tensor]:
        """The tensors of the set's file, by name."""
        highest = len(self.classes) - 1
        smallest = torch.uint8 if highest < 2**8 else torch.int16 if highest < 2**15 else torch.int32
        labels = self.labels if self.labels.is_floating_point() else self.labels.to(smallest)
        classes = {} if self.item_classes is None else {"item_classes": self.item_classes.to(smallest)}
        return {"canvases": self.params, "labels": labels, **classes, **self.parameterization.tensors()}

    def header(self) -> dict[str, Any]:
        """What the file says of itself, as JSON can hold it."""
        return file_format.header_of(self)

    def save(self, path: Path | str) -> None:
        """Write the set as one safetensors file (docs/file.md); the same set always gives the same bytes.

        Raises: DistilError that names the path when it cannot be written.
        """
        file_format.save(self, path)

    @classmethod
    def load(cls, path: Path | str, parameterizations: Iterable[type[Parameterization]] = ()) -> "DistilledSet":
        """Read what `save` wrote, onto the CPU.

        parameterizations: classes of the user's making that the file may need beside those of distil.

        Raises: DistilError that names the file when it is missing, not a distilled set, damaged, from a newer
        distil, or when its contents contradict each other.
        """
        path = Path(path)
        fields, header, checked = file_format.read(path, parameterizations)
        try:
            made = cls(**fields)
            file_format.check_agreement(made, header, checked)
        except DistilError as error:
            raise file_format.damaged(path, error) from error
        return made
