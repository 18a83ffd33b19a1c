"""Characteristic function matching as an objective: classes, seeds of the frequencies, gradients to the images."""

import pytest
import torch
from torch.nn.functional import normalize

from distil.dataset.objectives.characteristic import CharacteristicObjective
from distil.functional.characteristic import characteristic_distance
from distil.networks import build_network

from .conftest import loop_of, make_images, stage_of, tiny

OBJECTIVE = CharacteristicObjective(frequencies=32, scale=7.0)
LABELS = torch.tensor([0, 1])


def network(dtype=torch.float32):
    return build_network("convnet2", channels=1, size=(8, 8), classes=2, width=3, seed=0).to(dtype)


def draws(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_it_is_the_sum_over_classes_of_the_distance_at_the_frequencies_of_the_seed():
    net, real, synthetic = network(), draws(2, 6, 1, 8, 8), draws(2, 3, 1, 8, 8, seed=1)
    targets = OBJECTIVE.targets(net, real, LABELS, 5)
    found = OBJECTIVE.loss(net, synthetic, LABELS, targets)
    dimensions = net.embed(real[0]).shape[1]
    at = torch.randn(32, dimensions, generator=torch.Generator().manual_seed(5))
    pairs = zip(real, synthetic, strict=True)
    expected = [characteristic_distance(normalize(net.embed(a)), net.embed(b), at) for a, b in pairs]
    torch.testing.assert_close(found, 7 * torch.stack(expected).sum())
    assert float(found.detach()) > 0.1
    other = OBJECTIVE.loss(net, synthetic, LABELS, OBJECTIVE.targets(net, real, LABELS, 6))
    assert not torch.equal(found, other)


def test_classes_in_another_order_are_the_same_loss():
    net, real, synthetic = network(), draws(2, 6, 1, 8, 8), draws(2, 3, 1, 8, 8, seed=1)

    def loss(order):
        targets = OBJECTIVE.targets(net, real[order], LABELS[order], 5)
        return OBJECTIVE.loss(net, synthetic[order], LABELS[order], targets)

    torch.testing.assert_close(loss([1, 0]), loss([0, 1]))
    torch.testing.assert_close(loss([0]) + loss([1]), loss([0, 1]))


def test_gradients_to_the_images_are_finite_differences():
    net, images = network(torch.float64), draws(2, 2, 1, 8, 8, seed=1, dtype=torch.float64).requires_grad_()
    targets = OBJECTIVE.targets(net, draws(2, 4, 1, 8, 8, dtype=torch.float64), LABELS, 5)
    loss = OBJECTIVE.loss(net, images, LABELS, targets)
    (gradient,) = torch.autograd.grad(loss, images)
    assert float(gradient.norm()) > 1e-3
    for seed in range(5):
        along = draws(*images.shape, seed=10 + seed, dtype=torch.float64)
        with torch.no_grad():
            ends = [OBJECTIVE.loss(net, images + step * along, LABELS, targets) for step in (1e-6, -1e-6)]
        slope = float(ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(float((gradient * along).sum()), rel=1e-4, abs=1e-6)


def test_the_loss_is_near_zero_when_synthetic_equals_real():
    real = make_images(each=4)
    changes = {"objective": "characteristic", "factor": 1, "init": "real", "ipc": 4, "batch": 4, "augment": "none"}
    loop = loop_of(real, tiny("idc", **changes))
    _, losses = loop.gradient(stage_of(loop, loop.networks.fresh(0)))
    other = loop_of(real, tiny("idc", **(changes | {"init": "noise"})))
    _, far = other.gradient(stage_of(other, other.networks.fresh(0)))
    assert float(losses["loss"]) < 0.01 * float(far["loss"])
    assert bool(loop.gradient(stage_of(loop, loop.networks.fresh(0)))[0].isfinite().all())


def test_frequencies_are_drawn_anew_in_each_step(real):
    loop = loop_of(real, tiny("idc", objective="characteristic"))
    state = loop.networks.fresh(0)
    stages = [(0, 0), (0, 1), (1, 0), (0, 0)]
    seeds = [int(stage_of(loop, state, *at).targets["loss"]["seed"][0]) for at in stages]
    assert seeds[0] == seeds[3]
    assert len(set(seeds)) == 3
