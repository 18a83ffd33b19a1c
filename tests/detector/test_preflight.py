"""preflight: what it tells of two detectors, and that it changes neither."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from distil.detector.preflight import Check, Preflight, preflight
from distil.errors import DistilError

from .test_training import Breaking
from .tiny import CLASSES, cells, scripted, squares, tiny_settings


def look(student=None, teacher=None, measure=None, data=None, settings=None, **options):
    settings = settings or tiny_settings(loss="gkd,pkd")
    return preflight(
        student or cells(), teacher or cells(5, width=8), data or squares(), settings, measure=measure, **options
    )


def by_name(result):
    return {check.what: check for check in result.checks}


def test_a_sound_pair_passes_and_the_table_tells_it_all():
    result = look(measure=scripted(40.0), images=10)
    found = by_name(result)
    assert result.fatal == ()
    assert found["data"].found == "13 images, 18 objects, 2 classes"
    assert found["teacher's AP50"].found == "40.0 % (AP 40.0 %) on 10 training images"
    assert found["strides"].found == "student 8, 16, teacher 8, 16, common 8, 16"
    assert found["channels"].found == "student 6, teacher 8: losses on maps adapt the student's by convolutions"
    assert found["classes"].found == "the teacher knows 2 of the data's 2 classes"
    assert found["teacher"].found == "frozen and in eval mode, after steps too"
    assert "prototypes from" in found["prototypes"].found
    own = {"class", "size", "gkd.global", "gkd.foreground", "gkd.background", "gkd.soft", "pkd"}
    assert set(result.losses) == set(result.shares) == own
    assert sum(result.shares.values()) == pytest.approx(1)
    assert all(found[f"loss {name}"].verdict == "good" for name in own)
    assert set(result.seconds) == {"plain", "distilled"}
    assert f"{result.seconds['distilled'] / result.seconds['plain']:.2f} x" in found["step"].found
    assert result.teacher == {"ap": 40.0, "ap50": 40.0}
    json.dumps(result.to_dict())


def test_the_student_is_as_it_was_and_the_teacher_has_no_gradient():
    student, teacher = cells(), cells(5)
    student.model.head.eval()
    before = {name: x.clone() for name, x in student.model.state_dict().items()}
    torch.manual_seed(1)
    want = torch.rand(3)
    torch.manual_seed(1)
    look(student, teacher, scripted(40.0))
    assert torch.equal(torch.rand(3), want)
    assert all(torch.equal(x, before[name]) for name, x in student.model.state_dict().items())
    assert all(p.grad is None for model in (student.model, teacher.model) for p in model.parameters())
    assert student.model.training
    assert not student.model.head.training


class Weighted:
    """The first loss once and three times: shares of the gradient that are known."""

    def __init__(self):
        self.adapter = cells()

    def __getattr__(self, name):
        return getattr(self.adapter, name)

    def trace(self, view, *, regions=None):
        trace = self.adapter.trace(view, regions=regions)
        size = trace.losses["size"]
        return replace(trace, losses={"one": size, "three": 3 * size, "none": size.detach()})


def test_shares_of_the_gradient_by_hand():
    result = look(Weighted(), settings=tiny_settings())
    assert result.shares == pytest.approx({"one": 0.25, "three": 0.75, "none": 0.0})
    assert result.losses["three"] == pytest.approx(3 * result.losses["one"])
    assert set(result.seconds) == {"plain"}
    assert "teacher's AP50" not in by_name(result)


def test_a_teacher_that_does_not_know_the_data_stops_it():
    result = look(measure=scripted(3.0))
    (problem,) = result.fatal
    assert problem.startswith(
        "teacher's AP50: 3.0 % (AP 3.0 %) on 13 training images. That is under teacher_floor=10: what it knows"
    )
    with pytest.raises(DistilError, match=r"^the preflight stops this run:\n- teacher's AP50: 3\.0 % \(AP"):
        result.refuse_if_fatal()
    told = look(measure=scripted(3.0), settings=tiny_settings(loss="pkd", teacher_floor=2.0))
    assert told.fatal == ()
    told.refuse_if_fatal()
    assert look(measure=scripted(math.nan)).fatal


def test_the_teachers_predictions_are_judged_in_the_datas_labels():
    seen = []

    def measure(predictions, annotations, classes):
        seen.extend(int(label) for found in predictions for label in found["labels"])
        return SimpleNamespace(ap=50.0, ap50=50.0)

    teacher = cells(5, classes=3)
    result = look(teacher=teacher, measure=measure, teacher_classes=("bright", "x", "y"))
    assert set(seen) == {1}
    check = by_name(result)["classes"]
    assert check.verdict == "look"
    assert check.found.startswith(
        "the teacher knows 1 of the data's 2 classes; unknown to the teacher: dark; 2 classes"
    )
    assert check.remedy == "Soft labels compare the common classes only; the other losses use all objects."
    assert f"classes: {check.found}. {check.remedy}" in result.problems
    assert result.fatal == ()


def test_no_common_class_no_common_stride_and_shared_weights_stop_it():
    result = look(teacher_classes=("cat", "dog"), measure=scripted())
    assert result.fatal[0].startswith("classes: the teacher knows none of the data's classes")
    other = cells(5)
    other.strides = (4, 32)  # pyright: ignore[reportAttributeAccessIssue]
    assert look(teacher=other, measure=scripted(40.0)).fatal[0].startswith("strides: ")
    student = cells()
    assert look(student, student, scripted(40.0)).fatal == (
        "teacher: it shares weights with the student. Give the teacher a model of its own.",
    )
    one = cells(5)
    one.strides = (8, 32)  # pyright: ignore[reportAttributeAccessIssue]
    check = by_name(look(teacher=one, measure=scripted(40.0), settings=tiny_settings(loss="pkd")))["strides"]
    assert (check.verdict, check.found) == ("look", "student 8, 16, teacher 8, 32, common 8")


@pytest.mark.parametrize("gradient", [False, True])
def test_a_loss_that_is_not_finite_stops_it(gradient):
    result = look(Breaking(1, cells(), gradient=gradient), settings=tiny_settings())
    assert [problem.split(":")[0] for problem in result.fatal] == ["loss size"]
    assert "is not a finite number. Try precision=32" in result.fatal[0]


def test_losses_of_a_teacher_that_do_next_to_nothing_or_drown_the_rest_are_told():
    weak = look(settings=tiny_settings(loss="pkd=0.000001"))
    check = by_name(weak)["teacher's losses"]
    assert (check.verdict, check.found) == ("look", "0.0 % of the gradient")
    strong = look(settings=tiny_settings(loss="pkd=10000"))
    check = by_name(strong)["teacher's losses"]
    assert (check.verdict, check.found) == ("look", "100.0 % of the gradient")
    assert weak.fatal == strong.fatal == ()
    assert check.remedy == "They drown the student's own losses: lower their weights, or lengthen {warmup}."


class Thawing:
    """A teacher whose adapter undoes the freezing."""

    def __init__(self):
        self.adapter = cells(5)

    def __getattr__(self, name):
        return getattr(self.adapter, name)

    def trace(self, view, *, regions=None):
        self.adapter.model.head.train()
        return self.adapter.trace(view, regions=regions)


def test_a_teacher_that_does_not_stay_frozen_stops_it():
    result = look(teacher=Thawing())
    assert result.fatal == (
        "teacher: not frozen: head. Its adapter's trace must work without gradient and leave the mode alone.",
    )


def test_the_table_as_text():
    checks = (Check("data", "7 images"), Check("step", "slow", "look", "Wait."), Check("teacher", "bad", "stop", "Go."))
    table = Preflight(checks=checks, teacher={}, losses={}, shares={}, seconds={}).describe()
    assert table.splitlines() == [
        "  ok  data     7 images",
        "LOOK  step     slow",
        "STOP  teacher  bad",
        "",
        "- teacher: bad. Go.",
        "- step: slow. Wait.",
    ]


def test_settings_and_students_that_cannot_be_used_are_refused():
    with pytest.raises(DistilError, match=r"batch is 0: it must be above 0"):
        look(settings=tiny_settings(batch=0))
    with pytest.raises(DistilError, match=r"the student tells 3 classes apart and squares has 2"):
        look(cells(classes=len(CLASSES) + 1))


def test_data_with_few_objects_is_judged_where_they_are():
    data = squares(40)
    bare = [index for index in range(40) if not len(data.annotations(index))]
    sparse = data.subset([*bare, *(set(range(40)) - set(bare))][: len(bare) + 1])
    found = by_name(look(measure=scripted(40.0), data=sparse, images=2))
    assert len(bare) > 2
    assert "from 1 images" in found["prototypes"].found
    assert all(found[f"loss {name}"].verdict == "good" for name in ("gkd.foreground", "gkd.soft"))


def test_other_image_sizes_are_told():
    student, teacher = cells(), cells(5, width=8)
    student.model.transform, teacher.model.transform = SimpleNamespace(max_size=128), SimpleNamespace(max_size=800)
    found = by_name(look(student, teacher))["image sizes"]
    assert found.verdict == "look"
    assert found.found == "at most 128 pixels a side in the student's view, 800 in the teacher's own"
