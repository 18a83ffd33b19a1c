"""The optimizers of stored parameters against PyTorch's."""

import math
from typing import Any

import pytest
import torch

from distil.dataset.config import ImageAdam, ImageSGD
from distil.dataset.distil import distil_dataset
from distil.dataset.image_optimizer import image_optimizer
from distil.errors import DistilError

from .conftest import tiny

STEPS = 7


def draws(number):
    return torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(number))


def moved(settings):
    """Parameters after each step along made-up gradients, some of which are zero."""
    optimizer, params = image_optimizer(settings, STEPS), draws(0)
    moments, rows = {name: torch.zeros_like(params) for name in optimizer.moments}, []
    for step in range(STEPS):
        optimizer.move_(params, moments, draws(step + 1) * (step != 3), step)
        rows.append(params.clone())
    return rows


def moved_by_torch(kind, **options):
    params, rows = draws(0).requires_grad_(), []
    optimizer = kind([params], **options)
    for step in range(STEPS):
        params.grad = draws(step + 1) * (step != 3)
        optimizer.step()
        rows.append(params.detach().clone())
    return rows


@pytest.mark.parametrize(("betas", "decay"), [((0.9, 0.999), 5e-4), ((0.5, 0.9), 0.3), ((0.0, 0.0), 0.0)])
def test_adamw_is_that_of_torch(betas, decay):
    found = moved(ImageAdam(lr=0.02, betas=betas, weight_decay=decay))
    expected = moved_by_torch(torch.optim.AdamW, lr=0.02, betas=betas, weight_decay=decay)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_descent_is_sgd_of_torch(momentum):
    found = moved(ImageSGD(lr=0.02, momentum=momentum))
    torch.testing.assert_close(found, moved_by_torch(torch.optim.SGD, lr=0.02, momentum=momentum))


def test_adamw_falls_along_half_a_cosine():
    optimizer: Any = image_optimizer(ImageAdam(lr=0.02, lr_schedule="cosine"), STEPS)
    expected = [0.01 * (1 + math.cos(math.pi * step / STEPS)) for step in range(STEPS)]
    assert [optimizer.lr_at(step) for step in range(STEPS)] == pytest.approx(expected)
    slow, fast = moved(ImageAdam(lr=0.02, lr_schedule="cosine")), moved(ImageAdam(lr=0.02))
    assert torch.equal(slow[0], fast[0])
    assert float((slow[-1] - slow[-2]).abs().max()) < 0.1 * float((fast[-1] - fast[-2]).abs().max())


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ((1.0, 0.999), "betas is 1.0: it must be below 1."),
        ((0.9, 1.0), "betas is 1.0: it must be below 1."),
        ((-0.1, 0.9), "betas is -0.1: it cannot be negative."),
    ],
)
def test_decays_that_divide_by_zero_are_refused(real, betas, message):
    with pytest.raises(DistilError, match=f"^{message}$"):
        distil_dataset(real, tiny(optimizer="adam", betas=betas))
