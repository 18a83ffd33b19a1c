"""The decoder against crop + interpolate, against IDC's multi-formation written out, and against itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate, pad

from distil.functional.regions import (
    candidate_windows,
    crop_resize,
    grid_regions,
    intersection_over_union,
    lowest_apart,
    paste_back,
    whole_region,
    window_means,
)

F64 = torch.float64


def slow_crop_resize(images, regions, size):
    """Pixel by pixel from the definition: bilinear interpolation inside the region, mid grey beyond the canvas."""
    n, channels, height, width = images.shape
    regions = regions.expand(n, -1, -1)
    views = torch.zeros(n, regions.shape[1], channels, *size, dtype=images.dtype)
    for i in range(n):
        for r, (x1, y1, x2, y2) in enumerate(regions[i].tolist()):
            for row in range(size[0]):
                y = y1 + (row + 0.5) * (y2 - y1) / size[0] - 0.5
                y = min(max(y, y1), max(y2 - 1, y1))
                for column in range(size[1]):
                    x = x1 + (column + 0.5) * (x2 - x1) / size[1] - 0.5
                    x = min(max(x, x1), max(x2 - 1, x1))
                    for c in range(channels):
                        value = 0.0
                        for v in (math.floor(y), math.floor(y) + 1):
                            for u in (math.floor(x), math.floor(x) + 1):
                                inside = 0 <= v < height and 0 <= u < width
                                pixel = images[i, c, v, u].item() if inside else 0.5
                                value += (1 - abs(y - v)) * (1 - abs(x - u)) * pixel
                        views[i, r, c, row, column] = value
    return views.flatten(0, 1)


def multi_formation(images, factor):
    """IDC's uniform multi-formation from its description: pad with mid grey, cut equal cells, enlarge bilinearly."""
    side = images.shape[-1]
    cell = -(-side // factor)
    padded = pad(images, (0, cell * factor - side) * 2, value=0.5)
    cells = [
        padded[:, :, cell * i : cell * (i + 1), cell * j : cell * (j + 1)] for i in range(factor) for j in range(factor)
    ]
    views = [interpolate(c, size=(side, side), mode="bilinear", align_corners=False) for c in cells]
    return torch.stack(views, dim=1).flatten(0, 1)


def random_images(n=2, channels=3, height=8, width=8, dtype=F64, seed=0):
    return torch.rand(n, channels, height, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (5, 9)])
def test_the_whole_canvas_comes_back_exactly(dtype, size):
    images = random_images(height=size[0], width=size[1], dtype=dtype)
    assert torch.equal(crop_resize(images, whole_region(size)[None], size), images)


