"""Detectors at equal budget, trained from random weights: the tables of docs/results/detector.md.

    python benchmarks/detector.py teacher coco:FOLDER retinanet OUT
    python benchmarks/detector.py compare coco:FOLDER retinanet OUT --arms gkd pkd gkd,pkd --seeds 0 1 2
    python benchmarks/detector.py cost coco:FOLDER retinanet OUT --threads 1
    python benchmarks/detector.py cost coco:FOLDER retinanet --published --rounds 3 --arms gkd/batch=2
    python benchmarks/detector.py tags scenes:480 retinanet OUT NAME
    python benchmarks/detector.py angles scenes:480 OUT
    python benchmarks/detector.py keep OUT NAME

`teacher` trains the teacher once, in OUT/teacher. `compare` trains students in OUT/students, without a teacher and
with each of --arms; what is done is not done again, so several may share OUT with different --seeds, and a last one
with all seeds writes the table. `cost` adds to benchmarks/results/detector-cost.jsonl the processor seconds of a step
and of a choice of prototypes, in one run, and the losses of a first step; --published: of ResNet-101 and ResNet-50 at
800 x 1333 with random weights, for which OUT is not needed. `keep` copies the table and the students' AP
on validation images to benchmarks/results/detector-NAME.*. `tags` judges the students of a comparison on scenes by
kind of hard object, in benchmarks/results/detector-NAME-tags.md. `angles` adds to detector-angles.jsonl what cosines
between objects and prototypes tell of the class, on every level, of OUT's finished student gkd, seed 0. Arms are
losses as --loss takes them; after a slash, settings to change: gkd/use_global=False, gkd/reliability=one. They
begin with the published weights (--method gkd-published --loss-form distil); "gkd/ours" is the preset gkd.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev

import torch
from torch import nn

from distil import Architecture, adapt, average_precision, compare_detectors, load_detector, open_detection
from distil.data.detection.detection_set import DetectionSet, DetectionSource
from distil.data.detection.transforms import loader
from distil.detector.adapters import common_levels, freeze
from distil.detector.gkd.feature_bank import FeatureBank
from distil.detector.gkd.generation import choose_candidates, pool_candidates, prototypes_among
from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.losses.base import DistillationLoss
from distil.detector.presets import FROM_NOTHING, OURS, detector_preset, student_preset
from distil.detector.settings import DetectorSettings, PrototypeSettings
from distil.detector.training.prediction import predict
from distil.detector.training.setup import make_augmentation, make_losses, make_student
from distil.detector.training.step import Step, Work
from distil.evaluation.precision import precision_by_tag
from distil.fields import leaves, with_values
from distil.files import load_tensors
from distil.functional.prototypes import projection
from distil.memory import freed_memory_kept
from distil.networks.detectors import build_detector
from distil.report.progress import show_progress
from distil.types import Trace, View
from held_out import value_of

RESULTS = Path(__file__).parent / "results"

SMALL_IMAGES = {"norm": "group", "min_size": 192, "max_size": 256, "anchor": 16.0, "head_convs": 1}
TEACHER = {"backbone": "timm:resnet10t", "channels": 64, "representation": 256}
STUDENT = {"backbone": "timm:test_resnet", "channels": 48, "representation": 128}
PUBLISHED = {"teacher": "resnet101", "student": "resnet50"}
CALM = 0.2
"""Their weights are random and their norms frozen: every residual is scaled by this to stay finite."""
OURS_WORDS = ",".join(f"{name}={value}" for name, value in OURS.items())
BUDGET = {
    **FROM_NOTHING,
    "batch": 8,
    "flip": 0.5,
    "color": 0.2,
    "scale": (0.8, 1.25),
    "prototype_side": 10.0,
}


def judged_on(data: DetectionSource) -> DetectionSet:
    """Test images, or validation images where there are no others."""
    images = data.test or data.val
    if images is None:
        raise SystemExit(f"{data.train.name} has neither test nor validation images to judge on")
    return images


def budget(method: str, source: str, **changes) -> DetectorSettings:
    """Settings of an arm; gkd begins with the published weights, and an arm names what it changes."""
    published = detector_preset("gkd-published", "custom")
    values = {leaf.name: leaf.value for leaf in leaves(published)}
    weights = {name: values[name] for name in OURS if name != "loss_form"}
    changes = weights | changes if method == "gkd" else changes
    if source.startswith("scenes"):
        return with_values(detector_preset(method, "scenes"), **changes)
    return with_values(detector_preset(method, "custom"), **(BUDGET | changes))


def shape(kind: str, data: DetectionSource, values: dict) -> Architecture:
    if data.train.name.startswith("scenes"):
        return Architecture(classes=data.train.classes, **student_preset(kind, "scenes", teacher=values is TEACHER))
    two_stage = {"finest": 8, "proposals": 300, "sampled": 128} if kind == "faster-rcnn" else {}
    fields: dict = {"detector": kind, **SMALL_IMAGES, **two_stage, **values}
    return Architecture(classes=data.train.classes, **fields)


def arm(text: str, source: str, epochs: int) -> DetectorSettings:
    loss, _, changes = text.partition("/")
    pairs = [change.split("=", 1) for change in changes.replace("ours", OURS_WORDS).split(",") if change]
    values = {name: value_of(value) for name, value in pairs}
    return budget("gkd", source, loss=loss, epochs=epochs, evaluate_every=epochs, **values)


def train_teacher(args: argparse.Namespace) -> None:
    from distil import train_detector

    data = open_detection(args.source)
    settings = budget("plain", args.source, epochs=args.epochs or 30, evaluate_every=3)
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
    test = judged_on(data)
    teacher = adapt(load_detector(args.out / "teacher" / "best.safetensors")[0])
    freeze(teacher)
    epochs = args.epochs or 20
    variants = {"plain": budget("plain", args.source, epochs=epochs, evaluate_every=epochs)}
    variants |= {text.replace("/", " "): arm(text, args.source, epochs) for text in args.arms}
    with show_progress(f"students on {data.train.name}") as shown:
        made = compare_detectors(
            shape(args.kind, data, STUDENT),
            teacher,
            data.train,
            test,
            variants,
            seeds=args.seeds,
            out=args.out / "students",
            validation=data.val if data.test is not None else None,
            measure=average_precision,
            events=shown,
        )
    print(made.to_markdown())


def cost(args: argparse.Namespace) -> None:
    """Processor seconds of a step: plain, of the teacher's pass on its instances, and with each arm's losses."""
    data = open_detection(args.source)
    if args.published:
        teacher = adapt(calm(build_detector(published(args.kind, data, "teacher"), seed=0)))
    else:
        teacher = adapt(load_detector(args.out / "teacher" / "best.safetensors")[0])
    freeze(teacher)
    line = {"kind": args.kind, "threads": args.threads, "source": Path(args.source).name, "arms": {}}
    line |= {"published": PUBLISHED} if args.published else {}
    with freed_memory_kept():
        for text in args.arms:
            settings = arm(text, args.source, 20)
            what = published(args.kind, data, "student") if args.published else shape(args.kind, data, STUDENT)
            training = settings.training
            _, student = make_student(what, training.seed, data.train, None)
            if args.published:
                calm(student.model)
            step = Step(student, *make_losses(student, teacher, None, data.train, settings)).train()
            how = replace(settings.distillation.prototypes, **({"images": 4} if args.published else {}))
            candidates = choose_candidates(data.train, how, training.seed)
            pairs = common_levels(student.strides, teacher.strides)
            began = time.process_time()
            features = pool_candidates(student, teacher, data.train, candidates, pairs, training.batch)
            passed = time.process_time() - began
            part = next(part for part in step.parts if isinstance(part, GlobalKnowledge))
            strides = part.strides
            began = time.process_time()
            prototypes = prototypes_among(
                candidates, features, data.train, strides, how, epoch=0, device=torch.device("cpu")
            )
            chosen = time.process_time() - began
            part.use(prototypes)
            if how.features == "training":
                part.schedule.bank = FeatureBank(candidates, len(strides), part.channels)
            options = {"shuffle": True, "augmentation": make_augmentation(training)}
            batch = next(iter(loader(data.train, batch=training.batch, seed=0, epoch=0, **options)))
            targets = [{key: target[key] for key in ("boxes", "labels")} for _, target in batch]
            view = student.view([image for image, _ in batch], targets, seeds=list(range(len(batch))))
            trace = student.trace(view)
            calls = {
                "plain": lambda step=step, view=view: learn(step, Work(view)),
                "teacher": lambda view=view, trace=trace: teacher.trace(view, regions=trace),
                "distilled": lambda step=step, view=view: learn(step, Work(view, teacher, 0.0)),
            }
            with torch.no_grad():
                taught = teacher.trace(teacher.restyle(view), regions=trace)
            maps = [x.detach().requires_grad_() for x in trace.pyramid]
            alone = replace(trace, pyramid=tuple(maps), logits=trace.logits.detach().requires_grad_())
            calls["losses"] = lambda step=step, alone=alone, taught=taught, view=view: learn_from(
                step.parts, alone, taught, view
            )
            calls["gathering"] = lambda batch=batch, part=part: part.after_step([target for _, target in batch])
            rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(args.rounds)]
            spent = {name: round(median(each[name] for each in rounds), 4) for name in calls}
            over = median(each["distilled"] / (each["plain"] + each["teacher"]) for each in rounds)
            with torch.no_grad():
                losses = {name: round(float(loss), 4) for name, loss in step(Work(view, teacher, 0.0))[0].items()}
            line["arms"][text] = {
                **spent,
                "over_floor": round(over, 3),
                "losses_share": round(spent["losses"] / spent["distilled"], 3),
                "choosing": round(chosen, 2),
                "pass_for_features": round(passed, 2),
                "instances": len(trace.labels),
                "candidates": len(candidates.labels),
                "prototype_images": len(prototypes.images.unique()),
                "steps_an_epoch": -(-len(data.train) // training.batch),
                "losses": losses,
            }
    print(json.dumps(line, indent=1))
    with open(RESULTS / "detector-cost.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def learn_from(losses: Sequence[DistillationLoss], student: Trace, teacher: Trace, view: View) -> None:
    """Backward through what the teacher adds, to the student's maps and logits."""
    values = [value for loss in losses for value in loss(student, teacher, view, 0.0).values()]
    torch.stack(values).sum().backward()


