"""The file of a distilled set: one safetensors file that explains itself. Its writer and its reader stand together.

Tensors: canvases (the stored parameters), labels, and those of the parameterization. The metadata has one entry,
"distil": the header as JSON. Written out in docs/file.md.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distil.checks import is_integer, shown
from distil.distilled_set.parts import from_header, to_header
from distil.errors import DistilError
from distil.files import UNREADABLE, checked_header, read_safetensors, save_tensors
from distil.parameterizations.base import Parameterization
from distil.parameterizations.crops import Crops
from distil.parameterizations.dct import Dct
from distil.parameterizations.dct_groups import DctGroups
from distil.parameterizations.fred import Fred
from distil.runs import sets_in

if TYPE_CHECKING:
    from distil.distilled_set.record import DistilledSet

FORMAT_VERSION = 4
"""Newest version of the file, of sets whose labels a teacher gave or are float16; a reader refuses a newer one."""
VERSIONS: dict[str, int] = {Crops.kind: 1, Dct.kind: 2, DctGroups.kind: 4}
OTHERS = 3
"""Versions of other sets by parameterization, and that of files of others, which a user's program knows."""

SUFFIX = ".safetensors"

PARAMS = ("uint8", "float32")
INDICES = ("uint8", "int16", "int32", "int64")
LABELS = (*INDICES, "float32", "float16")
"""Types of the tensors that every file has."""
LISTS = ("classes", "mean", "std", "view_size")
DESCRIBED = (*LISTS, "method", "settings", "seed", "source", "source_fingerprint")


def header_of(made: "DistilledSet") -> dict[str, Any]:
    """What the file of a set says of itself."""
    stored, kind = made.stored(), made.parameterization.kind
    kinds = {1: "class index of each canvas", 2: "class probabilities of each canvas"}
    return {
        "format_version": FORMAT_VERSION if _is_labelled(made) else VERSIONS.get(kind, OTHERS),
        "parameterization": kind,
        **made.parameterization.header(),
        "value_range": [0, 1],
        "stored_dtype": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in stored.items()},
        "label_kind": kinds.get(made.labels.ndim, "class probabilities of each view"),
        "classes": list(made.classes),
        "mean": list(made.mean),
        "std": list(made.std),
        "view_size": list(made.size),
        "method": made.method,
        "settings": made.settings,
        "seed": made.seed,
        "source": made.source,
        "source_fingerprint": made.source_fingerprint,
        "bytes": made.bytes,
        **({} if made.label_source is None else {"label_source": made.label_source}),
        **to_header(made.parts),
        **({} if made.student_lr is None else {"student_lr": made.student_lr}),
    }


def _is_labelled(made: "DistilledSet") -> bool:
    """Whether a set's labels need what version 4 has."""
    return made.labels.dtype == torch.float16 or made.item_classes is not None or made.label_source is not None


def save(made: "DistilledSet", path: Path | str) -> None:
    """Write a set; see `DistilledSet.save`."""
    save_tensors(path, made.stored(), header_of(made))


def read(
    path: Path, parameterizations: Iterable[type[Parameterization]]
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """(fields of a distilled set, the file's header, whether it has a checksum). Raises: see `DistilledSet.load`."""
    tensors, header, checked = _read(path)
    version = _version_of(header, path)
    try:
        kind = _parameterization(header, version, parameterizations)
        _check_parts(tensors, header, kind)
        params, labels = tensors["canvases"], tensors["labels"]
        if params.ndim != 4:
            raise DistilError(f"canvases have shape {list(params.shape)}: expected four axes.")
        described: dict[str, Any] = {name: header[name] for name in DESCRIBED if name != "view_size"}
        described |= {name: tuple(header[name]) for name in LISTS if name != "view_size"}
        described |= {"params": params, "labels": labels if labels.is_floating_point() else labels.long()}
        described |= {"item_classes": tensors.get("item_classes"), "label_source": header.get("label_source")}
        described["student_lr"] = header.get("student_lr")
        described["parameterization"] = kind.load(params, tensors, header)
        described["parts"] = from_header(header)
    except DistilError as error:
        raise damaged(path, error) from error
    return described, header, checked


def damaged(path: Path, error: DistilError) -> DistilError:
    """The error of a file whose contents cannot be used."""
    return DistilError(f"{path}: {error} Make or copy the file again.")


def check_agreement(made: "DistilledSet", header: dict[str, Any], checked: bool) -> None:
    """Refuse a set that its file describes otherwise. checked: whether the file has a checksum."""
    _check_derived(made, header)
    if not checked:
        _check_counts(made)


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


def _parameterization(
    header: dict[str, Any], version: int, more: Iterable[type[Parameterization]]
) -> type[Parameterization]:
    known: dict[str, Any] = {kind.kind: kind for kind in (Crops, Dct, DctGroups, Fred, *more)}
    by_version = {number: kind for kind, number in VERSIONS.items()}
    word = header.get("parameterization", by_version.get(version))
    if not isinstance(word, str) or word not in known:
        raise DistilError(
            f"its items are stored as {shown(word)}, and distil knows {', '.join(known)}: read it in the program that "
            "made it, with DistilledSet.load(path, parameterizations=[...]), and save .as_images() there for any other."
        )
    wanted = VERSIONS.get(word, OTHERS)
    if version not in (wanted, FORMAT_VERSION):
        raise DistilError(f"format_version is {version}, and items stored as {word} have {wanted}.")
    return known[word]


def _check_parts(tensors: dict[str, Tensor], header: dict[str, Any], kind: type[Parameterization]) -> None:
    """Refuse a file with other tensors than it should have, tensors of other types, and missing entries."""
    types = {"canvases": PARAMS, "labels": LABELS, "item_classes": INDICES, **kind.types}
    wanted = ("canvases", "labels", *kind.accounts)
    missing = [name for name in wanted if name not in tensors] + [name for name in DESCRIBED if name not in header]
    if missing:
        raise DistilError(f"it lacks {', '.join(missing)}.")
    for name, tensor in tensors.items():
        if name not in types:
            raise DistilError(f"it holds a tensor {shown(name)}, which items stored as {kind.kind} do not have.")
        if str(tensor.dtype).removeprefix("torch.") not in types[name]:
            raise DistilError(f"{name} are {tensor.dtype}: expected {' or '.join(types[name])}.")
    for name in LISTS:
        if not isinstance(header[name], list):
            raise DistilError(f"{name} is {shown(header[name])}, expected a list.")


def _check_derived(made: "DistilledSet", header: dict[str, Any]) -> None:
    """Refuse a header that describes other tensors than the file has."""
    expected = header_of(made)
    for name in ("format_version", "bytes", "stored_dtype", "label_kind", "value_range"):
        if name in header and header[name] != expected[name]:
            raise DistilError(f"{name} is {shown(header[name])}, and the file's tensors give {shown(expected[name])}.")


def _check_counts(made: "DistilledSet") -> None:
    """Refuse a file without a checksum whose labels are surely damaged: as many items as its settings tell, but not
    as many of each class."""
    each = made.settings.get("ipc")
    if made.labels.is_floating_point() or not is_integer(each) or len(made.labels) != each * len(made.classes):
        return
    counts = torch.bincount(made.labels, minlength=len(made.classes))
    if bool((counts == each).all()):
        return
    most = int(counts.argmax())
    raise DistilError(
        f"labels give class {shown(made.classes[most])} {int(counts[most])} items, and the settings say {each} for "
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
