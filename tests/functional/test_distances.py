"""Objectives against slow references written from their equations in float64."""

import math

import pytest
import torch

from distil.functional.contrast import contrastive_loss
from distil.functional.distances import (
    cosine_distance,
    gradient_distance,
    l1_distance,
    mean_embedding_distance,
    squared_distance,
)


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_cosine(real, synthetic):
    total = 0.0
    for a, b in zip(real.tolist(), synthetic.tolist(), strict=True):
        a, b = torch.tensor(a).flatten().tolist(), torch.tensor(b).flatten().tolist()
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        total += 1 - dot / (norms + 1e-6)
    return total


def slow_contrast(synthetic, real, temperature):
    def unit(row):
        return [x / math.sqrt(sum(y * y for y in row)) for x in row]

    z, target = [unit(r) for r in synthetic.tolist()], [unit(r) for r in real.tolist()]
    total = 0.0
    for c, row in enumerate(z):
        similar = [math.exp(sum(x * y for x, y in zip(row, other, strict=True)) / temperature) for other in target]
        total -= math.log(similar[c] / sum(similar))
    return total / len(z)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 7)])
def test_cosine_distance_is_the_sum_over_output_rows(shape):
    a, b = draws(*shape), draws(*shape, seed=1)
    assert cosine_distance(a, b).item() == pytest.approx(slow_cosine(a, b), rel=1e-6)


def test_squared_and_l1_by_hand():
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert squared_distance(a, b) == 4 + 9 + 1
    assert l1_distance(a, b) == 2 + 3 + 1


@pytest.mark.parametrize("distance", ["cosine", "squared", "l1"])
def test_gradient_distance_adds_up_and_is_zero_on_itself(distance):
    a, b = [draws(4, 3), draws(2, 3, 3, 3)], [draws(4, 3, seed=2), draws(2, 3, 3, 3, seed=3)]
    parts = [gradient_distance([x], [y], distance) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(gradient_distance(a, b, distance), parts[0] + parts[1])
    assert gradient_distance(a, a, distance).item() == pytest.approx(0, abs=1e-5)


def test_mean_embedding_distance_by_hand():
    real, synthetic = torch.tensor([[0.0, 0.0], [2.0, 4.0]]), torch.tensor([[0.0, 0.0]])
    assert mean_embedding_distance(real, synthetic) == 1 + 4


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrastive_loss_equals_its_equation(temperature):
    z, target = draws(5, 8), draws(5, 8, seed=1)
    got = contrastive_loss(z, target, temperature).item()
    assert got == pytest.approx(slow_contrast(z, target, temperature), rel=1e-9)


def test_contrastive_loss_knows_the_right_class():
    target = torch.eye(3, dtype=torch.float64)
    right = contrastive_loss(target * 7, target, 0.1)
    wrong = contrastive_loss(target.roll(1, 0), target, 0.1)
    assert right < 1e-3 < 5 < wrong


def test_contrastive_loss_does_not_depend_on_the_order_of_classes():
    z, target, order = draws(5, 8), draws(5, 8, seed=1), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(contrastive_loss(z[order], target[order], 0.2), contrastive_loss(z, target, 0.2))


@pytest.mark.parametrize("distance", ["cosine", "squared", "l1"])
def test_gradient_distances_pass_gradcheck(distance):
    target = [draws(3, 4)]
    x = draws(3, 4, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: gradient_distance(target, [v], distance), (x,))


def test_embedding_losses_pass_gradcheck_and_spare_the_real_side():
    x, real = draws(4, 3, seed=6).requires_grad_(), draws(4, 3, seed=7).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: mean_embedding_distance(real.detach(), v), (x,))
    assert torch.autograd.gradcheck(lambda v: contrastive_loss(v, real.detach(), 0.5), (x,))
    contrastive_loss(x, real, 0.5).backward()
    assert real.grad is None