def published(kind: str, data: DetectionSource, role: str) -> Architecture:
    """torchvision's own sizes: 256 channels, 800 x 1333, frozen norms."""
    fields: dict = {"detector": kind, "backbone": PUBLISHED[role]}
    return Architecture(classes=data.train.classes, **fields)


def calm(model: nn.Module) -> nn.Module:
    for name, module in model.named_modules():
        if name.endswith(".bn3"):
            nn.init.constant_(module.get_buffer("weight"), CALM)
    return model


def learn(step: Step, work: Work) -> None:
    losses, _ = step(work)
    torch.stack(list(losses.values())).sum().backward()
    step.zero_grad()


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def tags(args: argparse.Namespace) -> None:
    """AP of every kind of hard object, mean and standard error over the seeds, and gains over plain seed by seed."""
    data = open_detection(args.source).test
    assert data is not None
    found: dict[str, dict[str, list[float]]] = {}
    objects: dict[str, int] = {}
    for path in sorted((args.out / "students").glob("*/seed-*/best.safetensors")):
        table = precision_by_tag(predict(adapt(load_detector(path)[0]), data), data)
        for kind, score in table.items():
            found.setdefault(path.parent.parent.name, {}).setdefault(kind, []).append(score.ap)
            objects[kind] = score.objects
    head = " | ".join(f"{kind} ({count} objects)" for kind, count in objects.items())
    lines = [f"| AP of | {head} |", "|---" * (1 + len(objects)) + "|"]
    for name in sorted(found, key=lambda name: name != "plain"):
        cells = []
        for kind, values in found[name].items():
            gains = [own - base for own, base in zip(values, found["plain"][kind], strict=True)]
            cells.append(mean_error(values) + ("" if name == "plain" else f" ({mean_error(gains, '+')})"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    (RESULTS / f"detector-{args.name}-tags.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def angles(args: argparse.Namespace) -> None:
    """Cosines of test objects to prototypes of their own and of other classes, about zero and about their mean."""
    data = open_detection(args.source)
    test = judged_on(data)
    folder = args.out / "students" / "gkd" / "seed-0"
    model, architecture, _ = load_detector(folder / "best.safetensors")
    student = adapt(model)
    teacher = adapt(load_detector(args.out / "teacher" / "best.safetensors")[0])
    prototypes = PrototypeSet.load(sorted(folder.glob("prototypes-*.safetensors"))[-1])
    objects = choose_candidates(test, PrototypeSettings(side=0.0), 0)
    pairs = common_levels(student.strides, teacher.strides)
    pooled = pool_candidates(student, teacher, test, objects, pairs, 8)
    for level, stride in enumerate(prototypes.strides):
        some = prototypes.of(level)
        same = objects.labels[:, None] == some.labels
        line: dict = {
            "source": Path(args.source).name,
            "detector": architecture.detector,
            "stride": stride,
            "objects": len(objects.labels),
        }
        for who, features, basis in (("student", pooled[0], some.student), ("teacher", pooled[1], some.teacher)):
            features = features[level]
            mean = features.mean(0)
            raw = projection(features, basis, "cosine")
            centered = projection(features - mean, basis - mean, "cosine")
            line[who] = {
                "share of the mean": float(mean.square().sum() / features.square().sum(1).mean()),
                "own class": float(raw[same].mean()),
                "other classes": float(raw[~same].mean()),
                "own class, about the mean": float(centered[same].mean()),
                "other classes, about the mean": float(centered[~same].mean()),
            }
            line[who] = {name: round(value, 3) for name, value in line[who].items()}
        print(json.dumps(line))
        with open(RESULTS / "detector-angles.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def mean_error(values: list[float], sign: str = "") -> str:
    error = f" ± {stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{fmean(values):{sign}.1f}{error}"


def keep(args: argparse.Namespace) -> None:
    made = json.loads((args.out / "students" / "comparison.json").read_text())
    made["validation_ap"] = {}
    for path in sorted((args.out / "students").glob("*/seed-*/result.json")):
        history = load_tensors(path.parent / "checkpoint.safetensors")[1]["history"]
        if history:
            made["validation_ap"][str(path.parent.relative_to(args.out / "students"))] = history[-1]["ap"]
    (RESULTS / f"detector-{args.name}.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    shutil.copyfile(args.out / "students" / "comparison.md", RESULTS / f"detector-{args.name}.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    for name, action in (("teacher", train_teacher), ("compare", compare), ("cost", cost)):
        part = parts.add_parser(name)
        part.set_defaults(action=action)
        part.add_argument("source")
        part.add_argument("kind", choices=["faster-rcnn", "retinanet", "fcos"])
        part.add_argument("out", type=Path, nargs="?" if name == "cost" else None)
        part.add_argument("--epochs", type=int, default=0)
        part.add_argument("--threads", type=int, default=torch.get_num_threads())
        part.add_argument("--arms", nargs="+", default=["gkd"])
        part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
        if name == "cost":
            part.add_argument("--published", action="store_true")
            part.add_argument("--rounds", type=int, default=9)
    part = parts.add_parser("tags")
    part.set_defaults(action=tags)
    part.add_argument("source")
    part.add_argument("kind")
    part.add_argument("out", type=Path)
    part.add_argument("name")
    part = parts.add_parser("angles")
    part.set_defaults(action=angles)
    part.add_argument("source")
    part.add_argument("out", type=Path)
    part = parts.add_parser("keep")
    part.set_defaults(action=keep)
    part.add_argument("out", type=Path)
    part.add_argument("name")
    args = parser.parse_args()
    if "threads" in args:
        torch.set_num_threads(args.threads)
    if args.action is cost and not args.published and args.out is None:
        parser.error("cost needs OUT, the folder of a teacher, unless --published is given")
    args.action(args)


if __name__ == "__main__":
    main()
