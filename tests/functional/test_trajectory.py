"""The gradient of trajectory matching, update by update, against differentiation through all updates at once."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from distil.functional.trajectory import student_weights, trajectory_distance, trajectory_gradient

STEPS = 5


def draws(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def made():
    """(the loss of an update, weights to start from, weights to reach, images, label logits, learning rate)."""
    start = [draws(4, 3, seed=0), draws(2, 4, seed=1)]
    target = [weight + 0.3 * draws(*weight.shape, seed=7 + i) for i, weight in enumerate(start)]
    images, logits = draws(6, 3, seed=2).requires_grad_(), draws(6, 2, seed=3).requires_grad_()

    def batch_loss(step, weights):
        rows = torch.tensor([step % 6, (step + 1) % 6, (step + 3) % 6])
        hidden = torch.tanh(images[rows] @ weights[0].T)
        return cross_entropy(hidden @ weights[1].T, logits[rows].softmax(1))

    return batch_loss, start, target, images, logits, torch.tensor(0.4, dtype=torch.float64)


def unrolled(batch_loss, start, lr, hold_weights):
    """The student's last weights, with the graph of all updates (MTT)."""
    weights = [weight.clone().requires_grad_() for weight in start]
    for step in range(STEPS):
        at = [weight.detach().requires_grad_() for weight in weights] if hold_weights else weights
        gradient = torch.autograd.grad(batch_loss(step, at), at, create_graph=True)
        weights = [weight - lr * part for weight, part in zip(weights, gradient, strict=True)]
    return weights


@pytest.mark.parametrize("hold_weights", [False, True], ids=["exact", "weights held, as in TESLA"])
def test_update_by_update_equals_all_at_once(made, hold_weights):
    batch_loss, start, target, images, logits, lr = made
    path = student_weights(batch_loss, start, lr, STEPS)
    found = trajectory_gradient(batch_loss, path, target, [images, logits], lr, hold_weights=hold_weights)

    learned = lr.clone().requires_grad_()
    end = unrolled(batch_loss, start, learned, hold_weights)
    loss = trajectory_distance(end, target, start)
    wanted = torch.autograd.grad(loss, [images, logits, learned])

    torch.testing.assert_close(found.loss, loss.detach(), rtol=0, atol=1e-14)
    for mine, theirs in zip((*found.leaves, found.lr), wanted, strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-13)


def test_holding_the_weights_is_another_gradient(made):
    batch_loss, start, target, images, _, lr = made
    path = student_weights(batch_loss, start, lr, STEPS)
    exact, held = (
        trajectory_gradient(batch_loss, path, target, [images], lr, hold_weights=hold).leaves[0]
        for hold in (False, True)
    )
    assert (exact - held).abs().max() > 1e-3


def test_the_gradient_is_that_of_finite_differences(made):
    batch_loss, start, target, images, _, lr = made

    def loss():
        return trajectory_distance(student_weights(batch_loss, start, lr, STEPS)[-1], target, start)

    path = student_weights(batch_loss, start, lr, STEPS)
    found = trajectory_gradient(batch_loss, path, target, [images], lr).leaves[0]
    for place in ((0, 1), (3, 2), (5, 0)):
        ends = []
        for move in (1e-6, -1e-6):
            with torch.no_grad():
                images[place] += move
            ends.append(loss().item())
            with torch.no_grad():
                images[place] -= move
        assert float(found[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_the_distance_worked_by_hand():
    start, target, end = [torch.zeros(2)], [torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 1.0])]
    assert float(trajectory_distance(end, target, start)) == pytest.approx(9 / 25)
