"""The inventory of detection data: what a reader found in each split, and what lies beside it unused."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from distil.data.detection.detection_set import DetectionSet
from distil.data.detection.splits import Split
from distil.data.images.folder import IMAGE_SUFFIXES
from distil.data.inventory import Inventory, LeftOut, SplitInventory

TEXT_SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".yml", ".names", ".data", ".labels", ".cache", ".csv", ".md")
"""Endings of files beside pictures that hold annotations or words; each reader tells itself which it does not use."""

CLUTTER = {"thumbs.db", "desktop.ini"}


@dataclass
class Findings:
    """What readers come across and do not use, or use in another way than it is written."""

    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tallies: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def leave_out(self, what: str, names: Sequence[str], why: str, count: int | None = None) -> None:
        """Add a line; lines that say the same become one. what: in the plural. count: of names if None."""
        count = len(names) if count is None else count
        if not count:
            return
        examples = tuple(map(printable, names[:3]))
        for place, known in enumerate(self.left_out):
            if (known.what, known.why) == (what, why):
                self.left_out[place] = LeftOut(what, known.count + count, why, (*known.examples, *examples)[:3])
                return
        self.left_out.append(LeftOut(what, count, why, examples))

    def note(self, text: str) -> None:
        """Add a note, once. text: without full stop."""
        if printable(text) not in self.notes:
            self.notes.append(printable(text))

    def tally(self, what: str, example: str, meaning: str) -> None:
        """Count something that is read otherwise than it is written, for a note. what: with {s} for the plural."""
        self.tallies.setdefault((what, meaning), []).append(example)

    def all_notes(self) -> tuple[str, ...]:
        """The notes, and one for each kind of thing that was counted."""
        counted = []
        for (what, meaning), examples in self.tallies.items():
            told = what.replace("{s}", "s" if len(examples) > 1 else "")
            counted.append(f"{len(examples):,} {told} ({named(examples, 3)}): {meaning}")
        return (*self.notes, *map(printable, counted))


def printable(text: str) -> str:
    """Text with the bytes of file names that are no UTF-8 as escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def numbered(count: int, noun: str) -> str:
    """A count and its noun: "1 box", "1,200 boxes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def named(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def make_inventory(
    name: str,
    format: str,
    splits: Mapping[Split, tuple[DetectionSet, str]],
    findings: Findings,
) -> Inventory:
    """The record of a source. splits: each with where it comes from, for a reader; train is among them."""
    parts = {split: _split_inventory(split, data, origin) for split, (data, origin) in splits.items()}
    classes = splits["train"][0].classes
    for split, (data, _) in splits.items():
        _note_classes(split, data, parts[split], findings)
    _note_shared(splits, findings)
    return Inventory(
        printable(name), format, classes, tuple(parts.values()), tuple(findings.left_out), findings.all_notes()
    )


def _split_inventory(split: Split, data: DetectionSet, origin: str) -> SplitInventory:
    every = [data.annotations(index) for index in range(len(data))]
    lengths = [len(annotations) for annotations in every]
    ignored = torch.cat([annotations.ignored for annotations in every])
    labels = torch.cat([annotations.labels for annotations in every])[~ignored]
    counts = torch.bincount(labels, minlength=len(data.classes) + 1)[1:]
    sizes = sorted({data.size(index) for index in range(len(data))}, key=lambda size: size[0] * size[1])
    return SplitInventory(
        split,
        printable(origin),
        images=len(data),
        per_class=tuple(counts.tolist()),
        smallest=sizes[0],
        largest=sizes[-1],
        objects=sum(lengths),
        ignored=int(ignored.sum()),
        empty=lengths.count(0),
    )


def _note_classes(split: Split, data: DetectionSet, part: SplitInventory, findings: Findings) -> None:
    without = [name for name, count in zip(data.classes, part.per_class, strict=True) if not count]
    all_ignored: list[str] = []
    if without and part.ignored:
        seen = {int(label) for index in range(len(data)) for label in data.annotations(index).labels}
        all_ignored = [name for name in without if data.classes.index(name) + 1 in seen]
    if all_ignored:
        findings.note(
            f"all {split} objects of {named(all_ignored)} are ignored: nothing there to learn from or to find"
        )
    if split == "train" and (unseen := [name for name in without if name not in all_ignored]):
        told = "1 class has" if len(unseen) == 1 else f"{len(unseen)} classes have"
        findings.note(f"{told} no object in the train split: {named(unseen)}")
    if split == "train":
        folded: dict[str, str] = {}
        for name in data.classes:
            other = folded.setdefault(name.casefold(), name)
            if other != name:
                findings.note(f"{other!r} and {name!r}, which differ in upper and lower case alone, are two classes")


def _note_shared(splits: Mapping[Split, tuple[DetectionSet, str]], findings: Findings) -> None:
    """Say which pictures lie in two splits, as far as these are files."""
    files = {split: set(getattr(data.pictures, "paths", ())) for split, (data, _) in splits.items()}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if shared := files.get(first, set()) & files.get(second, set()):
            findings.note(
                f"the {first} and the {second} split share {numbered(len(shared), 'picture')}, such as "
                f"{min(shared).name}: scores on {second} images will be too high"
            )


def find_unused(root: Path, used: Iterable[Path], findings: Findings, *, unnamed: str) -> None:
    """Tell which folders, pictures and files of unknown type lie in a folder and are not used.

    used: pictures and annotations that were read, in `root`. unnamed: why pictures in used folders are left out.
    """
    top = os.path.abspath(root)
    files = {os.path.abspath(path) for path in used}
    pictured = {os.path.dirname(file) for file in files if _ending(file) in IMAGE_SUFFIXES}
    holding = {top}
    for folder in {os.path.dirname(file) for file in files}:
        while folder.startswith(top) and folder not in holding:
            holding.add(folder)
            folder = os.path.dirname(folder)
    folders: list[str] = []
    pictures: list[str] = []
    unknown: dict[str, list[str]] = {}
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        for entry in _entries(folder):
            name = os.path.relpath(entry.path, top) if entry.path not in files else ""
            if entry.is_dir():
                if entry.path in holding:
                    waiting.append(entry.path)
                elif entry.is_symlink():
                    folders.append(f"{name}, a link")
                elif found := _pictures_below(entry.path):
                    folders.append(f"{name} with {numbered(found, 'picture')}")
                else:
                    folders.append(name)
            elif not name or entry.name.lower() in CLUTTER:
                continue
            elif (ending := _ending(entry.name)) in IMAGE_SUFFIXES:
                pictures.append(name)
            elif folder in pictured and ending not in TEXT_SUFFIXES:
                unknown.setdefault(ending or "no ending", []).append(name)
    findings.leave_out("pictures", sorted(pictures), unnamed)
    findings.leave_out("folders", sorted(folders), "no split uses them" if len(folders) > 1 else "no split uses it")
    for ending, names in sorted(unknown.items()):
        findings.leave_out(
            f"files of unknown type ({ending})", sorted(names), "save pictures as PNG or JPEG to have them read"
        )


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _pictures_below(folder: str) -> int:
    every = (name for _, _, names in os.walk(folder) for name in names)
    return sum(_ending(name) in IMAGE_SUFFIXES for name in every if not name.startswith("."))
