"""A distilled set in the layouts that other programs read: image folder, npz, parquet."""

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import unicodedata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from distil.checks import shown
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.files import read_json, sync_folder, unfinished_folder, write_atomic
from distil.types import Batch

Layout = Literal["folder", "npz", "parquet"]
MANIFEST = "distil.json"
"""The file that describes an exported folder and lists what the export wrote."""


def export(distilled: DistilledSet, to: Layout, out: Path | str, *, overwrite: bool = False) -> list[str]:
    """Write the decoded views of a set, as uint8 images that are not normalized, in one piece or not at all.

    folder: PNG files out/train/CLASS/NNN.png, to which torchvision's ImageFolder gives the set's own class indices:
        where class names in alphabetical order would give others, folders begin with the index. out/distil.json holds
        the header, the class of each folder, the files written and, for soft labels, the probabilities of each file,
        which then lies under its likeliest class.
    npz: x_train [n, h, w, c] (no last axis for one channel), y_train int64 [n] or float32 [n, k], classes, mean, std.
    parquet: columns image and label as Hugging Face datasets reads them (Image; ClassLabel or probabilities).
    overwrite: replace `out` if it is a file, or a folder that holds what an earlier export wrote there and no more.

    Returns: notes for people, most often none.
    Raises: DistilError if `out` is there already, is a link, holds a file that no export wrote, or cannot be written;
        if the images have channels that PNG lacks; and when parquet is asked for without pyarrow.
    """
    writers = {"folder": _folder, "npz": _npz, "parquet": _parquet}
    if to not in writers:
        raise DistilError(f"cannot export to {to!r}: choose one of {', '.join(writers)}.")
    out = Path(os.path.abspath(out))
    if out == Path.cwd() or out in Path.cwd().parents:
        raise DistilError(f"{out} is the working folder or holds it: give a new folder.")
    _refuse_existing(out, to, overwrite)
    writers[to](distilled, out)
    return _notes(distilled) if to == "folder" else []


def _notes(distilled: DistilledSet) -> list[str]:
    labels = distilled.labels
    present = set((labels.argmax(-1) if labels.is_floating_point() else labels).flatten().tolist())
    empty = [name for label, name in enumerate(distilled.classes) if label not in present]
    if not empty:
        return []
    names = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
    return [
        f"no image is of {names}: their folders are empty and keep the indices of the others, so read them with "
        "ImageFolder(..., allow_empty=True)."
    ]


def _refuse_existing(out: Path, to: Layout, overwrite: bool) -> None:
    if out.is_symlink() and to == "folder":
        raise DistilError(f"{out} is a link: give a folder that is none.")
    if out.is_dir():
        if to != "folder":
            raise DistilError(f"{out} is a folder: give the name of a file, such as {out / f'distilled.{to}'}.")
        if any(out.iterdir()):
            if not (out / MANIFEST).is_file():
                raise DistilError(f"{out} holds files that distil did not write there: give a new or an empty folder.")
            if not overwrite:
                raise DistilError(
                    f"{out} holds an earlier export: give another folder, or {{overwrite=True}} to replace it.",
                    field="overwrite",
                )
            _refuse_added(out, _written(out))
    elif out.exists() and (to == "folder" or not overwrite):
        remedy = "give a folder." if to == "folder" else "give another name, or {overwrite=True} to replace it."
        raise DistilError(f"{out} is a file that exists already: {remedy}", field="overwrite")


def _written(out: Path) -> tuple[dict[str, str], list[str]]:
    """What the manifest of an earlier export lists: the SHA-256 of each file by its name, and the folders."""
    manifest = read_json(out / MANIFEST)
    manifest = manifest if isinstance(manifest, dict) else {}
    files, folders = manifest.get("files"), manifest.get("folders")
    if isinstance(files, dict) and isinstance(folders, dict):
        names = [f"train/{name}" for name in folders]
        if all(_inside(name) for name in (*files, *(f"{name}/x" for name in names))):
            return files, ["train", *names]
    raise DistilError(
        f"{out / MANIFEST} does not list the files of an export, so nothing is replaced: give another folder, or "
        "remove this one yourself."
    )


def _inside(name: str) -> bool:
    """Whether a name is of the form train/FOLDER/FILE."""
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == "train" and not {"", ".", ".."} & set(parts)


