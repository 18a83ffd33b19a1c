"""What is fuzzed: for every kind of file a small valid seed, its reader, and an oracle of what a reader may accept.

Seeds are made in code and are the same on every machine of one kind. An oracle looks at what came out of a reader and,
where the file alone says what is right (is this object ignored? how many are there?), reads the file by itself.
"""

import contextlib
import hashlib
import io
import json
import math
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from distil.cli import main
from distil.dataset.artifact import Cosines, DistilledSet
from distil.dataset.distilling import distil_dataset
from distil.detector.prototypes import PrototypeSet
from distil.detector.training import train_detector
from distil.errors import DistilError
from distil.models.detectors import Architecture, build_detector, load_detector, save_detector
from distil.presets import preset
from distil.report.scores import add_scores, read_scores
from distil.runs import CHECKPOINT, LOG, MANIFEST, PREVIOUS, PROXY, RESULT, EventLog, read_log
from distil.settings import DetectorSettings, MatchingSettings
from distil.sources import ImageSet, Source, open_source
from distil.sources.detection import DetectionSet, DetectionSource, open_detection

Files = dict[str, bytes]
"""A folder: path inside it -> content."""

LARGEST = 1e6
"""Views with numbers beyond this, which should lie near [0, 1], are nonsense."""


@dataclass(frozen=True)
class Case:
    """A damaged folder: where it lies, which file was damaged, and what that file holds (None: it is gone)."""

    folder: Path
    name: str
    content: bytes | None


@dataclass(frozen=True)
class Target:
    """One kind of file.

    make: the valid folder. damaged: the files in it that are damaged, by the ends of their paths. read: what a user's
    call gives; raises DistilError to refuse. same: what two readings of the same content share. nonsense: why a result
    should not have been accepted, or "".
    falls_back: files, by the ends of their paths, whose damage must not be refused and must not change the result: a
    good copy lies beside them, or they can be made again. reads_file: the oracle reads the damaged file by itself, so
    that it also judges results that are equal to the seed's. share: of the cases, beside a target with 1.
    """

    make: Callable[[], Files]
    damaged: tuple[str, ...]
    read: Callable[[Path, str], Any]
    same: Callable[[Any], Any]
    nonsense: Callable[[Any, Case], str]
    falls_back: tuple[str, ...] = ()
    reads_file: bool = False
    share: float = 1.0


def files_of(write: Callable[[Path], object]) -> Files:
    """What `write` leaves in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.chdir(folder):
            write(Path(folder))
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors."""
    found = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        found.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        found.update(x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which tensor holds NaN or an infinity."""
    bad = [name for name, x in tensors.items() if x.is_floating_point() and not bool(x.isfinite().all())]
    return f"{bad[0]} is not finite" if bad else ""


def bad_names(names: Iterable[object]) -> str:
    """Why these are no names of classes."""
    names = list(names)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        return f"class names {str(names)[:80]} are not all text"
    if len(set(names)) < len(names):
        return f"a class name of {str(names)[:80]} is there twice"
    try:
        "".join(map(str, names)).encode()
    except UnicodeEncodeError:
        return "a class name cannot be printed"
    return ""


def first_of(*reasons: str) -> str:
    return next((reason for reason in reasons if reason), "")


def command(*words: str) -> str:
    """What a command prints. Raises: DistilError with what it says when it refuses."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    if status:
        raise DistilError(err.getvalue().strip().removeprefix("distil: "))
    return out.getvalue()


# The distilled set


def _set_files(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    canvases = torch.randint(0, 256, (3, 1, 8, 8), generator=generator, dtype=torch.uint8)
    quarters = torch.tensor([[[0.0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]]])
    described: dict[str, Any] = {
        "classes": ("cat", "dog", "bird"),
        "mean": (0.4,),
        "std": (0.2,),
        "view_size": (8, 8),
        "method": "idc",
        "settings": {"ipc": 1, "lr_image": 0.02, "seed": 0},
        "seed": 0,
        "source": "animals",
        "source_fingerprint": "0" * 64,
    }
    grid = DistilledSet(canvases=canvases, labels=torch.arange(3), regions=quarters, **described)
    grid.save(folder / "grid.safetensors")
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]])
    own = torch.cat([quarters, quarters + 1, quarters])
    used = torch.rand(3, 8, 8, generator=generator)
    floats = canvases.float() / 255
    replace(grid, canvases=floats, labels=soft, regions=own, utilisation=used).save(folder / "soft.safetensors")
    kept = torch.tensor([0, 1, 2, 3, 8, 9, 10, 16])
    cosines = Cosines(kept, torch.linspace(1, 4, 8), 4)
    none = torch.empty(1, 0, 4)
    replace(grid, regions=none, cosines=cosines, method="udd").save(folder / "cosines.safetensors")


