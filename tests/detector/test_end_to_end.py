"""torchvision's detectors, small, on scenes: trained, distilled, judged, and dealt to two processes."""

import json
import os
import signal
from functools import cache
from pathlib import Path

import pytest

from distil.data.detection.scenes import SceneSettings, scenes_source
from distil.detector.adapters import adapt
from distil.detector.preflight import preflight
from distil.detector.training.prediction import predict
from distil.detector.training.train import train_detector
from distil.detector.training.trainer import BEST, LAST
from distil.errors import DistilError
from distil.evaluation.precision import average_precision
from distil.files import load_tensors
from distil.networks.detectors import Architecture, build_detector, load_detector
from distil.runs import Interrupted
from tests.forked import in_two_processes

from .tiny import Recorder, tiny_settings

DETECTORS = ("faster-rcnn", "retinanet", "fcos")


@cache
def scenes():
    settings = SceneSettings(size=64, classes=3, objects=(1, 3), sides=(14, 30))
    return scenes_source(10, 3, 4, settings=settings)


def architecture(detector, backbone="resnet18", **changes):
    fields = {
        "channels": 64 if detector == "fcos" else 32,
        "min_size": 64,
        "max_size": 64,
        "norm": "group",
        "anchor": 12.0,
        "head_convs": 1,
    }
    return Architecture(detector, backbone, scenes().train.classes, representation=32, **{**fields, **changes})


def made_teacher(detector, **changes):
    return adapt(build_detector(architecture(detector, **changes), seed=9))


def settings_of(detector, **changes):
    fields = {"epochs": 2, "batch": 5, "lr": 0.002, "prototype_side": 10.0, "loss": "gkd,pkd", **changes}
    return tiny_settings(**fields)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_student_is_distilled_judged_and_exported(tmp_path, detector):
    source, log = scenes(), Recorder()
    path = train_detector(
        architecture(detector),
        source.train,
        settings_of(detector),
        out=tmp_path,
        teacher=made_teacher(detector, channels=96),
        validation=source.val,
        measure=average_precision,
        events=log,
    )
    assert path == tmp_path / BEST
    losses = log.of("step")[-1]["losses"]
    assert {"gkd.global", "gkd.foreground", "gkd.background", "gkd.soft", "pkd"} < set(losses)
    assert [x["epoch"] for x in log.of("validation")] == [1, 2]
    student, made, extra = load_detector(path)
    plain = build_detector(made, seed=1)
    plain.load_state_dict(student.state_dict(), strict=True)
    assert made == architecture(detector)
    assert extra["settings"]["distillation"]["loss"] == "gkd,pkd"
    found = predict(adapt(plain), source.test, batch=2)  # pyright: ignore[reportArgumentType]
    truths = [source.test.annotations(index) for index in range(len(source.test))]  # pyright: ignore
    assert average_precision(found, truths, source.test.classes).images == 4


def test_a_pair_of_other_backbones_and_strides_passes_the_preflight():
    settings = settings_of("faster-rcnn", teacher_floor=0.0)
    teacher = made_teacher("faster-rcnn", backbone="timm:resnet10t", channels=64, finest=8)
    result = preflight(
        architecture("faster-rcnn"), teacher, scenes().train, settings, measure=average_precision, repeats=1
    )
    found = {check.what: check for check in result.checks}
    assert result.fatal == ()
    assert found["strides"].found == "student 4, 8, 16, 32, 64, teacher 8, 16, 32, 64, common 8, 16, 32, 64"
    assert found["classes"].found == "the teacher knows 3 of the data's 3 classes"
    assert sum(result.shares.values()) == pytest.approx(1)
    assert "loss loss_objectness" in found


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet"])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, detector):
    settings = settings_of(
        detector, prototype_start=0, epochs=1, batch=3, optimizer="adamw", flip=0.5, scale=(0.8, 1.2)
    )

    def interrupt(name, **fields):
        if name == "step" and fields["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    def train(out, **options):
        student, teacher = architecture(detector, norm="batch"), made_teacher(detector)
        return train_detector(student, scenes().train, settings, out=out, teacher=teacher, **options)

    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted, match=r"stopped after step 2 of 4: continue with distil detector train --resume"):
        train(tmp_path / "stopped", events=interrupt)
    again = train(tmp_path / "stopped", resume=True)
    assert again.read_bytes() == whole.read_bytes()


def test_losses_that_a_pair_cannot_share_are_told_by_the_preflight():
    teacher = made_teacher("retinanet")
    result = preflight(architecture("faster-rcnn"), teacher, scenes().train, settings_of("", loss="gkd,crosskd"))
    (problem,) = result.fatal
    assert problem.startswith(
        "losses: gkd compares class responses, but the student's end in a softmax and the teacher's"
    )
    assert problem.endswith("Choose other losses (loss), or another teacher.")


def test_heads_of_two_kinds_share_features_but_no_soft_labels(tmp_path):
    settings = settings_of("retinanet", epochs=1, loss="pkd")
    options = {"out": tmp_path, "teacher": made_teacher("faster-rcnn"), "events": (log := Recorder())}
    train_detector(architecture("retinanet"), scenes().train, settings, **options)
    assert log.of("step")[-1]["losses"]["pkd"] > 0
    with pytest.raises(DistilError, match=r"gkd compares class responses"):
        train_detector(
            architecture("retinanet"),
            scenes().train,
            settings_of("retinanet"),
            out=tmp_path / "gkd",
            teacher=made_teacher("faster-rcnn"),
        )


def train_for_processes(folder):
    for detector in ("faster-rcnn", "retinanet"):
        options = {"teacher": made_teacher(detector), "events": (log := Recorder())}
        options |= {"validation": scenes().val, "measure": average_precision}
        settings = settings_of(detector, prototype_start=0, epochs=1, lr=0.01)
        train_detector(architecture(detector), scenes().train, settings, out=Path(folder) / detector, **options)
        if log.events:
            (Path(folder) / f"{detector}.json").write_text(json.dumps(log.of("step")))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    told = tmp_path / "told.txt"
    assert in_two_processes(train_for_processes, tmp_path / "two", told=told) == [0, 0], told.read_text()
    train_for_processes(tmp_path / "one")
    for detector in ("faster-rcnn", "retinanet"):
        one, two = (json.loads((tmp_path / folder / f"{detector}.json").read_text()) for folder in ("one", "two"))
        assert len(one) == 2
        assert (tmp_path / "two" / detector / BEST).is_file()
        for alone, both in zip(one, two, strict=True):
            assert "gkd.global" in alone["losses"]
            assert both["losses"] == pytest.approx(alone["losses"], rel=1e-3, abs=1e-6)
        first = build_detector(architecture(detector), seed=0).state_dict()
        learned, together = (load_tensors(tmp_path / folder / detector / LAST)[0] for folder in ("one", "two"))
        # apart by no more than rounding: a thousandth of the way that they went
        apart = sum(float((together[name] - x).double().square().sum()) for name, x in learned.items()) ** 0.5
        way = sum(float((x - first[name]).double().square().sum()) for name, x in learned.items()) ** 0.5
        assert way > 1e-3
        assert apart < 1e-3 * way
