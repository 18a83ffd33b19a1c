"""Policies over windows: what they choose, and why; how windows begin."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from distil.dataset.protocols import Task
from distil.dataset.selection.window_policies import (
    FixedWindows,
    JitterOfWindows,
    RandomWindows,
    ResponseToWindows,
    jitter_scores,
    mined_windows,
    response_utilization,
    seam_windows,
)
from distil.errors import DistilError
from distil.functional.regions import intersection_over_union
from distil.parameterizations.crops import Crops
from distil.rng import stream

from .conftest import loop_of, make_images, tiny

SIZE = (16, 16)
CELLS = Crops.grid(2, SIZE)
PLAIN = replace(make_images(), mean=(0.0,), std=(1.0,))
POLICIES = {
    "fixed": FixedWindows(),
    "random": RandomWindows(),
    "response": ResponseToWindows(),
    "jitter": JitterOfWindows(0.1, 3),
}


class Brightness(nn.Module):
    """A proxy that responds where an image is bright, and predicts from the mean brightness."""

    def activations(self, x):
        return x.clamp_min(0)

    def forward(self, x):
        level = x.mean((1, 2, 3))
        return torch.stack([level * 2, -level * 2], dim=1)


def run(policy, items, count=1, address=0, windows_factor=0, proxy=None, **how):
    chosen = POLICIES[policy] if isinstance(policy, str) else policy
    task = Task(PLAIN, 1, 0, 1, proxy or Brightness())
    return mined_windows(chosen, items, CELLS, 2, count, windows_factor, task, stream(0, address), **how)


def test_seam_windows_leave_the_cells_out():
    windows = {tuple(w) for w in seam_windows(2, SIZE).int().tolist()}
    assert windows == {(4, 0, 12, 8), (0, 4, 8, 12), (4, 4, 12, 12), (8, 4, 16, 12), (4, 8, 12, 16)}


def test_factor_one_has_nothing_to_mine():
    with pytest.raises(DistilError, match=r"a 16x16 item at factor 1 has no windows to mine: use factor 2"):
        seam_windows(1, SIZE)


@pytest.mark.parametrize("policy", POLICIES)
def test_too_many_windows_are_refused(policy):
    with pytest.raises(DistilError, match=r"windows 6 is more than the 5 candidate windows"):
        run(policy, torch.rand(2, 1, 16, 16), count=6)


def test_response_takes_the_dark_window():
    items = torch.ones(1, 1, 16, 16)
    items[:, :, 4:12, 8:] = 0
    windows, used = run("response", items)
    assert windows[0, 0].tolist() == [8, 4, 16, 12]
    assert used[0, 5:11, 9:15].max() < 0.2
    assert used[0, :3].min() > 0.8


def test_response_is_measured_item_by_item():
    items = torch.ones(2, 1, 16, 16)
    items[0, :, :8, 4:12] = 0
    items[1, :, 8:, 4:12] = 0
    windows, _ = run("response", items)
    assert windows[:, 0].tolist() == [[4, 0, 12, 8], [4, 8, 12, 16]]


def test_jitter_takes_the_window_that_changes_least():
    class BrightPixels(Brightness):
        def forward(self, x):
            return super().forward(x.clamp_min(0.5))

    items = torch.full((1, 1, 16, 16), 0.8)
    items[..., :8] = 0.2
    windows, used = run(JitterOfWindows(0.05, 3), items, proxy=BrightPixels())
    assert windows[0, 0].tolist() == [0, 4, 8, 12]
    assert used[0, :, :4].max() == 0
    assert used[0, :, 12:].min() > 0


def test_jitter_scores_by_hand_for_one_draw():
    items = torch.full((1, 1, 4, 4), 0.5)
    window = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
    noise = torch.randn(1, 1, 2, 2, generator=stream(3)) * 0.1
    got = jitter_scores(items, window, Crops.grid(1, (4, 4)), Brightness(), PLAIN, 0.1, 1, stream(3))
    before, after = items.mean(), items.mean() + noise.sum() / 16
    p, q = torch.sigmoid(4 * before.double()), torch.sigmoid(4 * after.double())
    want = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert got.item() == pytest.approx(want.item() / 4, rel=0.02)


def test_fixed_takes_the_first_and_random_draws():
    items = torch.rand(4, 1, 16, 16)
    first = seam_windows(2, SIZE)[:2]
    assert all(torch.equal(windows, first) for windows in run("fixed", items, count=2)[0])
    draws = {tuple(run("random", items, address=a)[0].flatten().tolist()) for a in range(6)}
    assert len(draws) > 3
    five, _ = run("random", items, count=5)
    assert all(len(windows.unique(dim=0)) == 5 for windows in five)


@pytest.mark.parametrize("policy", ["response", "jitter"])
def test_windows_of_an_item_differ(policy):
    windows, _ = run(policy, torch.rand(3, 1, 16, 16), count=3)
    assert all(len(w.unique(dim=0)) == 3 for w in windows)


def test_utilization_does_not_depend_on_the_batch():
    items = torch.rand(5, 1, 16, 16)
    whole = response_utilization(items, CELLS, Brightness(), PLAIN)
    torch.testing.assert_close(whole, response_utilization(items, CELLS, Brightness(), PLAIN, batch=4))


@pytest.mark.parametrize("policy", POLICIES)
def test_small_windows_apart_do_not_overlap(policy):
    items = torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    windows, _ = run(policy, items, count=8, windows_factor=4, apart=True)
    assert windows.shape == (3, 8, 4)
    assert ((windows[..., 2:] - windows[..., :2]) == 4).all()
    for of_item in windows:
        assert not intersection_over_union(of_item, of_item).fill_diagonal_(0).any()


def test_small_windows_are_those_of_a_finer_grid():
    assert len(seam_windows(2, SIZE, 4)) == 49
    items = torch.ones(1, 1, *SIZE)
    items[0, 0, 4:8, 12:16] = 0.0
    assert run("response", items, windows_factor=4)[0][0, 0].tolist() == [12, 4, 16, 8]


def test_new_windows_begin_with_real_images_of_their_class_and_old_ones_stay():
    real = make_images(side=16)
    changes = {"windows": 2, "windows_factor": 4, "windows_init": "real", "windows_start": 0.0, "windows_freeze": 0.0}
    settings = tiny("udd-windows", policy="random", inner=1, outer=2, lr=1e-12, refresh=1, **changes)
    loop = loop_of(real, settings)
    first, seen = loop.params.clone(), []
    while loop.done < loop.steps:
        loop.step()
        seen.append((loop.params.clone(), loop.placed.windows.clone()))
    for items, windows in seen:
        for row, of_item in enumerate(windows):
            inside = torch.zeros(real.size, dtype=torch.bool)
            for x1, y1, x2, y2 in of_item.int().tolist():
                inside[y1:y2, x1:x2] = True
                assert not torch.allclose(items[row, :, y1:y2, x1:x2], first[row, :, y1:y2, x1:x2], atol=1e-3)
            if windows is seen[0][1]:
                assert torch.allclose(items[row][:, ~inside], first[row][:, ~inside], atol=1e-6)
    x1, y1, x2, y2 = seen[0][1][0, 0].int().tolist()
    images = real.images[real.labels == 0].float() / 255
    shrunk = interpolate(images, size=(4, 4), mode="bilinear", antialias=True)
    gaps = (shrunk - seen[0][0][0, :, y1:y2, x1:x2]).abs().amax((1, 2, 3))
    assert float(gaps.min()) < 1e-5
