"""The loop of trajectory matching: what a step does, what is learned, what a checkpoint holds."""

import os
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from distil.dataset import config
from distil.dataset.compose import task_of, trajectory_loop
from distil.dataset.distil import distil_dataset, finished
from distil.dataset.experts import train_experts
from distil.dataset.labels import expert_logits, recognized
from distil.dataset.methods import preset
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.functional.augment import normalize
from distil.runs import RESULT, Interrupted

from .conftest import TINY_EXPERTS as EXPERTS
from .conftest import changed
from .conftest import tiny_trajectory as small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of experts."""
    from .conftest import make_images

    folder = tmp_path_factory.mktemp("experts")
    train_experts(make_images(), EXPERTS, folder, network="convnet1", width=4)
    return folder


def loop_of(real, settings):
    task = task_of(real, settings)
    task.experts = train_experts(real, EXPERTS, None, network="convnet1", width=4)
    loop = trajectory_loop(task, settings, partial(finished, real=real, settings=settings))
    loop.begin()
    return loop


def build(loop):
    assert loop.task.network is not None
    return loop.task.network()


def test_a_step_is_that_of_the_equation(real):
    """Against the unrolled training, written out, in float64."""
    lr, image_lr, updates = 0.1, 3.0, 3
    settings = small(augment="none", batch_synthetic=99, student_lr=lr, student_lr_lr=0.01, lr=image_lr, momentum=0.0)
    settings = replace(settings, optimizer=replace(settings.optimizer, lr_space="pixel"))
    loop = loop_of(real, settings)
    before = loop.params.clone()
    start, target = ([weight.double() for weight in weights] for weights in loop.segment(0))
    net = build(loop).double()
    names = [name for name, _ in net.named_parameters()]
    pixels, rate = before.double().requires_grad_(), torch.tensor(lr, dtype=torch.float64, requires_grad=True)
    weights = [weight.clone().requires_grad_() for weight in start]
    for _ in range(updates):
        logits = torch.func.functional_call(
            net, dict(zip(names, weights, strict=True)), (normalize(pixels, real.mean, real.std),)
        )
        gradient = torch.autograd.grad(cross_entropy(logits, torch.arange(3)), weights, create_graph=True)
        weights = [weight - rate * part for weight, part in zip(weights, gradient, strict=True)]
    ends = zip(weights, target, start, strict=True)
    parts = torch.stack([torch.stack([(w - t).square().sum(), (s - t).square().sum()]) for w, t, s in ends]).sum(0)
    loss = parts[0] / parts[1]
    of_pixels, of_rate = torch.autograd.grad(loss, [pixels, rate])

    found = loop.step()
    assert float(found["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(loop.params, (before - image_lr * of_pixels).float(), rtol=1e-3, atol=1e-6)
    assert float(loop.student_lr) == pytest.approx(lr - 0.01 * of_rate.item(), rel=1e-4)


def test_segments_lie_between_the_epochs_and_grow(real):
    settings = small(steps=5, start_from=0, start_to=3)
    loop = loop_of(real, replace(settings, start_to_first=1))
    assert [loop.last_start(step) for step in range(5)] == [1, 1, 2, 2, 3]
    experts, seen = loop.experts, set()
    for step in range(40):
        loop.steps = 40
        start, target = loop.segment(step)
        found = [
            epoch
            for run in range(2)
            for epoch in range(4)
            if all(map(torch.equal, start, experts.weights(run, epoch)))
            and all(map(torch.equal, target, experts.weights(run, epoch + 1)))
        ]
        assert len(found) == 1
        assert found[0] <= loop.last_start(step)
        seen |= set(found)
    assert seen == {0, 1, 2, 3}


def test_every_image_is_seen_before_one_comes_again(real):
    loop = loop_of(real, small(batch_synthetic=2, student_steps=5))
    rows = [row.tolist() for row in loop.batches(0, 3)]
    assert [len(row) for row in rows] == [2, 1, 2, 1, 2]
    assert sorted(rows[0] + rows[1]) == [0, 1, 2] == sorted(rows[2] + rows[3])


def test_a_loss_above_the_limit_changes_nothing(real):
    settings = small(skip_above=1e-9, momentum=0.0)
    loop = loop_of(real, settings)
    before, lr = loop.params.clone(), loop.student_lr.clone()
    assert float(loop.step()["loss"]) > 1e-9
    assert loop.done == 1
    assert torch.equal(loop.params, before)
    assert torch.equal(loop.student_lr, lr)


def test_learned_labels_begin_as_the_experts_predictions_and_are_stored(real):
    settings = small("datm", skip_above=0.0, steps=2)
    loop = loop_of(real, settings)
    images = loop.placed.decode(loop.params)
    wanted = expert_logits(loop.task, loop.experts, images, torch.arange(3))
    assert torch.equal(loop.logits, wanted)
    loop.step()
    assert not torch.equal(loop.logits, wanted)
    made = loop.snapshot()
    torch.testing.assert_close(made.labels, loop.logits.softmax(1))
    assert made.student_lr == float(loop.student_lr)


def test_logits_are_the_mean_of_the_experts_that_are_right(real):
    loop = loop_of(real, small())
    images, labels = real.batch(torch.arange(0, 36, 3)).images, real.labels[::3]
    each = []
    for run in range(2):
        net = build(loop)
        for weight, value in zip(net.parameters(), loop.experts.last(run), strict=True):
            weight.data.copy_(value)
        each.append(net(normalize(images, real.mean, real.std)).detach())
    found = expert_logits(loop.task, loop.experts, images, labels)
    for row, label in enumerate(labels.tolist()):
        right = [logits[row] for logits in each if int(logits[row].argmax()) == label] or [
            logits[row] for logits in each
        ]
        torch.testing.assert_close(found[row], torch.stack(right).mean(0))
    told = recognized(loop.task, loop.experts, torch.arange(36), 1)
    assert told.dtype == torch.bool
    assert told.shape == (36,)


PARTS = {
    "mtt": ("mtt", {}),
    "TESLA": ("mtt", {"hold_weights": True}),
    "datm": ("datm", {"skip_above": 0.0}),
    "datm, dct": ("datm", {"parameterization": "dct", "policy": "variance", "images": 4, "skip_above": 0.0}),
    "fred": ("fred", {"images": 4}),
    "adam": ("mtt", {"optimizer": "adam"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_six_steps_are_three_then_a_resume_and_three(real, folder, tmp_path, name):
    method, changes = PARTS[name]
    settings = small(method, steps=6, **changes)
    whole = distil_dataset(real, settings, experts=folder, folder=tmp_path / "whole")

    def interrupt(name, **fields):
        if name == "step" and fields["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="stopped after step 3 of 6"):
        distil_dataset(real, settings, experts=folder, folder=stopped, events=interrupt)
    distil_dataset(real, settings, experts=folder, folder=stopped, resume=True)
    assert (stopped / RESULT).read_bytes() == (tmp_path / "whole" / RESULT).read_bytes()
    again = DistilledSet.load(stopped / RESULT)
    assert again.student_lr == whole.student_lr
    assert torch.equal(again.labels, whole.labels)
    assert torch.equal(again.decoded().images, whole.decoded().images)


REFUSED = {
    "epochs that fall": ({"start_from": 3}, "start_from 3, start_to_first 2 and start_to 2 must not fall"),
    "beyond the experts": ({"span": 9}, "start_to 2 and span 9 reach beyond the 4 epochs of the experts"),
    "windows apart": ({"parameterization": "windows"}, "windows_loss apart needs an objective"),
    "learned labels of windows": (
        {"parameterization": "windows", "windows_loss": "joint", "labels": "learned"},
        "labels learned gives every image probabilities of its own",
    ),
    "none to recognize": ({"init_from": "recognized"}, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_combined_is_refused_with_the_reason(name):
    changes, told = REFUSED[name]
    settings = small(**changes)
    if told is None:
        config.check_settings(settings)
        with pytest.raises(DistilError, match="init_from recognized asks experts, and this method has none"):
            config.check_settings(changed(preset("idc", "custom", 1), **changes))
        return
    with pytest.raises(DistilError) as refused:
        config.check_settings(settings)
    assert told in str(refused.value)


def test_a_snapshot_that_no_expert_keeps_is_refused():
    settings = replace(small(), experts=replace(EXPERTS, every=2), start_from=1, start_to=1)
    with pytest.raises(DistilError, match="keep their weights every 2 epochs"):
        config.check_settings(settings)


def test_the_first_images_are_recognized_ones(real):
    loop = loop_of(real, small("datm"))
    images = loop.placed.decode(loop.params)
    for label in range(3):
        members = real.by_class[label]
        right = recognized(loop.task, loop.experts, members, label)
        same = [
            (real.batch(members[i : i + 1]).images[0] - images[label]).abs().max() < 1e-6 for i in range(len(members))
        ]
        assert sum(same) == 1
        assert bool(right[same.index(True)]) or not bool(right.any())
