"""Region policies: what they choose, and why."""

import pytest
import torch
from torch import nn

from distil.dataset.policies import jitter_scores, mine, response_utilisation, seam_windows
from distil.errors import DistilError
from distil.functional.regions import intersection_over_union
from distil.rng import stream

SIZE = (16, 16)


class Brightness(nn.Module):
    """A proxy that responds where a view is bright, and predicts from the mean brightness."""

    def activations(self, x):
        return x.clamp_min(0)

    def forward(self, x):
        level = x.mean((1, 2, 3))
        return torch.stack([level * 2, -level * 2], dim=1)


def run(policy, canvases, count=1, address=0, **how):
    settings = {"factor": 2, "mean": (0.0,), "std": (1.0,), "jitter": 0.1, "jitter_draws": 3} | how
    return mine(policy, canvases, Brightness(), count=count, generator=stream(0, address), **settings)


def test_seam_windows_leave_the_cells_out():
    windows = {tuple(w) for w in seam_windows(2, SIZE).int().tolist()}
    assert windows == {(4, 0, 12, 8), (0, 4, 8, 12), (4, 4, 12, 12), (8, 4, 16, 12), (4, 8, 12, 16)}


def test_factor_one_has_nothing_to_mine():
    with pytest.raises(DistilError, match=r"a 16x16 canvas at --factor 1 has no windows to mine: use --factor 2"):
        seam_windows(1, SIZE)


@pytest.mark.parametrize("policy", ["fixed", "random", "response", "jitter"])
def test_too_many_windows_are_refused(policy):
    with pytest.raises(DistilError, match=r"--windows 6 is more than the 5 candidate windows"):
        run(policy, torch.rand(2, 1, 16, 16), count=6)


def test_response_takes_the_dark_window():
    canvases = torch.ones(1, 1, 16, 16)
    canvases[:, :, 4:12, 8:] = 0
    mined = run("response", canvases)
    assert mined.windows[0, 0].tolist() == [8, 4, 16, 12]
    assert mined.utilisation[0, 5:11, 9:15].max() < 0.2
    assert mined.utilisation[0, :3].min() > 0.8


def test_response_is_judged_canvas_by_canvas():
    canvases = torch.ones(2, 1, 16, 16)
    canvases[0, :, :8, 4:12] = 0
    canvases[1, :, 8:, 4:12] = 0
    mined = run("response", canvases)
    assert mined.windows[:, 0].tolist() == [[4, 0, 12, 8], [4, 8, 12, 16]]


def test_jitter_takes_the_window_that_changes_least():
    class BrightPixels(Brightness):
        def forward(self, x):
            return super().forward(x.clamp_min(0.5))

    canvases = torch.full((1, 1, 16, 16), 0.8)
    canvases[..., :8] = 0.2
    proxy = BrightPixels()
    how = {"factor": 2, "mean": (0.0,), "std": (1.0,), "jitter": 0.05, "jitter_draws": 3}
    mined = mine("jitter", canvases, proxy, count=1, generator=stream(0), **how)
    assert mined.windows[0, 0].tolist() == [0, 4, 8, 12]
    assert mined.utilisation[0, :, :4].max() == 0
    assert mined.utilisation[0, :, 12:].min() > 0


def test_jitter_scores_by_hand_for_one_draw():
    canvases = torch.full((1, 1, 4, 4), 0.5)
    window = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
    noise = torch.randn(1, 1, 2, 2, generator=stream(3)) * 0.1
    got = jitter_scores(canvases, window, Brightness(), 1, (0.0,), (1.0,), 0.1, 1, stream(3))
    before, after = canvases.mean(), canvases.mean() + noise.sum() / 16
    p, q = torch.sigmoid(4 * before.double()), torch.sigmoid(4 * after.double())
    want = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert got.item() == pytest.approx(want.item() / 4, rel=0.02)


def test_fixed_takes_the_first_and_random_draws():
    canvases = torch.rand(4, 1, 16, 16)
    first = seam_windows(2, SIZE)[:2]
    assert all(torch.equal(windows, first) for windows in run("fixed", canvases, count=2).windows)
    draws = {tuple(run("random", canvases, address=a).windows.flatten().tolist()) for a in range(6)}
    assert len(draws) > 3
    two = run("random", canvases, count=5).windows
    assert all(len(windows.unique(dim=0)) == 5 for windows in two)


def test_windows_of_a_canvas_differ():
    canvases = torch.rand(3, 1, 16, 16)
    for policy in ("response", "jitter"):
        assert all(len(w.unique(dim=0)) == 3 for w in run(policy, canvases, count=3).windows)


def test_utilisation_does_not_depend_on_the_batch():
    canvases = torch.rand(5, 1, 16, 16)
    how = {"factor": 2, "mean": (0.0,), "std": (1.0,)}
    torch.testing.assert_close(
        response_utilisation(canvases, Brightness(), **how),
        response_utilisation(canvases, Brightness(), batch=4, **how),
    )


@pytest.mark.parametrize("policy", ["fixed", "random", "response", "jitter"])
def test_small_windows_apart_do_not_overlap(policy):
    canvases = torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    windows = run(policy, canvases, count=8, windows_factor=4, apart=True).windows
    assert windows.shape == (3, 8, 4)
    assert ((windows[..., 2:] - windows[..., :2]) == 4).all()
    for own in windows:
        overlaps = intersection_over_union(own, own).fill_diagonal_(0)
        assert not overlaps.any()


def test_small_windows_are_those_of_a_finer_grid():
    assert len(seam_windows(2, SIZE, 4)) == 49
    canvases = torch.ones(1, 1, *SIZE)
    canvases[0, 0, 4:8, 12:16] = 0.0
    assert run("response", canvases, windows_factor=4).windows[0, 0].tolist() == [12, 4, 16, 8]