def _set_nonsense(found: DistilledSet, case: Case) -> str:
    views = found.decoded()
    normalised = found.dataset()
    images = torch.stack([normalised[i][0] for i in range(len(normalised))])
    labels = views.labels
    soft = labels.is_floating_point()
    return first_of(
        bad_names(found.classes),
        not_finite({"views": views.images, "normalised views": images, "labels": labels}),
        "views leave all bounds" if max(float(views.images.abs().max()), float(images.abs().max())) > LARGEST else "",
        "labels out of range"
        if not soft and not 0 <= int(labels.min()) <= int(labels.max()) < len(found.classes)
        else "",
        "soft labels are no probabilities" if soft and not bool(((labels.sum(-1) - 1).abs() < 0.01).all()) else "",
        "as many views as labels are expected" if len(labels) != len(images) else "",
    )


def _set_content(found: DistilledSet) -> Any:
    tensors = {"canvases": found.canvases, "labels": found.labels, "regions": found.regions}
    tensors |= {} if found.utilisation is None else {"utilisation": found.utilisation}
    tensors |= {} if found.cosines is None else {"kept": found.cosines.kept, "spans": found.cosines.spans}
    return json.dumps(found.header(), sort_keys=True), digest(tensors)


# Runs that distil a set


def _images() -> ImageSet:
    draws = np.random.default_rng(2)
    images = torch.from_numpy(draws.integers(0, 256, (16, 1, 8, 8), dtype=np.uint8))
    return ImageSet(images, torch.arange(16) % 2, ("even", "odd"), (0.5,), (0.25,), "numbers")


def _settings(method: str) -> MatchingSettings:
    settings = preset(method, "custom", 1)
    assert isinstance(settings, MatchingSettings)
    tiny: dict[str, Any] = {"width": 4, "outer": 3, "inner": 1, "batch_real": 4, "network_samples": 4}
    if method == "udd-windows":
        tiny |= {"proxy_steps": 1, "refresh": 1, "windows_start": 0.0, "windows_freeze": 0.0}
    return replace(settings, **tiny, validation=0.0, lr_image=0.01, seed=3)


def _stopped(method: str) -> Callable[[], Files]:
    """A run after two of its three steps: a checkpoint, the one before it, and the proxy if it has one."""

    def write(folder: Path) -> None:
        kept: Files = {}

        def keep(name: str, **fields: Any) -> None:
            if name == "checkpoint" and fields["step"] == 2:
                kept.update({path.name: path.read_bytes() for path in folder.glob("*.safetensors")})

        distil_dataset(_images(), _settings(method), folder=folder, events=keep, checkpoint_seconds=0.0)
        (folder / RESULT).unlink()
        for path in folder.glob("*.safetensors"):
            path.unlink()
        for name, content in kept.items():
            (folder / name).write_bytes(content)

    return lambda: files_of(write)


def _without(make: Callable[[], Files], *names: str) -> Callable[[], Files]:
    return lambda: {name: content for name, content in make().items() if name not in names}


def _resumed(method: str) -> Callable[[Path, str], DistilledSet]:
    return lambda folder, name: distil_dataset(_images(), _settings(method), folder=folder, resume=True)


def _resumed_nonsense(found: DistilledSet, case: Case) -> str:
    if case.content is not None and (reason := _broken_state(case.content)):
        return f"went on from a state in which {reason}"
    return _set_nonsense(found, case)


def _broken_state(content: bytes) -> str:
    try:
        tensors = safetensors.torch.load(content)
    except Exception:  # the reader fell back to another file
        return ""
    huge = [name for name, x in tensors.items() if x.is_floating_point() and x.numel() and float(x.abs().max()) > 1e20]
    return not_finite(tensors) or (f"{huge[0]} leaves all bounds" if huge else "")


