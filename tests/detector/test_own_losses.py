"""Losses given as objects: what they are asked, when, and that a resumed run keeps what they keep."""

import pytest
import torch

from distil.detector.losses.base import DistillationLoss
from distil.detector.training.train import train_detector
from distil.errors import DistilError
from distil.files import load_tensors

from .tiny import cells, squares, tiny_settings


class Counting(DistillationLoss):
    """The squared difference of the first maps, times the images seen so far."""

    def prepare(self, student, teacher):
        self.align = torch.nn.Conv2d(student.channels, teacher.channels, 1)
        self.seen, self.epochs = torch.zeros(()), []

    def before_epoch(self, context):
        self.epochs.append((context.epoch, context.step))

    def after_step(self, batch):
        self.seen += len(batch)

    def extra_state(self):
        return {"seen": self.seen}

    def load_extra_state(self, tensors):
        self.seen = tensors["seen"]

    def forward(self, student, teacher, view, progress):
        gap = (self.align(student.pyramid[0]) - teacher.pyramid[0]).square().mean()
        return {"counting": gap * (1 + self.seen)}


class Stop(Exception):
    """In the place of a machine that fails."""


def train(folder, *losses, stop=None, resume=False, **settings):
    def events(name, **fields):
        if name == "checkpoint" and fields["step"] == stop:
            raise Stop

    return train_detector(
        cells(0),
        squares(8),
        tiny_settings(**settings),
        out=folder,
        teacher=cells(5),
        losses=losses or None,
        resume=resume,
        events=events,
        checkpoint_seconds=0.0,
    )


def same(one, other):
    first, second = (load_tensors(path)[0] for path in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_resumed_run_continues_with_what_the_loss_keeps(tmp_path):
    loss = Counting()
    whole = train(tmp_path / "whole", "pkd=0.05", loss)
    assert loss.epochs == [(0, 0), (1, 2), (2, 4)]
    assert loss.seen == 24
    with pytest.raises(Stop):
        train(tmp_path / "run", "pkd=0.05", Counting(), stop=3)
    again = Counting()
    path = train(tmp_path / "run", "pkd=0.05", again, resume=True)
    assert again.epochs == [(1, 3), (2, 4)]
    assert again.seen == 24
    assert same(path, whole)


def test_names_in_losses_mean_what_the_settings_mean(tmp_path):
    named = train(tmp_path / "named", "gkd", "pkd=0.05")
    told = train(tmp_path / "told", loss="gkd,pkd=0.05")
    assert same(named, told)


def test_the_weight_multiplies_what_the_loss_returns(tmp_path):
    class Halved(Counting):
        name = "counting"

        def forward(self, student, teacher, view, progress):
            return {key: 0.5 * x for key, x in super().forward(student, teacher, view, progress).items()}

    weighed = train(tmp_path / "weighed", Counting(weight=0.5))
    assert same(weighed, train(tmp_path / "halved", Halved()))
    assert not same(weighed, train(tmp_path / "full", Counting()))


def test_a_run_is_resumed_with_the_losses_that_it_began_with_or_not_at_all(tmp_path):
    with pytest.raises(Stop):
        train(tmp_path / "run", Counting(), stop=3)
    with pytest.raises(DistilError, match="made with losses"):
        train(tmp_path / "run", Counting(weight=2.0), resume=True)


def test_one_error_names_what_is_wrong(tmp_path):
    with pytest.raises(DistilError, match="weight of Counting is 0: it must be above 0"):
        Counting(weight=0)
    pointed = Counting()
    pointed.name = "my.loss"
    with pytest.raises(DistilError, match=r"a loss is named 'my\.loss': give it a `name` without a point"):
        train(tmp_path / "run", pointed)
    with pytest.raises(DistilError, match="two losses are named 'counting'"):
        train(tmp_path / "run", Counting(), Counting())
    with pytest.raises(DistilError, match="the loss counting needs a teacher"):
        train_detector(cells(0), squares(8), tiny_settings(), out=tmp_path / "run", losses=[Counting()])
