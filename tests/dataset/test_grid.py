"""Items before the first step, where parameters are pixels."""

import pytest
import torch
from torch.nn.functional import interpolate

from distil.dataset.config import Grid
from distil.dataset.protocols import Task
from distil.dataset.selection.grid import GridSelection


def first_items(real, ipc, init, factor, seed):
    return GridSelection(Grid(factor=factor, init=init), Task(real, ipc, seed, 1)).initial()[1]


def test_noise_has_the_datas_mean_and_spread(real):
    items = first_items(real, 40, "noise", 1, seed=0)
    assert items.shape == (120, 1, 8, 8)
    assert items.mean().item() == pytest.approx(0.5, abs=0.01)
    assert 0.2 < items.std().item() < 0.25
    assert items.min() == 0
    assert items.max() == 1


def test_real_items_are_images_of_their_class(real):
    items = first_items(real, 3, "real", 1, seed=0)
    for label in range(3):
        images = real.batch(real.by_class[label]).images
        rows = items[3 * label : 3 * label + 3]
        assert all((row == images).flatten(1).all(1).any() for row in rows)
        assert len(rows.unique(dim=0)) == 3


def test_mixed_items_hold_shrunk_images_of_their_class(real):
    items = first_items(real, 2, "mix", 2, seed=0)
    for label in range(3):
        images = real.batch(real.by_class[label]).images
        small = interpolate(images, size=(4, 4), mode="bilinear", antialias=True)
        for item in items[2 * label : 2 * label + 2]:
            for y in (0, 4):
                for x in (0, 4):
                    gap = (small - item[:, y : y + 4, x : x + 4]).abs().flatten(1).amax(1)
                    assert gap.min() < 1e-6


def test_a_factor_that_does_not_divide_the_side_cuts_the_last_cells(real):
    items = first_items(real, 1, "mix", 3, seed=0)
    assert items.shape == (3, 1, 8, 8)
    assert items.isfinite().all()


@pytest.mark.parametrize("init", ["noise", "real", "mix"])
def test_the_seed_decides(real, init):
    draws = [first_items(real, 1, init, 2, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