def _command_run(folder: Path) -> None:
    draws = np.random.default_rng(2)
    arrays = {f"x_{split}": draws.integers(0, 256, (12, 8, 8), dtype=np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(12) % 2 for split in ("train", "test")}
    np.savez(folder / "numbers.npz", **arrays)  # pyright: ignore[reportArgumentType]
    words = "--width 4 --outer 1 --inner 2 --batch-real 4 --network-samples 4 --validations 1 --checkpoint-seconds 0"
    command("dataset", "idc", "numbers.npz", "--out", "run", "--device", "cpu", *words.split())
    (folder / "run" / RESULT).unlink()
    _relative(folder)


def _relative(folder: Path) -> None:
    """A run whose source is named from the folder in which the cases run."""
    path = folder / "run" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["source"] = manifest["source"].replace(f"{folder}/", "")
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def _resume_command(folder: Path, name: str) -> Path:
    command("dataset", "--resume", "run")
    return folder / "run" / RESULT


def _other_result(found: Path, case: Case) -> str:
    return "the run ended with another result"


# Logs and scores


def _log(folder: Path) -> None:
    log = EventLog(folder / LOG)
    log("start", step=0, steps=4)
    for step in range(1, 5):
        log("step", step=step, steps=4, loss=1 / step)
    log("validation", step=4, accuracy=71.25)
    log("done", step=4)
    lines = [{**line, "time": 1.5} for line in read_log(folder / LOG)]
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _read_log(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = read_log(folder / LOG) if (folder / LOG).is_file() else []
    EventLog(folder / LOG, resume_at=3)("step", step=3, loss=0.5)
    read_log(folder / LOG)
    return lines


def _log_nonsense(found: list[dict[str, Any]], case: Case) -> str:
    before = [json.dumps(line) for line in read_log_of(LOG_SEED)]
    lines = (case.content or b"").split(b"\n")
    whole = [line for line in before if line.encode() in lines]
    told = [json.dumps(line, allow_nan=True) for line in found]
    lost = [line for line in whole if line not in told]
    if lost:
        return f"a line that nothing happened to is lost: {lost[0]}"
    if not all(isinstance(line, dict) for line in found):
        return "an event that is no object"
    numbers = [x for line in found for x in line.values() if isinstance(x, float)]
    return "an event with a number that is not finite" if not all(map(math.isfinite, numbers)) else ""


def read_log_of(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def _scores(folder: Path) -> None:
    row = {
        **{"name": "set", "method": "idc", "images_per_class": 1, "views": 40, "bytes": 2570, "protocol": "quick"},
        **{"protocol_settings": {"epochs": 3, "milestones": [0.5]}, "width": 8, "seed": 0, "test": "digits test"},
        **{"test_images": 360, "updates": 600, "runs": 2, "file_sha256": "1" * 64, "test_fingerprint": "2" * 64},
        "networks": {"convnet3": {"accuracies": [80.5, 81.5], "mean": 81.0, "std": 0.7}},
        **{"versions": {"distil": "0.1"}, "path": "/tmp/set"},
    }
    add_scores(folder / "scores.json", row)
    add_scores(folder / "scores.json", {**row, "name": "other", "file_sha256": None, "path": "/tmp/other"})


def _read_scores(folder: Path, name: str) -> tuple[list[dict[str, Any]], str]:
    rows = read_scores(folder / "scores.json")
    table = command("compare", "scores.json", "--markdown")
    add_scores(folder / "scores.json", {**rows[0], "name": "third"})
    return rows, table


def _scores_nonsense(found: tuple[list[dict[str, Any]], str], case: Case) -> str:
    rows, table = found
    for row in rows:
        if not isinstance(row["networks"], dict) or not row["networks"]:
            return f"networks are {str(row['networks'])[:40]}"
        for network, values in row["networks"].items():
            mean, std = values["mean"], values["std"]
            if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (mean, std)):
                return f"the accuracy of {network[:40]} is {str(mean)[:40]} ± {str(std)[:40]}"
            if not 0 <= mean <= 100 or not 0 <= std <= 100:
                return f"the accuracy of {network[:40]} is {mean:g} ± {std:g} %"
    return "the table holds nan or inf" if " nan" in table or " inf" in table else ""


# Detectors

TINY = Architecture(
    detector="faster-rcnn",
    backbone="timm:test_efficientnet",
    classes=("red", "green"),
    channels=8,
    min_size=32,
    max_size=64,
    norm="group",
    anchor=8.0,
    representation=8,
    proposals=20,
    sampled=16,
)
PROBE = 24
"""Side of the image that a detector is tried on."""


def _detector_files(folder: Path) -> None:
    save_detector(build_detector(TINY, seed=1).eval(), TINY, folder / "student.safetensors", extra={"epoch": 3})


def _exported(folder: Path) -> None:
    _detector_files(folder)
    command("detector", "export", "student.safetensors", "--out", "exported.safetensors")
    (folder / "student.safetensors").unlink()


def _load_detector(folder: Path, name: str) -> Any:
    model, architecture, extra = load_detector(folder / name)
    with torch.no_grad():
        return model, architecture, extra, model([torch.full((3, PROBE, PROBE), 0.5)])[0]


def _detector_nonsense(found: Any, case: Case) -> str:
    model, architecture, extra, objects = found
    numbers = (*architecture.mean, *architecture.std, architecture.max_size, architecture.channels)
    inside = bool((objects["boxes"] >= 0).all() and (objects["boxes"] <= PROBE).all())
    labels = objects["labels"]
    return first_of(
        bad_names(architecture.classes),
        "a truth value in place of a number" if any(isinstance(x, bool) for x in numbers) else "",
        "means or deviations outside all sense"
        if max(abs(x) for x in (*architecture.mean, *architecture.std)) > 1e4
        else "",
        not_finite({**model.state_dict(), **objects}),
        "boxes outside the image" if not inside else "",
        "labels out of range" if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= 2 else "",
        "extra is no object" if not isinstance(extra, dict) else "",
    )


def _detector_content(found: Any) -> Any:
    model, architecture, extra, _ = found
    return digest(model.state_dict()), repr(architecture), json.dumps(extra, sort_keys=True)


def _prototypes(folder: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    PrototypeSet(
        student=torch.rand(4, 5, generator=generator),
        teacher=torch.rand(4, 6, generator=generator),
        levels=torch.tensor([0, 0, 1, 1]),
        labels=torch.tensor([1, 2, 1, 2]),
        images=torch.tensor([0, 3, 0, 5]),
        boxes=torch.tensor([[1.0, 2, 30, 40], [5, 5, 9, 9], [1, 2, 30, 40], [0, 0, 8, 8]]),
        classes=("red", "green"),
        strides=(8, 16),
        source="squares",
        epoch=2,
        identifiers=("0.png", "3.png", "0.png", "5.png"),
        notes=("green has few objects",),
    ).save(folder / "prototypes.safetensors")


def _read_prototypes(folder: Path, name: str) -> PrototypeSet:
    found = PrototypeSet.load(folder / name)
    found.describe()
    for level in range(len(found.strides)):
        found.of(level, 1)
    return found


def _prototypes_nonsense(found: PrototypeSet, case: Case) -> str:
    labels, levels, boxes = found.labels, found.levels, found.boxes
    whole = all(x.dtype == torch.int64 and x.shape == (len(found),) for x in (labels, levels, found.images))
    if not whole or boxes.shape != (len(found), 4) or found.student.ndim != 2 or found.teacher.ndim != 2:
        return "tensors have other shapes or types than prototypes have"
    if not len(found):
        return "no prototype"
    return first_of(
        bad_names(found.classes),
        not_finite({name: getattr(found, name) for name in ("student", "teacher", "boxes")}),
        "labels out of range" if not 1 <= int(labels.min()) <= int(labels.max()) <= len(found.classes) else "",
        "levels out of range" if not 0 <= int(levels.min()) <= int(levels.max()) < len(found.strides) else "",
        "images below 0" if int(found.images.min()) < 0 else "",
        "boxes without area" if not bool((boxes[:, 2:] > boxes[:, :2]).all()) else "",
        "strides are no whole numbers above 0" if not all(type(x) is int and x > 0 for x in found.strides) else "",
        "the epoch is no whole number" if type(found.epoch) is not int or found.epoch < 0 else "",
        "as many file names as prototypes are expected" if len(found.identifiers) not in (0, len(found)) else "",
        "file names or notes are no text"
        if not all(isinstance(x, str) for x in (*found.identifiers, *found.notes))
        else "",
    )


def _prototypes_content(found: PrototypeSet) -> Any:
    tensors = {name: getattr(found, name) for name in ("student", "teacher", "levels", "labels", "images", "boxes")}
    return digest(tensors), repr(
        [found.classes, found.strides, found.source, found.epoch, found.identifiers, found.notes]
    )


TRAINED = {"epochs": 3, "batch": 2, "optimiser": "adamw", "lr": 1e-3, "flip": 0.0, "warmup": 1, "validation": 0.0}
RETINANET = replace(TINY, detector="retinanet", head_convs=1, norm="frozen", finest=16, proposals=None, sampled=None)


def _detector_settings() -> DetectorSettings:
    return DetectorSettings(method="plain", **TRAINED)


def _detector_run(folder: Path) -> None:
    """A training run after two of its three steps."""
    _coco(folder / "squares")
    kept: Files = {}

    def keep(name: str, **fields: Any) -> None:
        if name == "checkpoint" and fields["step"] == 2:
            kept.update({path.name: path.read_bytes() for path in (folder / "run").glob("checkpoint*.safetensors")})

    _train(folder, events=keep, checkpoint_seconds=0.0)
    for path in (folder / "run").iterdir():
        path.unlink()
    for name, content in kept.items():
        (folder / "run" / name).write_bytes(content)


def _train(folder: Path, **options: Any) -> Path:
    data = open_detection(f"coco:{folder / 'squares'}").train
    return train_detector(RETINANET, data, _detector_settings(), out=folder / "run", **options)


def _resume_detector(folder: Path, name: str) -> dict[str, Tensor]:
    return load_detector(_train(folder, resume=True))[0].state_dict()


def _weights_nonsense(found: dict[str, Tensor], case: Case) -> str:
    reason = _broken_state(case.content) if case.content is not None else ""
    return f"went on from a state in which {reason}" if reason else not_finite(found)


def _detector_command_run(folder: Path) -> None:
    _coco(folder / "squares")
    words = "--detector retinanet --backbone timm:test_efficientnet --channels 8 --min-size 32 --max-size 64 --anchor 8"
    words += " --finest 16 --head-convs 1 --epochs 1 --batch 2 --validation 0 --device cpu"
    command("detector", "train", "coco:squares", "--out", "run", *words.split())
    (folder / "run" / "student.safetensors").unlink()
    _relative(folder)


def _resume_detector_command(folder: Path, name: str) -> dict[str, Tensor]:
    command("detector", "train", "--resume", "run")
    return load_detector(folder / "run" / "student.safetensors")[0].state_dict()


def _other_weights(found: dict[str, Tensor], case: Case) -> str:
    return "the run ended with other weights"


# Images with labels


def _npz(folder: Path) -> None:
    draws = np.random.default_rng(5)
    arrays = {
        "x_train": draws.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8),
        "y_train": np.array([3, 7, 9] * 3),
        "x_test": draws.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8),
        "y_test": np.array([9, 3, 7]),
    }
    np.savez_compressed(folder / "whole.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (folder / "whole.classes.txt").write_text("cat\ndog\nbird\n")
    small = {"train_images": draws.random((10, 4, 4)).astype(np.float32), "train_labels": np.arange(10) % 2}
    np.savez(folder / "shares.npz", **small, classes=np.array(["no", "yes"]))  # pyright: ignore[reportArgumentType]


def _read_npz(folder: Path, name: str) -> Source:
    return open_source(str(folder / name.replace(".classes.txt", ".npz")))


def _source_nonsense(found: Source, case: Case) -> str:
    for images in (found.train, found.test):
        if images is None:
            continue
        height, width = images.size
        labels = images.labels
        reason = first_of(
            bad_names(images.classes),
            "no images" if not len(images) else "",
            "one class" if len(images.classes) < 2 else "",
            f"images of {height} x {width} pixels" if not (1 <= height <= 20_000 and 1 <= width <= 20_000) else "",
            "channels other than 1 or 3" if images.channels not in (1, 3) else "",
            "labels out of range" if not 0 <= int(labels.min()) <= int(labels.max()) < len(images.classes) else "",
            "mean or std outside sense" if not all(0 <= m <= 1 for m in images.mean) or min(images.std) <= 0 else "",
            "a mean or std that is not finite" if not all(map(math.isfinite, (*images.mean, *images.std))) else "",
        )
        if reason:
            return reason
    return ""


def _npz_nonsense(found: Source, case: Case) -> str:
    return _source_nonsense(found, case) or (_npz_differs(found, case) if case.name == "whole.npz" else "")


def _npz_differs(found: Source, case: Case) -> str:
    """Where the arrays are plain, what was read must be what they hold."""
    with np.load(io.BytesIO(case.content or b"")) as archive:
        arrays = {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test") if name in archive.files}
    if len(arrays) < 4 or any(x.dtype.kind not in "iu" for x in arrays.values()):
        return ""
    images, labels = arrays["x_train"], arrays["y_train"].reshape(-1)
    several = max(arrays["x_train"].max(initial=0), arrays["x_test"].max(initial=0)) > 1  # up to 1: black and white
    plain = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3 and several
    if plain and not np.array_equal(found.train.images.numpy(), images.transpose(0, 3, 1, 2)):
        return "pixels differ from those of the array"
    if labels.shape == (len(images),) and not np.array_equal(
        found.train.labels.numpy(), np.unique(labels, return_inverse=True)[1]
    ):
        return "labels differ from those of the array"
    return ""


def _source_content(found: Source) -> Any:
    parts = [images for images in (found.train, found.test) if images is not None]
    return [(images.fingerprint(), images.mean, images.std) for images in parts]


def _pictures(folder: Path) -> None:
    draws = np.random.default_rng(6)
    kinds = (("a.png", "PNG", "RGB"), ("b.jpg", "JPEG", "RGB"), ("c.tif", "TIFF", "L"), ("d.gif", "GIF", "P"))
    for label in ("cat", "dog"):
        (folder / "train" / label).mkdir(parents=True)
        (folder / "test" / label).mkdir(parents=True)
        for name, kind, mode in kinds:
            image = Image.fromarray(draws.integers(0, 256, (10, 12, 3), dtype=np.uint8)).convert(mode)
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(folder / "train" / label / name, kind, **({"exif": exif} if kind == "JPEG" else {}))
        Image.fromarray(draws.integers(0, 256, (10, 12), dtype=np.uint8)).save(folder / "test" / label / "a.png")


def _read_folder(folder: Path, name: str) -> Source:
    return open_source(str(folder), size=8)


def _folder_nonsense(found: Source, case: Case) -> str:
    there = sum(path.stat().st_size > 0 for path in (case.folder / "train").rglob("*.*"))
    if len(found.train) != there and case.content != b"":
        return f"{len(found.train)} images were read, and {there} lie there"
    return _source_nonsense(found, case)


# Images with boxes


def _drawn(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _coco(folder: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        images, annotations = [], []
        for i in range(count):
            _drawn(folder / "images" / f"{split}{i}.png", i)
            images.append({"id": i + 1, "file_name": f"{split}{i}.png", "width": 24, "height": 20})
            for j, box in enumerate(([2, 3, 8, 9.5], [10, 4, 12, 14])):
                outline = [[box[0], box[1], box[0] + box[2], box[1], box[0], box[1] + box[3]]]
                entry = {"id": 10 * i + j + 1, "image_id": i + 1, "category_id": 3 * j + 1, "bbox": box}
                annotations.append({**entry, "area": 40.0 + j, "iscrowd": j, "segmentation": outline})
        table = {"info": {}, "images": images, "annotations": annotations}
        table["categories"] = [{"id": 1, "name": "red"}, {"id": 4, "name": "green"}]
        (folder / f"instances_{split}.json").write_text(json.dumps(table))


def _opener(kind: str) -> Callable[[Path, str], DetectionSource]:
    def read(folder: Path, name: str) -> DetectionSource:
        found = open_detection(f"{kind}:{folder}")
        for data in _splits(found):
            for i in range(len(data)):
                data.image(i)
            data.describe()
        return found

    return read


def _splits(found: DetectionSource) -> list[DetectionSet]:
    return [data for data in (found.train, found.val, found.test) if data is not None]


def _boxes_nonsense(found: DetectionSource, case: Case) -> str:
    for data in _splits(found):
        if reason := bad_names(data.classes):
            return reason
        for i in range(len(data)):
            one, (height, width) = data.annotations(i), data.size(i)
            boxes = one.boxes
            inside = (boxes >= 0) & (boxes <= torch.tensor([width, height, width, height]))
            reason = first_of(
                not_finite({"boxes": boxes, "areas": one.areas}),
                "a box outside its image" if not bool(inside.all()) else "",
                "a box without area" if not bool((boxes[:, 2:] > boxes[:, :2]).all()) else "",
                "areas below 0" if not bool((one.areas > 0).all()) else "",
                "labels out of range"
                if not bool(((one.labels >= 1) & (one.labels <= len(data.classes))).all())
                else "",
                f"an image of {height} x {width}" if tuple(data.image(i).shape[1:]) != (height, width) else "",
            )
            if reason:
                return f"{data.identifier(i)[:40]}: {reason}"
        for path in getattr(data.pictures, "paths", ()):
            if not path.resolve().is_relative_to(case.folder.resolve()):
                return f"an image outside of the folder: {path}"
    return ""


def _boxes_content(found: DetectionSource) -> Any:
    return [(data.fingerprint, data.classes, [data.size(i) for i in range(len(data))]) for data in _splits(found)]


FALSE, TRUE = (None, 0, "0", "", "false", "no", "unspecified"), (1, "1", "true", "yes")


def meant(flag: Any) -> bool | None:
    """Whether a flag is set, in any of the ways that programs write it; None where that is open."""
    flag = flag.strip().lower() if isinstance(flag, str) else flag
    if isinstance(flag, list | dict | float):
        return None
    return False if flag in FALSE else True if flag in TRUE else None


def _coco_nonsense(found: DetectionSource, case: Case) -> str:
    return _boxes_nonsense(found, case) or _coco_differs(found, case)


def _coco_differs(found: DetectionSource, case: Case) -> str:
    """What a JSON itself says: no truth values as numbers, and as many ignored objects as are marked."""
    if not case.name.endswith(".json") or case.content is None:
        return ""
    table = json.loads(case.content)
    for kind, keys in (
        ("images", ("id", "width", "height")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
        ("categories", ("id",)),
    ):
        for entry in table[kind]:
            values = [x for key in keys for x in (entry.get(key) if key == "bbox" else [entry.get(key)])]
            if any(isinstance(x, bool) for x in values):
                return f"a truth value in place of a number in {kind}"
    data = found.train if "train" in case.name else found.val
    flags = [(meant(entry.get("iscrowd")), meant(entry.get("ignore"))) for entry in table["annotations"]]
    if data is None or any(None in pair for pair in flags):
        return ""
    ignored = [bool(x) for i in range(len(data)) for x in data.annotations(i).ignored]
    if len(ignored) == len(flags) and sum(ignored) != sum(map(any, flags)):
        return f"{sum(ignored)} objects are ignored, and {sum(map(any, flags))} are marked"
    if len(ignored) > len(flags):
        return "more objects than the file has"
    return ""


VOC_OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
    "<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def _voc(folder: Path) -> None:
    for split, stems in (("trainval", ("one", "two")), ("test", ("three",))):
        for i, stem in enumerate(stems):
            _drawn(folder / "JPEGImages" / f"{stem}.png", i)
            objects = VOC_OBJECT.format(name="red", difficult=0, box=(2, 3, 9, 12))
            objects += VOC_OBJECT.format(name="green", difficult=1, box=(8, 4, 24, 20))
            size = "<size><width>24</width><height>20</height><depth>3</depth></size>"
            (folder / "Annotations").mkdir(exist_ok=True)
            text = f"<annotation><filename>{stem}.png</filename>{size}{objects}</annotation>"
            (folder / "Annotations" / f"{stem}.xml").write_text(text)
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    (folder / "classes.txt").write_text("red\ngreen\n")


def _voc_nonsense(found: DetectionSource, case: Case) -> str:
    return _boxes_nonsense(found, case) or _voc_differs(found, case)


def _voc_differs(found: DetectionSource, case: Case) -> str:
    if not case.name.endswith(".xml") or not case.content:
        return ""
    tree = ElementTree.fromstring(case.content)
    if tree.tag.lower() != "annotation":
        return f"the root is <{tree.tag}>"
    data = next(
        (data for data in _splits(found) for i in range(len(data)) if Path(data.identifier(i)).stem in case.name), None
    )
    if data is None:
        return ""
    at = next(i for i in range(len(data)) if Path(data.identifier(i)).stem in case.name)
    flags = [meant(entry.findtext("difficult")) for entry in tree.findall("object")]
    ignored = data.annotations(at).ignored.tolist()
    if len(ignored) > len(flags):
        return "more objects than the file has"
    if None not in flags and len(flags) == len(ignored) and ignored != flags:
        return f"objects are ignored as {ignored}, and the file says {flags}"
    return ""


def _yolo(folder: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            _drawn(folder / "images" / split / f"{i}.png", i)
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
            lines = "0 0.3 0.4 0.2 0.2\n1 0.6 0.5 0.3 0.25\n1 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5\n"
            (folder / "labels" / split / f"{i}.txt").write_text(lines)
    (folder / "data.yaml").write_text(
        "# two colors\npath: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: red\n  1: green\n"
    )


def _yolo_nonsense(found: DetectionSource, case: Case) -> str:
    return _boxes_nonsense(found, case) or _yolo_differs(found, case)


def _yolo_differs(found: DetectionSource, case: Case) -> str:
    """As many objects as there are lines, or different lines."""
    if not case.name.endswith(".txt") or case.content is None:
        return ""
    split, stem = Path(case.name).parent.name, Path(case.name).stem
    data = found.train if split == "train" else found.val
    if data is None:
        return ""
    lines = [line.split() for line in case.content.decode("utf-8-sig").splitlines() if line.strip()]
    fewest, most = len({tuple(map(float, words)) for words in lines}), len({tuple(words) for words in lines})
    at = next((i for i in range(len(data)) if Path(data.identifier(i)).stem == stem), None)
    have = 0 if at is None else len(data.annotations(at))
    if not fewest <= have <= most:
        return f"{have} objects were read, and the file has {fewest} different lines of {len(lines)}"
    return ""


def _splits_there(found: DetectionSource, case: Case) -> str:
    if found.val is not None and set(found.train.pictures.paths) & set(found.val.pictures.paths):  # pyright: ignore[reportAttributeAccessIssue]
        return ""  # a data.yaml may name one folder for both
    return _boxes_nonsense(found, case)


LOG_SEED = files_of(_log)[LOG]

TARGETS: dict[str, Target] = {
    "artifact": Target(
        lambda: files_of(_set_files),
        (".safetensors",),
        lambda f, n: DistilledSet.load(f / n),
        _set_content,
        _set_nonsense,
    ),
    "checkpoint": Target(
        _stopped("idc"),
        (CHECKPOINT, PREVIOUS),
        _resumed("idc"),
        _set_content,
        _resumed_nonsense,
        falls_back=(CHECKPOINT, PREVIOUS),
        share=0.7,
    ),
    "checkpoint alone": Target(
        _without(_stopped("udd"), PREVIOUS), (CHECKPOINT,), _resumed("udd"), _set_content, _resumed_nonsense, share=0.7
    ),
    "proxy": Target(
        _stopped("udd-windows"),
        (PROXY,),
        _resumed("udd-windows"),
        _set_content,
        _resumed_nonsense,
        falls_back=(PROXY,),
        share=0.7,
    ),
    "run.json": Target(
        lambda: files_of(_command_run),
        (MANIFEST,),
        _resume_command,
        lambda path: path.read_bytes(),
        _other_result,
        share=0.7,
    ),
    "log": Target(lambda: files_of(_log), (LOG,), _read_log, json.dumps, _log_nonsense),
    "scores": Target(
        lambda: files_of(_scores), ("scores.json",), _read_scores, lambda found: found[1], _scores_nonsense
    ),
    "detector": Target(
        lambda: files_of(_detector_files),
        (".safetensors",),
        _load_detector,
        _detector_content,
        _detector_nonsense,
        share=0.7,
    ),
    "exported student": Target(
        lambda: files_of(_exported), (".safetensors",), _load_detector, _detector_content, _detector_nonsense, share=0.7
    ),
    "detector checkpoint": Target(
        lambda: files_of(_detector_run),
        ("run/checkpoint.safetensors", "run/checkpoint.previous.safetensors"),
        _resume_detector,
        digest,
        _weights_nonsense,
        falls_back=("run/checkpoint.safetensors", "run/checkpoint.previous.safetensors"),
        share=0.4,
    ),
    "detector run.json": Target(
        lambda: files_of(_detector_command_run),
        (MANIFEST,),
        _resume_detector_command,
        digest,
        _other_weights,
        share=0.4,
    ),
    "prototypes": Target(
        lambda: files_of(_prototypes), (".safetensors",), _read_prototypes, _prototypes_content, _prototypes_nonsense
    ),
    "npz": Target(
        lambda: files_of(_npz), (".npz", ".classes.txt"), _read_npz, _source_content, _npz_nonsense, share=1.5
    ),
    "image folder": Target(
        lambda: files_of(_pictures), (".png", ".jpg", ".tif", ".gif"), _read_folder, _source_content, _folder_nonsense
    ),
    "COCO": Target(
        lambda: files_of(_coco), (".json",), _opener("coco"), _boxes_content, _coco_nonsense, reads_file=True, share=1.5
    ),
    "COCO pictures": Target(
        lambda: files_of(_coco), (".png",), _opener("coco"), _boxes_content, _boxes_nonsense, share=0.7
    ),
    "VOC": Target(
        lambda: files_of(_voc), (".xml",), _opener("voc"), _boxes_content, _voc_nonsense, reads_file=True, share=1.5
    ),
    "VOC lists": Target(lambda: files_of(_voc), (".txt",), _opener("voc"), _boxes_content, _boxes_nonsense),
    "YOLO": Target(
        lambda: files_of(_yolo),
        ("0.txt", "1.txt"),
        _opener("yolo"),
        _boxes_content,
        _yolo_nonsense,
        reads_file=True,
        share=1.5,
    ),
    "data.yaml": Target(lambda: files_of(_yolo), (".yaml",), _opener("yolo"), _boxes_content, _splits_there),
}
"""Every kind of file that distil reads, by the name that --targets takes."""
