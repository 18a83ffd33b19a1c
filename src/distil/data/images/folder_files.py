"""The picture files in a class's folder, with a record of everything in it that is no picture."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from distil.data.inventory import SHOWN_EXAMPLES, LeftOut
from distil.data.paths import shown
from distil.errors import DistilError

IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".jp2", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")
"""Folders that macOS's archiver and Synology's index put beside the data, with copies of its names."""

SHOWN_TYPES = 5


@dataclass
class Skipped:
    """What was passed over below `root`, by reason."""

    root: Path
    unknown: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)
    broken_links: list[Path] = field(default_factory=list)
    repeated_links: list[Path] = field(default_factory=list)
    special: list[Path] = field(default_factory=list)

    def left_out(self) -> tuple[LeftOut, ...]:
        other = (
            ("broken links", self.broken_links, "what they point to is missing"),
            ("special files", self.special, "only regular files are read"),
            ("links to what is read already", self.repeated_links, "every picture of a class counts once"),
            ("pictures beside the class folders", self.loose, "a picture belongs in the folder of its class"),
            ("hidden pictures", self.hidden, "names that begin with a dot, and folders of the system, are passed over"),
        )
        found = [self._left_out(what, paths, why) for what, paths, why in other if paths]
        return (*self._by_type(), *found)

    def _by_type(self) -> list[LeftOut]:
        types = Counter(path.suffix.lower() for path in self.unknown).most_common()
        named = {suffix for suffix, _ in types[:SHOWN_TYPES]}
        found = [
            self._left_out(
                f"files of unknown type ({shown(suffix)})" if suffix else "files without an ending",
                [path for path in self.unknown if path.suffix.lower() == suffix],
                "if they are pictures, save them as PNG or JPEG" if suffix else "if they are pictures, add the ending",
            )
            for suffix, _ in types[:SHOWN_TYPES]
        ]
        rest = [path for path in self.unknown if path.suffix.lower() not in named]
        what = f"files of {len(types) - SHOWN_TYPES} other unknown types"
        return found + ([self._left_out(what, rest, "if they are pictures, save them as PNG or JPEG")] if rest else [])

    def _left_out(self, what: str, paths: list[Path], why: str) -> LeftOut:
        examples = tuple(shown(os.path.relpath(path, self.root)) for path in sorted(paths)[:SHOWN_EXAMPLES])
        return LeftOut(what, len(paths), why, examples)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name.

    Raises: DistilError if it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DistilError(f"cannot list {shown(folder)}: {error.strerror or error}. Make it readable.") from error


def is_folder(entry: os.DirEntry[str], *, follow_links: bool = True) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow_links)
    except OSError:  # a link that leads to itself
        return False


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders among them."""
    return [Path(entry.path) for entry in entries(folder) if is_folder(entry) and not is_hidden(entry.name)]


def loose_pictures(folder: Path) -> list[Path]:
    """The pictures that lie in a folder itself."""
    found = (entry for entry in entries(folder) if is_picture(entry.name) and not is_hidden(entry.name))
    return [Path(entry.path) for entry in found if os.path.isfile(entry.path)]


def pictures_below(folder: Path, skipped: Skipped) -> list[Path]:
    """The pictures in a folder and below it, in the order of their paths; links to folders are followed.

    A folder or a picture that is reached a second time by a link, and a folder that holds the one in which the link
    lies, are left out. skipped: gets what is no picture.
    """
    real = os.path.realpath(folder)
    seen = {real, *map(str, Path(real).parents)}
    plain, linked = _walk(folder, seen, skipped)
    if not linked:
        return sorted(plain)
    read = {os.path.realpath(path) for path in plain}
    for path in sorted(linked):
        target = os.path.realpath(path)
        (skipped.repeated_links if target in read else plain).append(path)
        read.add(target)
    return sorted(plain)


def _walk(folder: Path, seen: set[str], skipped: Skipped) -> tuple[list[Path], list[Path]]:
    """Pictures that are no links, and those reached by a link. Links are followed after everything else, so that a
    folder counts where it lies."""
    plain: list[Path] = []
    linked: list[Path] = []
    waiting, links = [(folder, plain)], []
    while waiting or links:
        if not waiting:
            link = links.pop()
            target = os.path.realpath(link)
            if target in seen:
                skipped.repeated_links.append(link)
                continue
            seen.add(target)
            waiting.append((link, linked))
        current, found = waiting.pop()
        for entry in entries(current):
            path = Path(entry.path)
            if is_hidden(entry.name):
                skipped.hidden += [path] if is_picture(entry.name) else []
            elif is_folder(entry, follow_links=False):
                seen.add(os.path.realpath(path))
                waiting.append((path, found))
            elif is_folder(entry):
                links.append(path)
            elif not os.path.exists(path):
                skipped.broken_links.append(path)
            elif not os.path.isfile(path):
                skipped.special.append(path)
            elif not is_picture(entry.name):
                skipped.unknown.append(path)
            else:
                (linked if entry.is_symlink() else found).append(path)
    return plain, linked
