"""Utilisation maps and their entropy, against values worked by hand and slow loops."""

import math

import pytest
import torch

from distil.functional.regions import candidate_windows, grid_regions
from distil.functional.utilization import (
    jitter_divergence,
    response_map,
    spread_scores,
    stretch,
    utilization_entropy,
)


def test_stretch_reaches_zero_and_one_and_keeps_a_constant_at_zero():
    maps = torch.stack([torch.tensor([[1.0, 3.0], [2.0, 5.0]]), torch.full((2, 2), 7.0)])
    torch.testing.assert_close(stretch(maps)[0], torch.tensor([[0, 0.5], [0.25, 1.0]]))
    assert stretch(maps)[1].abs().max() == 0


def test_entropy_of_flat_point_and_half_maps():
    flat, point, half = torch.ones(1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    point[0, 1, 2] = 3
    half[0, :2] = 2
    assert utilization_entropy(flat).item() == pytest.approx(1)
    assert utilization_entropy(point).item() == 0
    assert utilization_entropy(half).item() == pytest.approx(math.log(8) / math.log(16))
    assert utilization_entropy(torch.zeros(1, 4, 4)).item() == 0
    assert utilization_entropy(torch.cat([flat, point])).item() == pytest.approx(0.5)


def test_response_map_puts_each_views_map_into_its_cell():
    size = (8, 8)
    activations = torch.zeros(4, 2, 4, 4)
    activations[2, :, :, 2:] = 1
    out = response_map(activations, grid_regions(2, size)[None], size, size)
    assert out.shape == (1, 8, 8)
    assert out[0, :4].max() == 0
    assert out[0, 4:, 4:].max() == 0
    assert out[0, 4:, 3].min() == 1
    assert out[0, 4:, 0].max() == 0


def test_response_map_compares_the_views_of_one_canvas_and_not_those_of_another():
    size = (8, 8)
    activations = torch.ones(8, 1, 4, 4) * torch.tensor([1.0, 2, 3, 5, 10, 20, 30, 50]).view(8, 1, 1, 1)
    out = response_map(activations, grid_regions(2, size)[None], size, size)
    torch.testing.assert_close(out[0], out[1])
    corners = out[0][[0, 0, 7, 7], [0, 7, 0, 7]]
    torch.testing.assert_close(corners, torch.tensor([0, 0.25, 0.5, 1.0]))


def test_response_map_is_the_mean_over_channels():
    size = (4, 4)
    activations = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean = activations.mean(1)
    want = (mean - mean.min()) / (mean.max() - mean.min())
    torch.testing.assert_close(response_map(activations, grid_regions(1, size)[None], size, size), want)


def test_jitter_divergence_is_kullback_leibler():
    p, q = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.5, 0.5]])
    want = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5)
    assert jitter_divergence(p.log(), q.log()).item() == pytest.approx(want, rel=1e-5)
    assert jitter_divergence(p.log() + 3, p.log() - 1).item() == pytest.approx(0, abs=1e-6)


def test_spread_scores_average_the_windows_that_hold_a_pixel():
    size = (8, 8)
    windows = candidate_windows(2, size)
    scores = torch.rand(2, len(windows), generator=torch.Generator().manual_seed(1))
    raw = torch.zeros(2, 8, 8)
    for n in range(2):
        for y in range(8):
            for x in range(8):
                held = [
                    s for s, (x1, y1, x2, y2) in zip(scores[n], windows, strict=True) if x1 <= x < x2 and y1 <= y < y2
                ]
                raw[n, y, x] = sum(held) / len(held)
    torch.testing.assert_close(spread_scores(scores, windows, size), stretch(raw))


def test_response_map_of_maps_of_both_signs_is_their_mean_magnitude():
    size = (4, 4)
    activations = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor([1.0, -1, 1]).view(1, 3, 1, 1)
    cells = grid_regions(1, size)[None]
    torch.testing.assert_close(
        response_map(signs * activations, cells, size, size), response_map(activations, cells, size, size)
    )
