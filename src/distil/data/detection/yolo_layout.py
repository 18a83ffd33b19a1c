"""Where the pictures and label files of data in YOLO's layout lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.data.detection.files import image_files, read_lines
from distil.data.detection.inventory import Findings, printable
from distil.data.detection.splits import SPLITS, Split, by_split, folder_named, folders_in, split_in, split_of
from distil.data.detection.values import PresentFiles, inside
from distil.data.detection.yolo_yaml import DataYaml
from distil.data.images.folder import IMAGE_SUFFIXES
from distil.errors import DistilError

LAYOUT = (
    "Expected ROOT/images/train and ROOT/labels/train (likewise val, test), or ROOT/train/images and "
    "ROOT/train/labels, or ROOT/images and ROOT/labels, or a data.yaml that says train: and val:."
)


@dataclass(frozen=True)
class Files:
    """The pictures of a split and the label file of each, which need not be there.

    identifiers: unique names of the pictures. origin: where they come from, for a reader. label_folders: those in which
    each label file must have its picture. unlabeled: no label file is there at all.
    """

    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    identifiers: tuple[str, ...]
    origin: str
    label_folders: tuple[Path, ...] = ()

    @property
    def unlabeled(self) -> bool:
        return not any(path.is_file() for path in self.labels)


def plain_files(root: Path) -> Files:
    """All pictures in ROOT/images, with labels in ROOT/labels.

    Raises: DistilError if a folder is missing, or there are no pictures.
    """
    images = folder_named(root, "images")
    if images is None:
        raise DistilError(f"{root} has no images. {LAYOUT}")
    return _pair(root, images, folder_named(root, "labels") or root / "labels")


def split_files(root: Path, described: DataYaml | None, findings: Findings) -> dict[Split, Files]:
    """The files of each split that data.yaml names, else that folders or lists named for splits hold; {} if none.

    root: an absolute path.

    Raises: DistilError if what data.yaml names is not there or lies outside `root`, two folders are for one split, or
        one has no pictures or no folder of labels (the test split aside).
    """
    found = _named_splits(root, described, findings) if described else {}
    if not found:
        return _guessed_splits(root, findings) or _listed_splits(root, findings)
    assert described is not None
    file, named = described.file.name, dict(found)
    taken = {path for files in named.values() for path in files.images}
    for split, (images, labels) in _guessed_pairs(root, exact=False).items():
        if split in named and named[split].origin == str(images.relative_to(root)):
            continue
        pictures = set(image_files(images).values())
        if not pictures or pictures & taken:
            continue
        files = _pair(root, images, labels, unlabeled=True)
        if split in named:
            why = f"{file} says that the {split} split is {named[split].origin}"
            findings.leave_out("folders named for a split", [files.origin], why)
        elif split == "test" or not files.unlabeled:
            findings.note(f"the {split} split is the folder {files.origin}, which {file} does not name")
            found[split] = files
    return {split: found[split] for split in SPLITS if split in found}


def _guessed_splits(root: Path, findings: Findings) -> dict[Split, Files]:
    found = {}
    for split, (images, labels) in _guessed_pairs(root, exact=True).items():
        if split != "test" or image_files(images):
            found[split] = _pair(root, images, labels, unlabeled=split == "test")
    return found


def _pair(root: Path, images: Path, labels: Path, *, unlabeled: bool = False) -> Files:
    """The pictures of a folder, with the labels in another at the same places."""
    if not labels.is_dir() and not unlabeled:
        raise DistilError(f"{images} has images, but there is no {labels}. {LAYOUT}")
    pictures = image_files(images)
    if not pictures:
        raise DistilError(f"{images} has no images. {LAYOUT}")
    return Files(
        images=tuple(pictures.values()),
        labels=tuple(labels / f"{stem}.txt" for stem in pictures),
        identifiers=tuple(path.relative_to(images).as_posix() for path in pictures.values()),
        origin=printable(str(images.relative_to(root))),
        label_folders=(labels,) if labels.is_dir() else (),
    )


def _guessed_pairs(root: Path, *, exact: bool) -> dict[Split, tuple[Path, Path]]:
    """(folder of pictures, folder of labels) of each split. exact: two folders for one split are an error."""
    images, labels = folder_named(root, "images"), folder_named(root, "labels") or root / "labels"
    below = [folder for folder in folders_in(images) if split_of(folder.name)] if images else []
    beside = [folder for folder in folders_in(root) if split_of(folder.name) and folder_named(folder, "images")]
    if not exact:
        below = list({split_of(folder.name): folder for folder in reversed(below)}.values())
        beside = [each for each in beside if split_of(each.name) not in {split_of(folder.name) for folder in below}]
    pairs = {}
    for split, folder in by_split([*below, *beside], "folders").items():
        if folder in below:
            pairs[split] = folder, folder_named(labels, folder.name) or labels / folder.name
        else:
            pairs[split] = (
                folder_named(folder, "images") or folder / "images",
                folder_named(folder, "labels") or folder / "labels",
            )
    return pairs


def _named_splits(root: Path, described: DataYaml, findings: Findings) -> dict[Split, Files]:
    base = _base(root, described, findings)
    found = {}
    for split, (key, texts) in described.places.items():
        try:
            found[split] = _named_files(root, base, described.file, split, key, texts, findings)
        except DistilError as error:
            if split != "test":
                raise
            findings.leave_out("test splits", [], str(error).rstrip("."), 1)
    return found


def _named_files(
    root: Path, base: Path, file: Path, split: Split, key: str, texts: Sequence[str], findings: Findings
) -> Files:
    """The files of one key of data.yaml."""
    parts = []
    for text in texts:
        place = _place(root, base, text, key, split, file, findings)
        parts.append(_folder_files(root, place) if place.is_dir() else _list_files(root, base, place, findings))
        if not parts[-1].images:
            raise DistilError(f"{file}: {key!r} is {place}, which has no images: mend the path.")
    images = tuple(path for part in parts for path in part.images)
    return Files(
        images=images,
        labels=tuple(path for part in parts for path in part.labels),
        identifiers=parts[0].identifiers if len(parts) == 1 else tuple(_identifier(root, path) for path in images),
        origin=", ".join(part.origin for part in parts),
        label_folders=tuple(folder for part in parts for folder in part.label_folders),
    )


def _identifier(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _base(root: Path, described: DataYaml, findings: Findings) -> Path:
    """The folder that the splits of data.yaml start from."""
    if described.base in ("", ".", "./"):
        return root
    path = inside(root, described.base)
    if path is not None and path.is_dir():
        return path
    why = "is not there" if path is not None else "leads out of the folder"
    name = described.file.name
    findings.note(f"'path' in {name} is {described.base}, which {why}: the splits are looked up beside {name}")
    return root


def _place(root: Path, base: Path, text: str, key: str, split: Split, file: Path, findings: Findings) -> Path:
    """The folder or list that a value of data.yaml means."""
    if "://" in text:
        raise DistilError(f"{file}: {key!r} is the address {text!r}, and distil fetches nothing: name a folder.")
    plain = text.replace("\\", "/")
    path = inside(root, plain, base)
    stripped = plain
    while path is None and stripped.startswith("../"):  # Roboflow writes ../train/images beside train/
        stripped = stripped.removeprefix("../")
        path = inside(root, stripped, base)
    if path is None or not path.exists():
        parts = Path(stripped).parts
        tails = [Path(*parts[start:]) for start in range(1, len(parts))]
        tails = [tail for tail in tails if any(split_in(part) == split for part in tail.parts)]
        tail = next((tail for tail in tails if (base / tail).exists()), None)
        if tail is None or ".." in tail.parts:
            where = f"there is nothing at {path}" if path is not None else f"that leads out of {root}"
            raise DistilError(
                f"{file}: {key!r} is {printable(text)!r}, and {where}: mend the path, or remove the key and name the "
                "folders as in images/train and images/val."
            )
        findings.note(f"{key!r} in {file.name} is {text}, which is not there: {tail} is read instead")
        path = base / tail
    if path.is_file() and path.suffix.lower() != ".txt":
        raise DistilError(
            f"{file}: {key!r} is the file {path}: name a folder of images, or a .txt file that lists them."
        )
    return path


def _folder_files(root: Path, folder: Path) -> Files:
    """The pictures of a folder that data.yaml names; labels by the rule of `labels_of`."""
    folder = folder_named(folder, "images") or folder
    pictures = tuple(image_files(folder).values())
    labels = labels_of(pictures, root)
    apart = labels_of([folder / "x.txt"], root)[0].parent
    return Files(
        images=pictures,
        labels=labels,
        identifiers=tuple(path.relative_to(folder).as_posix() for path in pictures),
        origin=printable(str(folder.relative_to(root))),
        label_folders=(apart,) if apart != folder and apart.is_dir() else (),
    )


def labels_of(pictures: Sequence[Path], root: Path) -> tuple[Path, ...]:
    """The label file of each picture by YOLO's rule: the last folder "images" in its path below `root` becomes
    "labels"; without such a folder it lies beside the picture. root and pictures: absolute paths."""
    folders: dict[Path, Path] = {}
    for folder in {picture.parent for picture in pictures}:
        parts = list(folder.relative_to(root).parts)
        last = next((place for place in reversed(range(len(parts))) if parts[place].lower() == "images"), None)
        if last is not None:
            labels = folder_named(root.joinpath(*parts[:last]), "labels")
            parts[last] = labels.name if labels else "labels"
        folders[folder] = root.joinpath(*parts)
    return tuple(folders[picture.parent] / f"{picture.stem}.txt" for picture in pictures)


def _list_files(root: Path, base: Path, file: Path, findings: Findings) -> Files:
    """The pictures that a .txt file lists, one a line."""
    present = PresentFiles(findings)
    found: dict[Path, None] = {}
    repeated = []
    for number, line in enumerate(read_lines(file), start=1):
        text = line.strip()
        if not text:
            continue
        path = _listed_picture(root, base, file, number, text, present, findings)
        if path in found:
            repeated.append(f"line {number} of {file.name}")
        found[path] = None
    findings.leave_out("repeated lines of lists", repeated, "the same image again")
    images = tuple(found)
    stems: dict[Path, Path] = {}
    for path in images:
        other = stems.setdefault(path.with_suffix(""), path)
        if other != path:
            raise DistilError(f"{other} and {path} would share their annotations: rename or remove one.")
    return Files(
        images=images,
        labels=labels_of(images, root),
        identifiers=tuple(_identifier(root, path) for path in images),
        origin=printable(str(file.relative_to(root))),
    )


def _listed_picture(
    root: Path, base: Path, file: Path, number: int, text: str, present: PresentFiles, findings: Findings
) -> Path:
    plain = text.replace("\\", "/")
    starts: Sequence[Path] = (file.parent, base) if plain.startswith("./") else (base, file.parent)
    paths = [path for start in starts if (path := inside(root, plain, start)) is not None]
    if not paths:
        tails = [Path(*Path(plain).parts[start:]) for start in range(1, len(Path(plain).parts) - 1)]
        paths = [base / tail for tail in tails if ".." not in tail.parts and (base / tail).is_file()][:1]
        if not paths:
            raise DistilError(
                f"line {number} of {file} is {printable(text)!r}, which leads out of {root}: list images in that "
                "folder, as seen from it."
            )
        findings.note(f"paths in {file.name} such as {printable(text)} are read as {paths[0].relative_to(base)}")
    elif not any(path.is_file() for path in paths):
        tails = [Path(*Path(plain).parts[start:]) for start in range(1, len(Path(plain).parts) - 1)]
        paths += [base / tail for tail in tails if ".." not in tail.parts]
    for path in paths:
        if (there := present.find(path)) is not None and there.is_file():
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                raise DistilError(f"line {number} of {file} is {printable(text)!r}, which is no picture: remove it.")
            return there
    raise DistilError(
        f"line {number} of {file} is {printable(text)!r}, and there is no image at {paths[0]}: put it there, or remove "
        "the line."
    )


def _listed_splits(root: Path, findings: Findings) -> dict[Split, Files]:
    """The splits of ROOT/train.txt, val.txt and test.txt, as far as they list pictures."""
    files = sorted(file for file in root.iterdir() if file.suffix.lower() == ".txt" and file.is_file())
    lists = [file for file in files if split_of(file.stem) and _lists_pictures(file)]
    return {split: _list_files(root, root, file, findings) for split, file in by_split(lists, "lists").items()}


def _lists_pictures(file: Path) -> bool:
    first = next((line.strip() for line in read_lines(file) if line.strip()), "")
    return Path(first).suffix.lower() in IMAGE_SUFFIXES