@pytest.mark.parametrize("side", [8, 16, 28, 32, 33])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_the_grid_equals_uniform_multi_formation_in_value_and_gradient(side, factor):
    images = random_images(height=side, width=side).requires_grad_()
    ours = crop_resize(images, grid_regions(factor, (side, side))[None].to(F64), (side, side))
    theirs = multi_formation(images, factor)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    weight = torch.randn(ours.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    grads = [torch.autograd.grad((x * weight).sum(), images)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


@given(
    corner=st.tuples(st.floats(0, 6), st.floats(0, 6)),
    extent=st.tuples(st.floats(0.5, 7), st.floats(0.5, 7)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
@settings(max_examples=40, deadline=None)
def test_any_region_equals_the_definition(corner, extent, size):
    images = random_images(n=1, channels=1, height=7, width=8)
    (x, y), (w, h) = corner, extent
    region = torch.tensor([[[x, y, x + w, y + h]]], dtype=F64)
    torch.testing.assert_close(
        crop_resize(images, region, size), slow_crop_resize(images, region, size), rtol=0, atol=1e-9
    )


def test_views_are_canvas_by_canvas_and_regions_may_differ():
    images = random_images()
    regions = torch.tensor([[[0, 0, 4, 4], [2, 2, 8, 8]], [[4, 4, 8, 8], [0, 0, 8, 8]]], dtype=F64)
    views = crop_resize(images, regions, (8, 8))
    assert views.shape == (4, 3, 8, 8)
    for i in range(2):
        for r in range(2):
            alone = crop_resize(images[i : i + 1], regions[i : i + 1, r : r + 1], (8, 8))
            torch.testing.assert_close(views[2 * i + r], alone[0])


def test_one_row_of_regions_serves_every_canvas():
    images, cells = random_images(), grid_regions(2, (8, 8))[None].to(F64)
    shared = crop_resize(images, cells, (8, 8))
    torch.testing.assert_close(shared, crop_resize(images, cells.expand(2, -1, -1), (8, 8)), rtol=0, atol=0)


def test_gradients_in_images_and_in_regions():
    images = random_images(n=1, channels=2, height=5, width=6).requires_grad_()
    regions = torch.tensor([[[0.3, 0.7, 4.1, 3.9], [1.2, 0.4, 5.7, 4.6]]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, r: crop_resize(x, r, (4, 3)), (images, regions))
    assert torch.autograd.gradgradcheck(lambda x: crop_resize(x, regions.detach(), (4, 3)), (images,))


def test_paste_back_is_the_transpose_of_the_decoder():
    images = random_images(n=2, channels=1)
    regions = torch.tensor([[[0, 0, 4, 4], [2.5, 2, 8, 8]], [[4, 4, 8, 8], [1, 0, 7, 6.5]]], dtype=F64)
    maps = random_images(n=2, channels=2, height=5, width=5, seed=3)
    views = crop_resize(images, regions, (5, 5)).view(2, 2, 5, 5)
    averaged, coverage = paste_back(maps, regions, (8, 8))
    torch.testing.assert_close((views * maps).sum(), (images[:, 0] * averaged * coverage).sum())


def test_paste_back_of_ones_is_one_where_a_view_looks():
    regions = torch.tensor([[[0, 0, 4, 4]]], dtype=F64)
    averaged, coverage = paste_back(torch.ones(1, 1, 8, 8, dtype=F64), regions, (8, 8))
    torch.testing.assert_close(averaged[0, :4, :4], torch.ones(4, 4, dtype=F64))
    assert averaged[0, 4:].abs().max() == 0
    assert coverage[0, :4, 4:].max() == 0


@pytest.mark.parametrize("factor", [0, 9])
def test_an_impossible_factor_is_refused(factor):
    with pytest.raises(ValueError, match=f"factor {factor} is not between 1 and the canvas's shorter side, 8"):
        grid_regions(factor, (8, 8))


def test_candidate_windows_at_factor_two():
    windows = candidate_windows(2, (32, 32))
    assert windows.shape == (9, 4)
    assert {tuple(w) for w in grid_regions(2, (32, 32)).tolist()} <= {tuple(w) for w in windows.tolist()}
    assert ((windows[:, 2:] - windows[:, :2]) == 16).all()


@given(side=st.integers(4, 40), factor=st.integers(1, 4))
def test_candidate_windows_stay_inside_and_reach_both_ends(side, factor):
    windows = candidate_windows(factor, (side, side))
    assert windows.min() == 0
    assert windows.max() == side
    assert len({tuple(w) for w in windows.tolist()}) == len(windows)


def test_intersection_over_union_by_hand():
    a = torch.tensor([[0.0, 0, 2, 2]])
    b = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])
    torch.testing.assert_close(intersection_over_union(a, b), torch.tensor([[1, 1 / 3, 0]]))


def test_window_means_equal_slices():
    maps = random_images(n=3, channels=1)[:, 0]
    windows = candidate_windows(2, (8, 8))
    means = window_means(maps, windows)
    for r, (x1, y1, x2, y2) in enumerate(windows.int().tolist()):
        torch.testing.assert_close(means[:, r], maps[:, y1:y2, x1:x2].mean((1, 2)))


def test_lowest_apart_passes_over_crowded_windows():
    windows = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.5], [4, 4, 8, 8]])
    scores = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    chosen = lowest_apart(scores, windows, 2)
    assert chosen[0].tolist() == [windows[0].tolist(), windows[2].tolist()]
    assert chosen[1].tolist() == [windows[2].tolist(), windows[1].tolist()]


def test_lowest_apart_takes_crowded_windows_when_nothing_else_is_left():
    windows = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.5]])
    assert lowest_apart(torch.tensor([[1.0, 2.0]]), windows, 2)[0].tolist() == windows.tolist()
    with pytest.raises(ValueError, match="3 windows were asked for and there are 2"):
        lowest_apart(torch.tensor([[1.0, 2.0]]), windows, 3)
