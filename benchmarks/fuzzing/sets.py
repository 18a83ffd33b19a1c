"""Distilled sets, runs that make them, their logs and their scores."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distil.data.images.opener import ImageSet
from distil.dataset.config import Matching, Response, Uniform
from distil.dataset.distil import distil_dataset
from distil.dataset.methods import preset
from distil.distilled_set.record import DistilledSet
from distil.parameterizations.crops import Crops
from distil.parameterizations.dct import Dct
from distil.report.scores import add_scores, read_scores
from distil.runs import CHECKPOINT, LOG, MANIFEST, PREVIOUS, PROXY, RESULT, EventLog, read_log

from .target import (
    Case,
    Files,
    Target,
    bad_names,
    broken_state,
    command,
    digest,
    files_of,
    first_of,
    named_from_here,
    not_finite,
)

LARGEST = 1e6
"""Views with numbers beyond this, which should lie near [0, 1], are nonsense."""


def _set_files(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    params = torch.randint(0, 256, (3, 1, 8, 8), generator=generator, dtype=torch.uint8)
    quarters = torch.tensor([[[0.0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]]])
    described: dict[str, Any] = {
        "classes": ("cat", "dog", "bird"),
        "mean": (0.4,),
        "std": (0.2,),
        "method": "idc",
        "settings": {"ipc": 1, "lr_image": 0.02, "seed": 0},
        "seed": 0,
        "source": "animals",
        "source_fingerprint": "0" * 64,
    }
    cells = Crops(quarters, (8, 8))
    grid = DistilledSet(params=params, labels=torch.arange(3), parameterization=cells, **described)
    grid.save(folder / "grid.safetensors")
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]])
    unlike = torch.cat([quarters, quarters + 1, quarters])
    used = Crops(unlike, (8, 8), utilization=torch.rand(3, 8, 8, generator=generator))
    floats = params.float() / 255
    replace(grid, params=floats, labels=soft, parameterization=used).save(folder / "soft.safetensors")
    kept = torch.tensor([0, 1, 2, 3, 8, 9, 10, 16])
    placed = Dct(kept, (1, 8, 8), 4, torch.linspace(1, 4, 8))
    replace(grid, parameterization=placed, method="udd").save(folder / "cosines.safetensors")


def _set_nonsense(found: DistilledSet, case: Case) -> str:
    views = found.decoded()
    normalized = found.dataset()
    images = torch.stack([normalized[i][0] for i in range(len(normalized))])
    labels = views.labels
    soft = labels.is_floating_point()
    return first_of(
        bad_names(found.classes),
        not_finite({"views": views.images, "normalized views": images, "labels": labels}),
        "views leave all bounds" if max(float(views.images.abs().max()), float(images.abs().max())) > LARGEST else "",
        "labels out of range"
        if not soft and not 0 <= int(labels.min()) <= int(labels.max()) < len(found.classes)
        else "",
        "soft labels are no probabilities" if soft and not bool(((labels.sum(-1) - 1).abs() < 0.01).all()) else "",
        "as many views as labels are expected" if len(labels) != len(images) else "",
    )


def _set_content(found: DistilledSet) -> Any:
    return json.dumps(found.header(), sort_keys=True), digest(found.stored())


# Runs that distil a set


def _images() -> ImageSet:
    draws = np.random.default_rng(2)
    images = torch.from_numpy(draws.integers(0, 256, (16, 1, 8, 8), dtype=np.uint8))
    return ImageSet(images, torch.arange(16) % 2, ("even", "odd"), (0.5,), (0.25,), "numbers")


def _settings(method: str) -> Matching:
    settings = preset(method, "custom", 1, "published", seed=3)
    assert isinstance(settings, Matching)
    tiny: dict[str, Any] = {"width": 4, "outer": 3, "inner": 1, "sampler": Uniform(4), "validation": 0.0}
    tiny["optimizer"] = replace(settings.optimizer, lr=0.01)
    if hasattr(settings.networks, "samples"):
        tiny["networks"] = replace(settings.networks, samples=4)
    if method == "udd-windows":
        windows = {"policy": Response(1), "refresh": 1, "windows_start": 0.0, "windows_freeze": 0.0}
        tiny["parameterization"] = replace(settings.parameterization, **windows)
    return replace(settings, **tiny)


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
    if case.content is not None and (reason := broken_state(case.content)):
        return f"continued from a state in which {reason}"
    return _set_nonsense(found, case)


def _command_run(folder: Path) -> None:
    draws = np.random.default_rng(2)
    arrays = {f"x_{split}": draws.integers(0, 256, (12, 8, 8), dtype=np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(12) % 2 for split in ("train", "test")}
    np.savez(folder / "numbers.npz", **arrays)  # pyright: ignore[reportArgumentType]
    words = "--width 4 --outer 1 --inner 2 --batch 4 --network-samples 4 --validations 1 --checkpoint-seconds 0"
    command("dataset", "idc", "numbers.npz", "--out", "run", "--device", "cpu", *words.split())
    (folder / "run" / RESULT).unlink()
    named_from_here(folder)


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
    """Rows as they are written today, and one as version 0.1 wrote it, which could not tell its protocol's version."""
    row = {
        **{"name": "set", "method": "idc", "images_per_class": 1, "views": 40, "bytes": 2570, "protocol": "quick"},
        "protocol_version": 2,
        **{"protocol_settings": {"epochs": 3, "milestones": [0.5]}, "width": 8, "seed": 0, "test": "digits test"},
        **{"test_images": 360, "updates": 600, "runs": 2, "file_sha256": "1" * 64, "test_fingerprint": "2" * 64},
        "networks": {"convnet3": {"accuracies": [80.5, 81.5], "mean": 81.0, "std": 0.5**0.5}},
        **{"versions": {"distil": "0.2"}, "path": "/tmp/set"},
    }
    add_scores(folder / "scores.json", row)
    add_scores(folder / "scores.json", {**row, "name": "other", "file_sha256": None, "path": "/tmp/other"})
    older = {name: value for name, value in row.items() if name != "protocol_version"}
    add_scores(folder / "scores.json", {**older, "name": "older", "versions": {"distil": "0.1"}, "path": "/tmp/older"})


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


LOG_SEED = files_of(_log)[LOG]

SETS: dict[str, Target] = {
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
}
