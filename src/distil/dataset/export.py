"""A distilled set in the layouts that other programs read: image folder, npz, parquet."""

import io
import json
import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from distil.dataset.artifact import DistilledSet
from distil.errors import DistilError
from distil.files import write_atomic
from distil.types import Batch

Layout = Literal["folder", "npz", "parquet"]
MANIFEST = "distil.json"
"""The file that describes an exported folder, and by which an earlier export is known."""


def export(distilled: DistilledSet, to: Layout, out: Path | str, *, overwrite: bool = False) -> None:
    """Write the decoded views of a set, as uint8 images that are not normalised, in one piece or not at all.

    folder: PNG files out/train/CLASS/NNN.png (torchvision's ImageFolder layout) and out/distil.json with the
        header, the class of each folder and, for soft labels, the probabilities of each file, which then lies under
        its likeliest class.
    npz: x_train [n, h, w, c] (no last axis for one channel), y_train int64 [n] or float32 [n, k], classes, mean, std.
    parquet: columns image and label as Hugging Face datasets reads them (Image; ClassLabel or probabilities).
    overwrite: replace `out` if it is a file, or a folder that an earlier export made.

    Raises: DistilError if `out` is there already, cannot be written, or the images have channels that PNG lacks; and
    when parquet is asked for without pyarrow.
    """
    writers = {"folder": _folder, "npz": _npz, "parquet": _parquet}
    if to not in writers:
        raise DistilError(f"cannot export to {to!r}: choose one of {', '.join(writers)}.")
    out = Path(os.path.abspath(out))
    if out == Path.cwd() or out in Path.cwd().parents:
        raise DistilError(f"{out} is the working folder or holds it: give a new folder.")
    _refuse_existing(out, to, overwrite)
    writers[to](distilled, out)


def _refuse_existing(out: Path, to: Layout, overwrite: bool) -> None:
    if out.is_dir():
        if to != "folder":
            raise DistilError(f"{out} is a folder: give the name of a file, such as {out / f'distilled.{to}'}.")
        if any(out.iterdir()):
            if not (out / MANIFEST).is_file():
                raise DistilError(f"{out} holds files that distil did not write there: give a new or an empty folder.")
            if not overwrite:
                raise DistilError(f"{out} holds an earlier export: give another folder, or --overwrite to replace it.")
    elif out.exists() and (to == "folder" or not overwrite):
        remedy = "give a folder." if to == "folder" else "give another name, or --overwrite to replace it."
        raise DistilError(f"{out} is a file that exists already: {remedy}")


def _folder(distilled: DistilledSet, out: Path) -> None:
    batch = distilled.decoded()
    pictures = _png(_pixels(batch))
    classes = (batch.labels.argmax(-1) if batch.labels.is_floating_point() else batch.labels).tolist()
    folders = folder_names(distilled.classes)
    digits = max(3, len(str(max(classes.count(label) for label in set(classes)) - 1)))
    names, counts = [], dict.fromkeys(classes, 0)
    for label in classes:
        names.append(f"train/{folders[label]}/{counts[label]:0{digits}d}.png")
        counts[label] += 1
    manifest = {**distilled.header(), "folders": dict(zip(folders, distilled.classes, strict=True))}
    if batch.labels.is_floating_point():
        manifest["probabilities"] = dict(zip(names, batch.labels.tolist(), strict=True))

    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    replaced = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        for label in sorted(set(classes)):
            (partial / "train" / folders[label]).mkdir(parents=True)
        for name, picture in zip(names, pictures, strict=True):
            (partial / name).write_bytes(picture)
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
        if out.exists():
            out.replace(replaced)
        partial.replace(out)
    except OSError as error:
        if replaced.exists() and not out.exists():
            replaced.replace(out)
        raise DistilError(
            f"cannot write {out}: {error.strerror or error}. Free space there or choose another folder; "
            "what was there before is untouched."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


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
