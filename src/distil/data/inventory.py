"""What a reader found in a source of data, told before anything is spent on it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

SHOWN_CLASSES = 12
SHOWN_EXAMPLES = 3


@dataclass(frozen=True)
class LeftOut:
    """Things that lie in a source and are not used.

    what: in the plural, as "files of unknown type (.heic)". count: how many. why: the reason and, where there is one,
    the remedy; no full stop. examples: names of a few of them.
    """

    what: str
    count: int
    why: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(self.examples[:SHOWN_EXAMPLES])
        more = ", ..." if self.examples and self.count > len(self.examples[:SHOWN_EXAMPLES]) else ""
        what = _singular(self.what) if self.count == 1 else self.what
        return f"{self.count:,} {what}{f' ({shown}{more})' if shown else ''}: {self.why}"


@dataclass(frozen=True)
class SplitInventory:
    """One split of a source.

    origin: where it comes from, for a reader: "photos/Testing", "x_val", "20% of each class, held out with seed 0".
    images: how many. per_class: images of each class; of detection data objects of each class, the ignored ones aside.
    smallest, largest: height and width in pixels, as the pictures are stored.
    objects, ignored, empty: of detection data, all objects, those that are ignored, and images without objects.
    """

    split: Literal["train", "val", "test"]
    origin: str
    images: int
    per_class: tuple[int, ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    objects: int | None = None
    ignored: int | None = None
    empty: int | None = None

    def __str__(self) -> str:
        text = f"{self.split}: {_count(self.images, 'image')} of {_sizes(self.smallest, self.largest)}"
        if self.objects is not None:
            text += f", {_count(self.objects, 'object')}"
            text += f" ({self.ignored:,} ignored)" if self.ignored else ""
            text += f", {_count(self.empty, 'image')} without objects" if self.empty else ""
        return f"{text}, from {self.origin}" if self.origin else text


@dataclass(frozen=True)
class Inventory:
    """What was read, and what was not.

    name: of the source. format: how it was read: "folder of images", "npz", "COCO json", "YOLO", ...
    classes: names in the order of their indices. splits: those that are used, train first.
    left_out: what lies there and is not used. notes: what was converted or guessed, each without full stop.
    """

    name: str
    format: str
    classes: tuple[str, ...]
    splits: tuple[SplitInventory, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The block of text that every command prints, several lines without a final newline."""
        lines = [f"Read {self.name} ({self.format}): {_count(len(self.classes), 'class')}"]
        lines += [f"  {split}" for split in self.splits]
        if self.splits:
            what = "objects" if self.splits[0].objects is not None else "images"
            counted = list(zip(self.classes, self.splits[0].per_class, strict=True))
            lines.append(f"  {self.splits[0].split} {what} by class: {_by_class(counted)}")
        lines += [f"  left out: {part}" for part in self.left_out]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def only(self, classes: Sequence[str]) -> "Inventory":
        """The inventory of some of the classes of a source of images; the sizes stay those of all images."""
        places = [self.classes.index(name) for name in classes]
        splits = []
        for split in self.splits:
            counts = tuple(split.per_class[place] for place in places)
            splits.append(replace(split, images=sum(counts), per_class=counts))
        note = f"{len(places)} of {len(self.classes)} classes are used"
        return replace(self, classes=tuple(classes), splits=tuple(splits), notes=(*self.notes, note))

    def to_dict(self) -> dict[str, Any]:
        """The inventory as JSON can hold it."""
        return asdict(self)


def _count(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def _singular(what: str) -> str:
    """The text with its first plural as a singular: "file of unknown type", "box outside its image"."""
    plural = next((word for word in what.split() if word.endswith("s") and not word.endswith("ss")), "")
    return what.replace(plural, plural[: -2 if plural.endswith(("xes", "sses")) else -1], 1) if plural else what


def _sizes(smallest: tuple[int, int], largest: tuple[int, int]) -> str:
    text = f"{smallest[1]} x {smallest[0]}"
    return f"{text} pixels" if smallest == largest else f"{text} to {largest[1]} x {largest[0]} pixels"


def _by_class(counted: Sequence[tuple[str, int]]) -> str:
    """Every class with its count, or the first few, and the range of the others."""
    shown = ", ".join(f"{name} {count:,}" for name, count in counted[:SHOWN_CLASSES])
    rest = [count for _, count in counted[SHOWN_CLASSES:]]
    if not rest:
        return shown
    span = f"{min(rest):,}" if min(rest) == max(rest) else f"{min(rest):,} to {max(rest):,}"
    return f"{shown} and {len(rest)} more with {span} each"
