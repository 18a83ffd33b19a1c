"""Features of candidate prototypes, gathered from training steps."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distil.data.detection.transforms import Augmentation, loader
from distil.detector.gkd import feature_bank
from distil.detector.gkd.feature_bank import FeatureBank
from distil.detector.gkd.generation import choose_candidates, generate_prototypes
from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.gkd.pooling import pool_instances
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.training.setup import make_losses, make_student
from distil.detector.training.step import Step, Work
from distil.detector.training.train import train_detector

from .tiny import Recorder, Squares, cells, squares, tiny_settings

ONE = SimpleNamespace(world_size=1)
CHANNELS = (6, 8)


def candidates_of(data, settings):
    return choose_candidates(data, settings.distillation.prototypes, settings.training.seed)


def gathered_in_an_epoch(settings, data, augmentation=None):
    teacher = cells(5, width=8)
    _, student = make_student(cells(0), 0, data, None)
    step = Step(student, *make_losses(student, teacher, None, data, settings))
    (gkd,) = step.parts
    assert isinstance(gkd, GlobalKnowledge)
    gathered = gkd.schedule.bank = FeatureBank(candidates_of(data, settings), 2, CHANNELS)
    for batch in loader(data, batch=4, seed=0, epoch=0, augmentation=augmentation):
        targets = [{key: target[key] for key in ("boxes", "labels")} for _, target in batch]
        step(Work(student.view([image for image, _ in batch], targets), teacher, 0.0))
        gkd.after_step([target for _, target in batch])
    return gathered, student, teacher


def test_without_changes_an_epoch_gathers_what_a_pass_sees():
    data, settings = squares(), tiny_settings(loss="gkd", prototype_side=18.0)
    gathered, student, teacher = gathered_in_an_epoch(settings, data)

    candidates, features = gathered.together(ONE)

    assert 0 < len(candidates.labels) < sum(data.counts)
    assert len(candidates.labels) == len(candidates_of(data, settings).labels)
    for own, adapter in zip(features, (student, teacher), strict=True):
        for row, (image, number) in enumerate(
            zip(candidates.images.tolist(), candidates.objects.tolist(), strict=True)
        ):
            box = data.annotations(image).boxes[number]
            assert torch.equal(box, candidates.boxes[row])
            view = student.view([data.image(image).float() / 255], [{}])
            with torch.no_grad():
                expected = pool_instances(adapter.pyramid(view), adapter.strides, [box[None]])[:, 0]
            torch.testing.assert_close(own[:, row], expected, rtol=1e-4, atol=1e-5)


def test_changed_images_count_as_they_were_seen_and_objects_out_of_sight_not_at_all():
    data, settings = squares(40), tiny_settings(loss="gkd")
    gathered, _, _ = gathered_in_an_epoch(settings, data, Augmentation(flip=0.5, scale=(1.5, 2.0)))

    candidates, (student, _) = gathered.together(ONE)

    total = len(gathered.candidates.labels)
    assert 0.3 * total < len(candidates.labels) < total
    assert bool((student.abs().sum((0, 2)) > 0).all())


def test_processes_put_together_what_each_has_seen():
    data, settings = squares(), tiny_settings(loss="gkd")
    whole, _, _ = gathered_in_an_epoch(settings, data)
    assert whole.tensors(ONE)["seen"].all()
    parts = []
    for seen in (torch.arange(len(whole.seen)) % 2 == 0, torch.arange(len(whole.seen)) % 3 == 0):
        part = FeatureBank(whole.candidates, 2, CHANNELS)
        part.student, part.teacher, part.seen = whole.student.clone(), whole.teacher.clone(), seen
        part.student[:, ~seen], part.teacher[:, ~seen] = 99.0, 99.0
        parts.append(part)
    sums = [[part.seen.float() for part in parts]]
    sums += [[getattr(part, name) * part.seen.float()[:, None] for part in parts] for name in ("student", "teacher")]
    answers = iter([sum(each) for each in sums])
    fabric = SimpleNamespace(world_size=2, device="cpu", all_reduce=lambda x, reduce_op: next(answers))

    candidates, features = parts[0].together(fabric)

    seen = parts[0].seen | parts[1].seen
    assert torch.equal(candidates.images, whole.candidates.images[seen])
    for own, full in zip(features, (whole.student, whole.teacher), strict=True):
        torch.testing.assert_close(own, full[:, seen])


def test_prototypes_of_training_steps_are_those_of_a_pass_where_nothing_moves(tmp_path):
    data, log = squares(), Recorder()
    changes = {"loss": "gkd", "flip": 0.0, "epochs": 2, "lr": 1e-30}
    settings = tiny_settings(**changes, prototype_features="training")
    options = {"teacher": cells(5, width=8), "events": log}

    train_detector(cells(0), data, settings, out=tmp_path, **options)

    assert [(each["epoch"], each["file"]) for each in log.of("prototypes")] == [(1, "prototypes-0001.safetensors")]
    chosen = PrototypeSet.load(tmp_path / "prototypes-0001.safetensors")
    student: Any = cells(0)
    teacher: Any = cells(5, width=8)
    passed = generate_prototypes(student, teacher, data, settings.distillation.prototypes, epoch=1)
    assert torch.equal(chosen.images, passed.images)
    assert torch.equal(chosen.boxes, passed.boxes)
    assert torch.equal(chosen.levels, passed.levels)
    torch.testing.assert_close(chosen.student, passed.student, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chosen.teacher, passed.teacher, rtol=1e-4, atol=1e-5)


def test_the_last_epoch_gathers_nothing(tmp_path, monkeypatch):
    wanted = []
    real = GlobalKnowledge.forward

    def spy(self, *args):
        wanted.append(self.schedule.bank is not None)
        return real(self, *args)

    monkeypatch.setattr(GlobalKnowledge, "forward", spy)
    settings = tiny_settings(loss="gkd", epochs=3, prototype_features="training")
    train_detector(cells(0), squares(), settings, out=tmp_path, teacher=cells(5))
    assert wanted == [True] * 8 + [False] * 4


@pytest.mark.parametrize(("features", "reads"), [("training", 0), ("fresh", 1)])
def test_only_a_pass_reads_the_images_once_more(tmp_path, features, reads):
    data, passes = squares(), []

    class Counting(Squares):
        def image(self, index):
            passes.append(index)
            return super().image(index)

    counted = replace(data, pictures=Counting(len(data)))
    settings = tiny_settings(loss="gkd", epochs=2, prototype_features=features)

    train_detector(cells(0), counted, settings, out=tmp_path, teacher=cells(5))

    holding = sum(1 for count in range(len(data)) if count % 4)
    assert len(passes) == 2 * len(data) + reads * holding


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_how_many_steps_wait_does_not_matter(monkeypatch, steps):
    data, settings = squares(), tiny_settings(loss="gkd")
    expected = gathered_in_an_epoch(settings, data)[0].tensors(ONE)
    monkeypatch.setattr(feature_bank, "STEPS_WAITING", steps)
    for name, x in gathered_in_an_epoch(settings, data)[0].tensors(ONE).items():
        assert torch.equal(x, expected[name])
