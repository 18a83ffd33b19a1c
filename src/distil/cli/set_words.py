"""What words of the commands on distilled sets mean: images, files, names."""

import contextlib
import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, arg

from distil.cli.flags import option, switch
from distil.data.catalog import MEMORY, NAMES
from distil.dataset.methods import source_key
from distil.lookup import indices_of
from distil.runs import Events

if TYPE_CHECKING:
    from distil.data.images.opener import Source

SourceWord = Annotated[
    str,
    arg(
        metavar="SOURCE",
        help=f"Real images: {', '.join(NAMES)}, a folder with one folder of images per class, FILE.npz, or hf:NAME.",
    ),
]
ArtifactFile = Annotated[Path, arg(metavar="FILE", help="A distilled set (.safetensors).")]
Root = Annotated[
    Path | None, option("DIR", "Folder that holds the named data sets; $DISTIL_DATA or ~/.cache/distil unless given.")
]
Size = Annotated[int | None, option("N", "Resize the images to N x N pixels.")]
Memory = Annotated[
    float,
    option("GB", "Gigabytes that decoded images may take; those of larger folders are decoded as they are needed."),
]
Classes = Annotated[str | None, option("A,B,...", "Take the images of these classes alone.")]
Download = Annotated[FlagCreatePairsOff[bool], switch("Fetch a named data set that --root lacks.")]


def short_name(word: str) -> str:
    """A source's name as part of a folder's name: "cifar10", "photos" of data/photos/, or of . when that is photos/,
    "NAME" of hf:USER/NAME."""
    key = source_key(word)
    name = key if key != "custom" else PurePath(word.removeprefix("hf:")).stem
    if name in ("", "..") and Path(word).is_dir():
        name = Path(word).resolve().name
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip(".") or "images"


def open_images(word: str, root: Path | None, size: int | None, download: bool, memory: float = MEMORY) -> "Source":
    """The source that a word names, once what was read and what was left out has been printed."""
    from distil.data.images.opener import open_source

    source = open_source(word, root=root, size=size, download=download, memory=memory)
    print(source.inventory, flush=True)
    return source


def opened(
    word: str, root: Path | None, size: int | None, download: bool, events: Events, memory: float = MEMORY
) -> "Source":
    """The same; events: shown what is done where opening can take its time."""
    if word not in NAMES:
        with contextlib.suppress(OSError, ValueError):
            if word.startswith("hf:") or Path(word).exists():
                events("preparing", what=f"opening {short_name(word)}")
    return open_images(word, root, size, download, memory)


def class_names(word: str, known: Sequence[str]) -> list[str]:
    """The classes that a --classes word names: between commas, but for commas of names that are known.

    Raises: DistilError on an unknown class.
    """
    pieces, names = unicodedata.normalize("NFC", word).split(","), []
    while pieces:
        fitting = [end for end in range(len(pieces), 0, -1) if ",".join(pieces[:end]).strip() in known]
        end = fitting[0] if fitting else 1
        names.append(",".join(pieces[:end]).strip())
        pieces = pieces[end:]
    indices_of(names, known, "the source")
    return names


def named_in_path(word: str | None) -> str:
    """What a --classes word adds to a folder's name: "-0-1-2" of 0,1,2; a hash of it where it is long."""
    if word is None:
        return ""
    plain = "".join(letter if letter.isalnum() or letter in "_" else "-" for letter in word)
    return f"-{plain}" if len(plain) <= 40 else f"-{hashlib.sha256(word.encode()).hexdigest()[:10]}"


def of_classes(source: "Source", names: Sequence[str]) -> "Source":
    """The images of some classes of a source, once how many there are has been printed."""
    few = source.only(names)
    told = f"{len(few.train.labels):,} training images"
    if few.test is not None:
        told += f", {len(few.test.labels):,} test images"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    print(f"Classes: {shown} ({len(names)} of {len(source.train.classes)}): {told}", flush=True)
    return few


def in_bytes(count: int) -> str:
    return f"{count:,} bytes"
