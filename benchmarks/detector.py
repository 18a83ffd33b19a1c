"""Detectors at equal budget, trained from random weights: the tables of docs/detector.md.

    python benchmarks/detector.py teacher coco:FOLDER retinanet OUT
    python benchmarks/detector.py compare coco:FOLDER retinanet OUT --arms gkd pkd gkd,pkd --seeds 0 1 2
    python benchmarks/detector.py keep OUT NAME

`teacher` trains the teacher once, in OUT/teacher. `compare` trains students in OUT/students, without a teacher and
with each of --arms; what is done is not done again, so several may share OUT with different --seeds, and a last one
with all seeds writes the table. `keep` copies it to benchmarks/results/detector-NAME.*. Arms are knowledge as
--knowledge takes it; after a slash, settings to change: gkd/use_global=False, gkd/reliability=one.
"""

import argparse
import json
import shutil
from ast import literal_eval
from dataclasses import replace
from pathlib import Path

import torch

from distil import Architecture, adapt, average_precision, compare_detectors, load_detector, open_detection
from distil.detector.adapters import freeze
from distil.detector_presets import detector_preset
from distil.report.progress import show_progress
from distil.settings import DetectorSettings
from distil.sources.detection import DetectionSource

RESULTS = Path(__file__).parent / "results"

SMALL_IMAGES = {"norm": "group", "min_size": 192, "max_size": 256, "anchor": 16.0, "head_convs": 1}
TEACHER = {"backbone": "timm:resnet10t", "channels": 64, "representation": 256}
STUDENT = {"backbone": "timm:test_resnet", "channels": 48, "representation": 128}
BUDGET = {
    "batch": 8,
    "optimiser": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "milestones": (0.7, 0.9),
    "warmup": 50,
    "clip": 10.0,
    "flip": 0.5,
    "colour": 0.2,
    "scale": (0.8, 1.25),
    "prototype_side": 10.0,
    "prototype_every": 4,
    "prototype_images": 100,
}


def budget(method: str, **changes) -> DetectorSettings:
    return replace(detector_preset(method, "custom"), **(BUDGET | changes))


def shape(kind: str, data: DetectionSource, values: dict) -> Architecture:
    finest = {"finest": 8} if kind == "faster-rcnn" else {}
    return Architecture(kind, classes=data.train.classes, **SMALL_IMAGES, **finest, **values)


def arm(text: str, epochs: int) -> DetectorSettings:
    knowledge, _, changes = text.partition("/")
    pairs = (change.split("=", 1) for change in changes.split(",") if change)
    values = {name: literal_eval(value) if value[0] in "0123456789TF-" else value for name, value in pairs}
    return budget("gkd", knowledge=knowledge, epochs=epochs, evaluate_every=epochs, **values)


def train_teacher(args: argparse.Namespace) -> None:
    from distil import train_detector

    data = open_detection(args.source)
    settings = budget("plain", epochs=args.epochs or 30, evaluate_every=3)
    with show_progress(f"teacher on {data.train.name}") as shown:
        train_detector(
            shape(args.kind, data, TEACHER),
            data.train,
            settings,
            out=args.out / "teacher",
            validation=data.val,
            measure=average_precision,
            resume=True,
            events=shown,
        )


def compare(args: argparse.Namespace) -> None:
    data = open_detection(args.source)
    test = data.test or data.val
    teacher = adapt(load_detector(args.out / "teacher" / "best.safetensors")[0])
    freeze(teacher)
    epochs = args.epochs or 20
    contenders = {"plain": budget("plain", epochs=epochs, evaluate_every=epochs)}
    contenders |= {text.replace("/", " "): arm(text, epochs) for text in args.arms}
    with show_progress(f"students on {data.train.name}") as shown:
        made = compare_detectors(
            shape(args.kind, data, STUDENT),
            teacher,
            data.train,
            test,
            contenders,
            seeds=args.seeds,
            out=args.out / "students",
            validation=data.val if data.test is not None else None,
            measure=average_precision,
            events=shown,
        )
    print(made.to_markdown())


def keep(args: argparse.Namespace) -> None:
    made = json.loads((args.out / "students" / "comparison.json").read_text())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"detector-{args.name}.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    shutil.copyfile(args.out / "students" / "comparison.md", RESULTS / f"detector-{args.name}.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    for name, action in (("teacher", train_teacher), ("compare", compare)):
        part = parts.add_parser(name)
        part.set_defaults(action=action)
        part.add_argument("source")
        part.add_argument("kind", choices=["faster-rcnn", "retinanet", "fcos"])
        part.add_argument("out", type=Path)
        part.add_argument("--epochs", type=int, default=0)
        part.add_argument("--threads", type=int, default=torch.get_num_threads())
        part.add_argument("--arms", nargs="+", default=["gkd"])
        part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    part = parts.add_parser("keep")
    part.set_defaults(action=keep)
    part.add_argument("out", type=Path)
    part.add_argument("name")
    args = parser.parse_args()
    if "threads" in args:
        torch.set_num_threads(args.threads)
    args.action(args)


if __name__ == "__main__":
    main()
