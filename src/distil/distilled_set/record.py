"""The artifact: a distilled set in one safetensors file that explains itself."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from distil.checks import check_class_names, check_seed, check_statistics, check_text, is_integer, shown
from distil.errors import DistilError
from distil.files import UNREADABLE, checked_header, read_safetensors, save_tensors
from distil.functional.dct import from_kept_coefficients, shared_among_views
from distil.functional.regions import crop_resize
from distil.runs import sets_in
from distil.types import Batch

FORMAT_VERSION = 2
"""Newest version of the file; a reader refuses a newer one. Sets of pixels are version 1, those of cosines 2."""

SUFFIX = ".safetensors"

STORED = {
    "canvases": ("uint8", "float32"),
    "labels": ("uint8", "int16", "int32", "int64", "float32"),
    "regions": ("float32",),
    "kept": ("int16", "int32"),
    "spans": ("float32",),
    "utilisation": ("float32",),
}
"""Tensors of a file, and the types that each may have."""

LONGEST_SIDE = 2**14
"""Of a view, in pixels."""
DECODED_BYTES = 2**28
"""What all views of any set may take once decoded; larger sets are bounded by DECODED_SHARE instead."""
DECODED_SHARE = 2**13
"""Decoded bytes for each stored byte of the canvases: those of 2000 views of a uint8 canvas in its own size."""
LARGEST_SPAN = 1e9

DECODE_RULE = (
    "View j of canvas i: take canvases[i] as (c, h, w) values in [0, 1] (divide by 255 if stored as uint8) and "
    "its region (x1, y1, x2, y2) = regions[i][j] (regions[0][j] if there is one row), in canvas pixels, x2 and y2 "
    "exclusive; resize the region bilinearly to view_size = (height, width): output column v reads at "
    "x1 + (v + 1/2)(x2 - x1)/width - 1/2, held within x1 and max(x1, x2 - 1), between pixel indices, rows alike, "
    "and pixels beyond the canvas read 0.5; the view carries labels[i] (labels[i][j] if labels has three axes), "
    "an index into classes or probabilities over them; subtract mean and divide by std, per channel, before it "
    "enters a network."
)

COSINES_RULE = (
    "View j of canvas i: with k = the number of entries of kept, take canvases[i], row by row and channel by channel, "
    "as values in [0, 1] (divide by 255 if stored as uint8; with coefficient_bits 4 every byte is two values, its "
    "lower half first, each divided by 15) and of these those from j*k up to (j+1)*k, for j from 0 while so many are "
    "left; value q stands for the coefficient (value - 1/2) * spans[q] at position kept[q] = (a*height + b)*width + d "
    "of an image of channels x height x width, the canvas's own; all others are zero. The image is the sum over "
    "(a, b, d) of coefficient * R(a, channel) * R(b, row) * R(d, column), plus 1/2, with the orthonormal DCT-II of an "
    "axis, N its length: R(f, x) = sqrt(2/N) cos(pi f (x + 1/2) / N), for f = 0 divided by sqrt(2). It may leave "
    "[0, 1]. The view carries labels[i], an index into classes or probabilities over them; subtract mean and divide by "
    "std, per channel, before it enters a network."
)


@dataclass(frozen=True, eq=False)
class Cosines:
    """What the numbers of a spectral set's canvases multiply; see COSINES_RULE in the file's header."""

    kept: Int[Tensor, " k"]
    """Positions of the coefficients that views have, in channels x height x width."""
    spans: Float[Tensor, " k"]
    """Of each, the difference between the coefficients that 0 and 1 stand for."""
    bits: int = 8
    """Of a stored coefficient: 8 (or 32 where the canvases are float32), or 4, two in a byte."""


def packed(values: UInt8[Tensor, "n m"]) -> UInt8[Tensor, "n half"]:
    """Pairs of values below 16 as bytes, the first of each pair in the lower half; m is even."""
    return values[:, 0::2] + 16 * values[:, 1::2]


def unpacked(values: UInt8[Tensor, "n half"]) -> UInt8[Tensor, "n m"]:
    """What `packed` was given."""
    return torch.stack([values % 16, values // 16], 2).flatten(1)


class Views(Dataset[tuple[Tensor, int | Tensor]]):
    """Decoded views as a map-style torch dataset: (image [c, h, w], label: int, or probabilities [k])."""

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
    """A few canvases per class that stand for a whole training set, and all that is needed to use them.

    canvases: uint8, or float32 in [0, 1]; never normalised.
    labels: class indices [n]; probabilities of each canvas [n, k]; or probabilities of each view [n, r, k].
    regions: [n, r, 4], or [1, r, 4] when every canvas has the same; (x1, y1, x2, y2) in canvas pixels, x2 and y2
        exclusive. They start inside the canvas and may reach past its right and bottom edge, where views read mid grey.
        n equal rows are kept as one.
    classes: names, by class index. mean, std: per channel, to apply to a view before it enters a network.
    view_size: (height, width) of a decoded view.
    method, settings, seed: what made the set; settings must be what JSON can hold.
    source, source_fingerprint: name and content hash of the images it was made from.
    cosines: of a spectral set, what its canvases' numbers multiply; its regions are then [1, 0, 4], as no view is a
        region, its views all have the size of the canvas, and its labels are those of canvases.
    utilisation: how much a network uses each pixel of each canvas, in [0, 1]; a picture, not needed for training.

    Raises: DistilError where the fields contradict each other or are out of range.
    """

    canvases: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | Float[Tensor, "n k"] | Float[Tensor, "n r k"]
    regions: Float[Tensor, "m r 4"]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    view_size: tuple[int, int]
    method: str
    settings: dict[str, Any]
    seed: int
    source: str
    source_fingerprint: str
    utilisation: Float[Tensor, "n h w"] | None = None
    cosines: Cosines | None = None

    def __post_init__(self) -> None:
        self._check_description()
        self._check_canvases()
        if self.cosines is None:
            self._check_regions()
        else:
            self._check_cosines(self.cosines)
        self._check_decoded()
        self._check_labels()
        self._check_utilisation()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_description(self) -> None:
        for name in ("method", "source", "source_fingerprint"):
            check_text(getattr(self, name), name)
        self._set(seed=check_seed(self.seed), classes=check_class_names(self.classes))
        size = self.view_size
        sized = isinstance(size, Sequence) and len(size) == 2 and all(is_integer(side) for side in size)
        _require(
            sized and all(1 <= side <= LONGEST_SIDE for side in size),
            f"view_size is {shown(size)}: it must be (height, width), both at least 1 and at most {LONGEST_SIDE}.",
        )
        self._set(view_size=tuple(int(side) for side in size))
        _require(isinstance(self.settings, dict), f"settings are {shown(self.settings)}: they must be a dictionary.")
        try:
            self._set(settings=json.loads(json.dumps(self.settings, allow_nan=False, sort_keys=True)))
        except (TypeError, ValueError, RecursionError) as error:
            raise DistilError(f"settings cannot be written as JSON ({error}): use numbers, text and lists.") from error

    def _check_canvases(self) -> None:
        canvases = _plain(self.canvases, "canvases")
        _require(
            canvases.ndim == 4 and canvases.numel() > 0,
            f"canvases have shape {list(canvases.shape)}: expected [images, channels, height, width], none of them 0.",
        )
        if canvases.is_floating_point():
            canvases = canvases.float()
            _check_range(canvases, "canvases", "images are stored before normalisation")
        _require(
            canvases.dtype in (torch.uint8, torch.float32),
            f"canvases are {canvases.dtype}: expected uint8, or floating point in [0, 1].",
        )
        mean, std = check_statistics(self.mean, self.std, canvases.shape[1])
        self._set(canvases=canvases, mean=mean, std=std)

    def _check_regions(self) -> None:
        count, _, height, width = self.canvases.shape
        regions = _plain(self.regions, "regions").float()
        _require(
            regions.ndim == 3 and regions.shape[0] in (1, count) and regions.shape[1] >= 1 and regions.shape[2] == 4,
            f"regions have shape {list(regions.shape)}: expected [{count}, views, 4] for {count} canvases, "
            "or [1, views, 4].",
        )
        limits = torch.tensor([2 * width, 2 * height], device=regions.device)
        start, end = regions[..., :2], regions[..., 2:]
        proper = (start >= 0).all(-1) & (start < limits / 2).all(-1) & (end > start).all(-1) & (end <= limits).all(-1)
        if not bool(proper.all()):
            row, column = (~proper).nonzero()[0].tolist()
            found = [round(side, 3) for side in regions[row, column].tolist()]
            raise DistilError(
                f"region {column} of canvas {row} is {found}: expected (x1, y1, x2, y2) that starts"
                f" inside the {height} x {width} canvas, with x2 > x1 and y2 > y1, "
                "and reaches at most one canvas further."
            )
        if len(regions) > 1 and bool((regions == regions[:1]).all()):
            regions = regions[:1].clone()
        self._set(regions=regions)

    def _check_cosines(self, cosines: Cosines) -> None:
        positions, size = self.canvases[0].numel(), tuple(self.canvases.shape[2:])
        _require(
            is_integer(cosines.bits)
            and (cosines.bits == 8 or (cosines.bits == 4 and self.canvases.dtype == torch.uint8)),
            f"coefficients have {shown(cosines.bits)} bits: expected 8, or 4 in uint8 canvases.",
        )
        kept, spans = _plain(cosines.kept, "kept"), _plain(cosines.spans, "spans")
        _require(not kept.is_floating_point(), f"kept are {kept.dtype}: expected whole numbers.")
        kept, spans = kept.long().cpu(), spans.float().cpu()
        _require(
            self.view_size == size,
            f"view_size is {self.view_size!r}: views of cosines have the canvases' size, {size}.",
        )
        _require(
            kept.ndim == 1 and 1 <= len(kept) <= positions and spans.shape == kept.shape,
            f"kept has shape {list(kept.shape)} and spans {list(spans.shape)}: expected one entry of each for every "
            f"coefficient of a view, at least 1 and at most {positions}.",
        )
        _require(
            bool((kept >= 0).all()) and bool((kept < positions).all()) and len(kept.unique()) == len(kept),
            f"kept reaches from {int(kept.min())} to {int(kept.max())}: give different positions below {positions}.",
        )
        _require(
            bool(spans.isfinite().all()) and bool((spans > 0).all()) and bool((spans <= LARGEST_SPAN).all()),
            f"spans reach from {float(spans.min()):.4g} to {float(spans.max()):.4g}: expected finite numbers above 0, "
            f"at most {LARGEST_SPAN:g}.",
        )
        _require(
            _plain(self.regions, "regions").numel() == 0,
            f"regions have shape {list(self.regions.shape)}: a spectral set has no regions.",
        )
        _require(self.utilisation is None, "a spectral set has no utilisation map: its canvases are no pictures.")
        self._set(regions=torch.empty(1, 0, 4), cosines=Cosines(kept, spans, cosines.bits))

    def _check_decoded(self) -> None:
        """Refuse views that are out of all proportion to what is stored."""
        count, channels, height, width = self.canvases.shape
        rows, columns = self.view_size
        largest = max(channels * rows * max(columns, width), rows * height, columns * width)
        needed = 4 * count * self.views * largest
        stored = self.canvases.numel() * self.canvases.element_size()
        _require(
            needed <= max(DECODED_BYTES, DECODED_SHARE * stored),
            f"view_size is {self.view_size}: all {count * self.views} views would take {needed:,} bytes, and the "
            f"canvases have {stored:,}. Give a smaller view_size, or fewer views on each canvas.",
        )

    def _check_labels(self) -> None:
        count, views, classes = len(self.canvases), self.views, len(self.classes)
        labels = _plain(self.labels, "labels")
        if labels.is_floating_point():
            labels = labels.float()
            _require(
                tuple(labels.shape) in ((count, classes), (count, views, classes)),
                f"soft labels have shape {list(labels.shape)}: expected [{count}, {classes}] or "
                f"[{count}, {views}, {classes}] for {count} canvases, {views} views each, and {classes} classes.",
            )
            sums = labels.sum(-1)
            _require(
                bool((labels >= 0).all()) and bool(((sums - 1).abs() <= 1e-3).all()),
                f"soft labels reach from {float(labels.min()):.4g} to {float(labels.max()):.4g} and add up to "
                f"{float(sums.min()):.4g} to {float(sums.max()):.4g}: expected probabilities that add up to 1.",
            )
        else:
            labels = labels.long()
            _require(
                tuple(labels.shape) == (count,),
                f"labels have shape {list(labels.shape)}: expected [{count}], one class index for each canvas.",
            )
            _require(
                int(labels.min()) >= 0 and int(labels.max()) < classes,
                f"labels reach from {int(labels.min())} to {int(labels.max())}: expected 0 to {classes - 1}, "
                f"for {classes} classes.",
            )
        self._set(labels=labels)

    def _check_utilisation(self) -> None:
        if self.utilisation is None:
            return
        utilisation, (count, _, height, width) = _plain(self.utilisation, "utilisation").float(), self.canvases.shape
        _require(
            tuple(utilisation.shape) == (count, height, width),
            f"utilisation has shape {list(utilisation.shape)}: expected {[count, height, width]}, as the canvases.",
        )
        _check_range(utilisation, "utilisation", "it is a share")
        self._set(utilisation=utilisation)

    @property
    def class_of(self) -> Int[Tensor, " n"]:
        """The class of each canvas: its label, or the most probable class of its soft labels."""
        if not self.labels.is_floating_point():
            return self.labels
        return (self.labels.mean(1) if self.labels.ndim == 3 else self.labels).argmax(-1)

    @property
    def views(self) -> int:
        """Views of each canvas."""
        if self.cosines is None:
            return self.regions.shape[1]
        return self.canvases[0].numel() * 8 // self.cosines.bits // len(self.cosines.kept)

    @property
    def images_per_class(self) -> int:
        """Canvases of a class; of the largest class where they differ."""
        return int(torch.bincount(self.class_of).max())

    @property
    def bytes(self) -> dict[str, int]:
        """Stored bytes that training needs, before any compression: images, regions, labels and their total.

        Class indices count, and are stored, in the smallest integer type that holds them. `extra` is the utilisation
        map, stored as a picture and not part of the total.
        """
        stored = self._stored()
        sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in stored.items()}
        needed = {"images": sizes["canvases"], "regions": sizes["regions"], "labels": sizes["labels"]}
        if self.cosines is not None:
            needed["cosines"] = sizes["kept"] + sizes["spans"]
        return {**needed, "total": sum(needed.values()), "extra": sizes.get("utilisation", 0)}

    def canvases_float(self) -> Float[Tensor, "n c h w"]:
        """The canvases in [0, 1], float32."""
        return self.canvases.float() / 255 if self.canvases.dtype == torch.uint8 else self.canvases

    def decoded(self) -> Batch:
        """All n*r views at `view_size`, canvas by canvas, each canvas's in the order of its regions.

        In [0, 1]; those of a spectral set may leave it.
        """
        views = self.views
        images = self.decoded_of(range(len(self.canvases)))
        labels = self.labels.flatten(0, 1) if self.labels.ndim == 3 else self.labels.repeat_interleave(views, dim=0)
        return Batch(images, labels)

    def decoded_of(self, members: Sequence[int]) -> Float[Tensor, "views c h w"]:
        """The views of some canvases."""
        cosines, canvases = self.cosines, self.canvases_float()[list(members)]
        if cosines is None:
            return crop_resize(canvases, self.regions.expand(len(self.canvases), -1, -1)[list(members)], self.view_size)
        channels, height, width = canvases.shape[1:]
        values = canvases.flatten(1)
        if cosines.bits == 4:
            values = unpacked(self.canvases[list(members)].flatten(1)).float() / 15
        shares = shared_among_views(values, len(cosines.kept))
        values = (shares - 0.5) * cosines.spans.to(canvases.device)
        return from_kept_coefficients(values, cosines.kept, (channels, height, width))

    def dataset(self, transform: Callable[[Tensor], Tensor] | None = None, *, normalize: bool = True) -> Views:
        """The views, decoded once, as a torch dataset of (image, label); see `Views`.

        transform: called on each view in [0, 1], before normalisation, each time it is read.
        normalize: subtract `mean` and divide by `std`.
        """
        mean, std = (self.mean, self.std) if normalize else ((0.0,), (1.0,))
        return Views(self.decoded(), transform, mean, std)

    def header(self) -> dict[str, Any]:
        """What the file says of itself, as JSON can hold it."""
        stored = self._stored()
        kinds = {1: "class index of each canvas", 2: "class probabilities of each canvas"}
        return {
            "format_version": 1 if self.cosines is None else 2,
            "decode": DECODE_RULE if self.cosines is None else COSINES_RULE,
            **({} if self.cosines is None else {"coefficient_bits": self.cosines.bits}),
            "value_range": [0, 1],
            "stored_dtype": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in stored.items()},
            "label_kind": kinds.get(self.labels.ndim, "class probabilities of each view"),
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "view_size": list(self.view_size),
            "method": self.method,
            "settings": self.settings,
            "seed": self.seed,
            "source": self.source,
            "source_fingerprint": self.source_fingerprint,
            "bytes": self.bytes,
        }

    def _stored(self) -> dict[str, Tensor]:
        labels = self.labels
        if not labels.is_floating_point():
            highest = len(self.classes) - 1
            labels = labels.to(torch.uint8 if highest < 2**8 else torch.int16 if highest < 2**15 else torch.int32)
        stored = {"canvases": self.canvases, "labels": labels, "regions": self.regions}
        if self.cosines is not None:
            stored |= {
                "kept": self.cosines.kept.to(torch.int16 if self.canvases[0].numel() <= 2**15 else torch.int32),
                "spans": self.cosines.spans,
            }
        return stored if self.utilisation is None else {**stored, "utilisation": self.utilisation}

    def save(self, path: Path | str) -> None:
        """Write the set as one safetensors file; the same set always gives the same bytes.

        Tensors: canvases, labels, regions and, where there are such, utilisation, kept and spans (of cosines). The
        metadata has one entry, "distil": the `header` as JSON. Raises: DistilError that names the path when it cannot
        be written.
        """
        save_tensors(path, self._stored(), self.header())

    @classmethod
    def load(cls, path: Path | str) -> "DistilledSet":
        """Read what `save` wrote, onto the CPU.

        Raises: DistilError that names the file when it is missing, not a distilled set, damaged, from a newer
        distil, or when its contents contradict each other.
        """
        path = Path(path)
        tensors, header, checked = _read(path)
        version = _version_of(header, path)
        try:
            _check_parts(tensors, header, version)
            cosines = None
            if version > 1:
                cosines = Cosines(tensors["kept"], tensors["spans"], header.get("coefficient_bits", 8))
            labels = tensors["labels"]
            described: dict[str, Any] = {name: header[name] for name in DESCRIBED}
            described |= {name: tuple(header[name]) for name in LISTS}
            made = cls(
                canvases=tensors["canvases"],
                labels=labels if labels.is_floating_point() else labels.long(),
                regions=tensors["regions"],
                utilisation=tensors.get("utilisation"),
                cosines=cosines,
                **described,
            )
            _check_derived(made, header)
            if not checked:
                _check_counts(made)
        except DistilError as error:
            raise DistilError(f"{path}: {error} Make or copy the file again.") from error
        return made


LISTS = ("classes", "mean", "std", "view_size")
DESCRIBED = (*LISTS, "method", "settings", "seed", "source", "source_fingerprint")


def _version_of(header: dict[str, Any], path: Path) -> int:
    version = header.get("format_version")
    if not is_integer(version) or version < 1:
        raise DistilError(f"{path}: no distil writes format version {shown(version)}. Make the file again.")
    if version > FORMAT_VERSION:
        raise DistilError(
            f"{path}: made by a newer distil (format {shown(version)}, this one reads up to {FORMAT_VERSION}): "
            "upgrade with pip install -U distil"
        )
    return version


def _check_parts(tensors: dict[str, Tensor], header: dict[str, Any], version: int) -> None:
    """Refuse a file with other tensors than it should have, tensors of other types, and missing entries."""
    spectral = ("kept", "spans")
    wanted = ("canvases", "labels", "regions", *(spectral if version > 1 else ()))
    missing = [name for name in wanted if name not in tensors] + [name for name in DESCRIBED if name not in header]
    if missing:
        raise DistilError(f"it lacks {', '.join(missing)}.")
    for name, tensor in tensors.items():
        if name not in (*wanted, "utilisation"):
            reason = "which sets of pixels (format version 1) do not have" if name in spectral else "which is unknown"
            raise DistilError(f"it holds a tensor {shown(name)}, {reason}.")
        if str(tensor.dtype).removeprefix("torch.") not in STORED[name]:
            raise DistilError(f"{name} are {tensor.dtype}: expected {' or '.join(STORED[name])}.")
    for name in LISTS:
        if not isinstance(header[name], list):
            raise DistilError(f"{name} is {shown(header[name])}, expected a list.")


def _check_derived(made: DistilledSet, header: dict[str, Any]) -> None:
    """Refuse a header that describes other tensors than the file has."""
    expected = made.header()
    for name in ("bytes", "stored_dtype", "label_kind", "value_range"):
        if name in header and header[name] != expected[name]:
            raise DistilError(f"{name} is {shown(header[name])}, and the file's tensors give {shown(expected[name])}.")


def _check_counts(made: DistilledSet) -> None:
    """Refuse a file without a checksum whose labels are surely damaged: as many canvases as its settings tell, but not
    as many of each class."""
    each = made.settings.get("ipc")
    if made.labels.is_floating_point() or not is_integer(each) or len(made.labels) != each * len(made.classes):
        return
    counts = torch.bincount(made.labels, minlength=len(made.classes))
    if bool((counts == each).all()):
        return
    most = int(counts.argmax())
    raise DistilError(
        f"labels give class {shown(made.classes[most])} {int(counts[most])} canvases, and the settings say {each} for "
        "every class, so the file is damaged."
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
    """The tensors and the header of a safetensors file that distil wrote, and whether it had a checksum."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise DistilError(f"{path}: no such file. Check the path, or make it with `distil dataset`.") from error
    except IsADirectoryError as error:
        inside = sets_in(path)
        hint = f": give {inside[0]}" if inside else f", expected a distilled set ({SUFFIX})"
        raise DistilError(f"{path}: this is a folder{hint}.") from error
    except OSError as error:
        raise DistilError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(start) == 9 and start[8:] != b"{":
        raise DistilError(f"{path}: not a distilled set: it is not a safetensors file.")
    try:
        tensors, metadata = read_safetensors(path)
    except UNREADABLE as error:
        raise DistilError(
            f"{path}: truncated or damaged at {path.stat().st_size} bytes ({error}). Copy or make the file again."
        ) from error
    if "distil" not in metadata:
        raise DistilError(
            f"{path}: a safetensors file, but not a distilled set (no distil entry in its header; "
            f"it holds {', '.join(shown(name)[1:-1] for name in sorted(tensors)[:4]) or 'nothing'})."
        )
    header, checked = checked_header(tensors, metadata["distil"], path)
    if "kind" in header and "format_version" not in header:
        raise DistilError(f"{path} holds {shown(header['kind'])}, not a distilled set: give another file.")
    return tensors, header, checked


def _plain(tensor: object, name: str) -> Tensor:
    """The tensor without its history. Raises: DistilError if it is none of real numbers in plain memory."""
    if not isinstance(tensor, Tensor):
        raise DistilError(f"{name} are {shown(type(tensor).__name__)}: give a torch tensor.")
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.dtype == torch.bool or tensor.is_quantized:
        raise DistilError(f"{name} are {tensor.dtype} ({tensor.layout}): give a dense tensor of real numbers.")
    return tensor.detach()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DistilError(message)


def _check_range(values: Tensor, name: str, reason: str) -> None:
    if not bool(values.isfinite().all()):
        raise DistilError(f"{name} hold {int((~values.isfinite()).sum())} values that are NaN or infinite.")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise DistilError(f"{name} reach from {low:.4g} to {high:.4g}: expected [0, 1], {reason}.")