def _refuse_added(out: Path, written: tuple[dict[str, str], list[str]]) -> None:
    """Refuse a folder that holds what an export did not write: files and folders of other names, links, changes."""
    files, folders = written
    added = []
    for parent, inside, names in os.walk(out):
        for path in (Path(parent, name) for name in (*inside, *names)):
            name = path.relative_to(out).as_posix()
            if path.is_dir() and not path.is_symlink():
                known = name in folders
            else:
                plain = path.is_file() and not path.is_symlink()
                known = plain and (name == MANIFEST or files.get(name) == _hash(path.read_bytes()))
            if not known:
                added.append(name)
    if added:
        more = f" and {len(added) - 3} more" if len(added) > 3 else ""
        raise DistilError(
            f"{out} holds what no export wrote, or what was changed since: {', '.join(map(shown, sorted(added)[:3]))}"
            f"{more}. Move that away, or give another folder."
        )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _folder(distilled: DistilledSet, out: Path) -> None:
    batch = distilled.decoded()
    pictures = _png(_pixels(batch))
    classes = (batch.labels.argmax(-1) if batch.labels.is_floating_point() else batch.labels).tolist()
    folders = ordered_folder_names(distilled.classes)
    digits = max(3, len(str(max(classes.count(label) for label in set(classes)) - 1)))
    names, counts = [], dict.fromkeys(classes, 0)
    for label in classes:
        names.append(f"train/{folders[label]}/{counts[label]:0{digits}d}.png")
        counts[label] += 1
    manifest: dict[str, Any] = {**distilled.header(), "folders": dict(zip(folders, distilled.classes, strict=True))}
    manifest["files"] = {name: _hash(picture) for name, picture in zip(names, pictures, strict=True)}
    if batch.labels.is_floating_point():
        manifest["probabilities"] = dict(zip(names, batch.labels.tolist(), strict=True))
    try:
        with unfinished_folder(out) as partial:
            for name in folders:
                (partial / "train" / name).mkdir(parents=True)
            for name, picture in zip(names, pictures, strict=True):
                (partial / name).write_bytes(picture)
            text = json.dumps(manifest, indent=1, sort_keys=True)
            (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
            left = _replace(partial, out)
        sync_folder(out.parent)
    except OSError as error:
        raise DistilError(
            f"cannot write {out}: {error.strerror or error}. Free space there or choose another folder; "
            "what was there before is untouched."
        ) from error
    if left is not None:
        raise DistilError(f"{out} is written, but files came into the folder of before meanwhile: they are in {left}.")


def _replace(partial: Path, out: Path) -> Path | None:
    """Move a finished folder into place and remove what an earlier export wrote there.

    Returns: where the earlier folder is now if it holds anything else.
    """
    if not out.exists():
        partial.replace(out)
        return None
    files, folders = _written(out) if (out / MANIFEST).is_file() else ({}, [])
    partial.chmod(out.stat().st_mode & 0o7777)
    old = out.with_name(f".{out.name}.{secrets.token_hex(8)}.old")
    out.replace(old)
    try:
        partial.replace(out)
    except OSError:
        old.replace(out)
        raise
    for name in [*files, *([MANIFEST] if files else [])]:
        with contextlib.suppress(OSError):
            (old / name).unlink()
    for folder in [*(old / name for name in reversed(folders)), old]:
        with contextlib.suppress(OSError):
            folder.rmdir()
    return old if old.exists() else None


def _npz(distilled: DistilledSet, out: Path) -> None:
    batch = distilled.decoded()
    pixels = _pixels(batch)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                x_train=pixels[..., 0] if pixels.shape[-1] == 1 else pixels,
                y_train=batch.labels.cpu().numpy(),
                classes=np.array(distilled.classes),
                mean=np.array(distilled.mean),
                std=np.array(distilled.std),
            )

    write_atomic(out, write)


def _parquet(distilled: DistilledSet, out: Path) -> None:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise DistilError(
            "writing parquet needs pyarrow, which is not installed: pip install 'distil[parquet]'"
        ) from error
    batch = distilled.decoded()
    soft = batch.labels.is_floating_point()
    label_type = arrow.list_(arrow.float32()) if soft else arrow.int64()
    images = [{"bytes": picture, "path": f"{index:05d}.png"} for index, picture in enumerate(_png(_pixels(batch)))]
    features = {
        "image": {"_type": "Image"},
        "label": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
        if soft
        else {"names": list(distilled.classes), "_type": "ClassLabel"},
    }
    schema = arrow.schema(
        [
            ("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
            ("label", label_type),
        ],
        metadata={
            "huggingface": json.dumps({"info": {"features": features}}),
            "distil": json.dumps(distilled.header(), sort_keys=True),
        },
    )
    table = arrow.table({"image": images, "label": batch.labels.tolist()}, schema=schema)
    write_atomic(out, lambda path: parquet.write_table(table, path))


def folder_names(classes: tuple[str, ...]) -> list[str]:
    """A folder name for each class: its own name, without what some file system refuses, no two alike in any case.

    Of two classes whose names become alike, the later takes a number: "a/b" and "a_b" give "a_b" and "a_b_2".
    """
    taken: set[str] = set()
    names = []
    for name in classes:
        plain = re.sub(r"[^\w .+-]", "_", unicodedata.normalize("NFC", name))
        plain = plain.encode(errors="replace")[:100].decode(errors="ignore").strip(" .") or "class"
        if re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", plain.split(".")[0].strip(), re.IGNORECASE):
            plain = f"_{plain}"
        candidate, number = plain, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{plain}_{number}"
        taken.add(candidate.casefold())
        names.append(candidate)
    return names


def ordered_folder_names(classes: tuple[str, ...]) -> list[str]:
    """Names as of `folder_names` whose alphabetical order is that of the classes.

    Where it is another, all begin with their class's index: "0_T-shirt_top", "1_Trouser".
    """
    names = folder_names(classes)
    if names == sorted(names):
        return names
    digits = len(str(len(names) - 1))
    return [f"{index:0{digits}d}_{name}" for index, name in enumerate(names)]


def _pixels(batch: Batch) -> UInt8[np.ndarray, "n h w c"]:
    return (batch.images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _png(pixels: UInt8[np.ndarray, "n h w c"]) -> list[bytes]:
    channels = pixels.shape[-1]
    if channels not in (1, 3):
        raise DistilError(f"images of {channels} channels cannot be PNG files (1 or 3 can): export to npz instead.")
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if channels == 1 else image).save(buffer, format="PNG")
        files.append(buffer.getvalue())
    return files
