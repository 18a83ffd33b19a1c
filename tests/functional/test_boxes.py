"""Levels, painted maps and means over boxes: by hand, cell by cell, and against RoIAlign with very many samples."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from distil.functional.boxes import mean_over_boxes, paint_boxes, pyramid_levels, released_levels

F64 = torch.float64


def square(side):
    return [10.0, 20.0, 10.0 + side, 20.0 + side]


def draws(*shape, seed=0):
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def random_boxes(count, height, width, seed=0):
    a, b = draws(count, 2, seed=seed), draws(count, 2, seed=seed + 1)
    size = torch.tensor([width, height], dtype=F64)
    return torch.cat([torch.minimum(a, b) * size, torch.maximum(a, b) * size], dim=1)


def test_levels_by_hand():
    boxes = torch.tensor([square(side) for side in (1.0, 56.0, 111.9, 112.0, 223.9, 224.0, 448.0, 896.0, 5000.0)])
    assert pyramid_levels(boxes, (4, 8, 16, 32, 64)).tolist() == [0, 0, 0, 1, 1, 2, 3, 4, 4]


def test_a_level_depends_on_the_area_alone():
    boxes = torch.tensor([[0.0, 0.0, 224.0, 56.0], [0.0, 0.0, 56.0, 224.0]])
    assert pyramid_levels(boxes, (4, 8, 16)).tolist() == [1, 1]


def test_levels_of_a_pyramid_that_lacks_the_finest():
    boxes = torch.tensor([square(side) for side in (1.0, 60.0, 112.0, 224.0, 448.0, 896.0, 1792.0, 5000.0)])
    assert pyramid_levels(boxes, (8, 16, 32, 64, 128)).tolist() == [0, 0, 0, 1, 2, 3, 4, 4]


def test_the_nearest_stride_stands_in_and_the_finer_of_two():
    boxes = torch.tensor([square(side) for side in (112.0, 224.0, 448.0)])
    assert pyramid_levels(boxes, (4, 16)).tolist() == [0, 1, 1]
    assert pyramid_levels(boxes, (7, 16)).tolist() == [0, 1, 1]


def test_boxes_without_area_belong_to_the_finest_level():
    boxes = torch.tensor([[5.0, 5.0, 5.0, 9.0], [5.0, 5.0, 2.0, 9.0]])
    assert pyramid_levels(boxes, (4, 8)).tolist() == [0, 0]
    assert pyramid_levels(torch.zeros(0, 4), (4, 8)).tolist() == []


def test_released_levels_add_a_pixel_and_count_from_the_finest():
    sides = (1.0, 110.9, 111.0, 112.0, 222.9, 223.0, 447.0, 895.0, 5000.0)
    boxes = torch.tensor([square(side) for side in sides])
    assert released_levels(boxes, 5).tolist() == [0, 0, 1, 1, 1, 2, 3, 4, 4]
    assert released_levels(boxes, 2).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    long = torch.tensor([[0.0, 0.0, 223.0, 55.0], [5.0, 5.0, 2.0, 9.0]])
    assert released_levels(long, 5).tolist() == [1, 0]


def test_levels_need_strides():
    with pytest.raises(ValueError, match="a box belongs to a level of a pyramid, and no strides were given"):
        pyramid_levels(torch.zeros(1, 4), ())


def slow_paint(boxes, values, size, stride):
    """Cell by cell, box by box."""
    painted = torch.zeros(size, dtype=values.dtype)
    covered = torch.zeros(size, dtype=torch.bool)

    def paint(row, column, value):
        painted[row, column] = max(painted[row, column], value) if covered[row, column] else value
        covered[row, column] = True

    for (x1, y1, x2, y2), value in zip(boxes.tolist(), values, strict=True):
        cells = [
            (row, column)
            for row in range(size[0])
            for column in range(size[1])
            if x1 <= (column + 0.5) * stride < x2 and y1 <= (row + 0.5) * stride < y2
        ]
        if not cells:
            row = min(max(math.floor((y1 + y2) / 2 / stride), 0), size[0] - 1)
            column = min(max(math.floor((x1 + x2) / 2 / stride), 0), size[1] - 1)
            cells = [(row, column)]
        for row, column in cells:
            paint(row, column, value)
    return painted


def test_paint_by_hand():
    boxes = torch.tensor([[0.0, 0, 16, 8], [8.0, 0, 24, 16], [25.0, 17, 27, 18]])
    painted = paint_boxes(boxes, torch.tensor([0.9, 0.5, 0.7]), (3, 4), 8)
    assert painted.tolist() == torch.tensor([[0.9, 0.9, 0.5, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0.7]]).tolist()


def test_the_far_edges_of_a_box_are_exclusive():
    boxes = torch.tensor([[4.0, 4, 12, 12], [12.0, 12, 20, 20]])
    assert paint_boxes(boxes, torch.tensor([0.5, 0.25]), (3, 3), 8).tolist() == [[0.5, 0, 0], [0, 0.25, 0], [0, 0, 0]]


@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), stride=st.sampled_from([4, 8, 16]))
@settings(max_examples=40, deadline=None)
def test_painting_equals_the_loop(seed, count, stride):
    boxes = random_boxes(count, 48, 64, seed)
    boxes[::2, 2:] = boxes[::2, :2] + (boxes[::2, 2:] - boxes[::2, :2]) / 8
    values = draws(count, seed=seed + 2)
    size = (48 // stride, 64 // stride)
    painted = paint_boxes(boxes, values, size, stride)
    assert torch.equal(painted, slow_paint(boxes, values, size, stride))
    assert torch.equal(painted, paint_boxes(boxes.flip(0), values.flip(0), size, stride))


def test_a_box_of_value_zero_or_below_still_covers():
    boxes = torch.tensor([[0.0, 0, 8, 8], [0.0, 0, 16, 8]])
    assert paint_boxes(boxes, torch.tensor([0.0, -2.0]), (1, 3), 8).tolist() == [[0.0, -2.0, 0.0]]


def test_boxes_beyond_the_map_paint_its_nearest_cell():
    boxes = torch.tensor([[-30.0, -30, -20, -20], [100.0, 4, 110, 6]])
    assert paint_boxes(boxes, torch.tensor([0.25, 0.5]), (2, 2), 8).tolist() == [[0.25, 0.5], [0.0, 0.0]]


def test_no_boxes_paint_nothing():
    painted = paint_boxes(torch.zeros(0, 4), torch.zeros(0), (2, 3), 8)
    assert painted.shape == (2, 3)
    assert not painted.any()


def test_gradient_of_a_painted_map():
    boxes, values = random_boxes(3, 16, 16), draws(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: paint_boxes(boxes, v, (4, 4), 4), (values,))


def slow_mean(features, box, stride, samples=400):
    """Mean over a fine grid of points of the box, each read by bilinear interpolation held at the edge."""
    x1, y1, x2, y2 = box.tolist()
    at = (torch.arange(samples, dtype=F64) + 0.5) / samples

    def interpolation(start, end, length):
        position = ((start + at * (end - start)) / stride - 0.5).clamp(0, length - 1)
        return torch.relu(1 - (position[:, None] - torch.arange(length)).abs())

    rows = interpolation(y1, y2, features.shape[1])
    columns = interpolation(x1, x2, features.shape[2])
    return torch.einsum("yh,chw,xw->cyx", rows, features, columns).mean((1, 2))


@pytest.mark.parametrize("stride", [4, 16, 64])
def test_a_mean_equals_very_many_samples(stride):
    features = draws(2, 64 // stride, 128 // stride)
    edges = torch.tensor([[0, 0, 1, 64], [127, 63, 128, 64], [-5, -9, -1, 3], [120, 20, 140, 90]], dtype=F64)
    boxes = torch.cat([random_boxes(6, 64, 128, seed=5), edges])
    means = mean_over_boxes(features, boxes, stride)
    slow = torch.stack([slow_mean(features, box, stride) for box in boxes])
    torch.testing.assert_close(means, slow, rtol=0, atol=2e-4)


def test_a_mean_is_the_limit_of_roi_align():
    features = draws(3, 16, 24)
    boxes = random_boxes(8, 64, 96, seed=2)
    means = mean_over_boxes(features, boxes, 4)
    for samples, tolerance in ((4, 0.1), (64, 2e-4)):
        pooled = roi_align(features[None], [boxes], 1, 1 / 4, samples, True).flatten(1)
        torch.testing.assert_close(means, pooled, rtol=0, atol=tolerance)


def test_several_images_are_painted_as_each_alone_and_minus_infinity_paints_nothing():
    boxes = torch.stack([random_boxes(5, 40, 56, seed=seed) for seed in (3, 4)])
    values = draws(2, 5)
    values[1, 2:] = -torch.inf
    painted = paint_boxes(boxes, values, (5, 7), 8)
    assert torch.equal(painted[0], paint_boxes(boxes[0], values[0], (5, 7), 8))
    assert torch.equal(painted[1], paint_boxes(boxes[1, :2], values[1, :2], (5, 7), 8))
    assert paint_boxes(torch.zeros(2, 0, 4), torch.zeros(2, 0), (5, 7), 8).shape == (2, 5, 7)


def test_means_by_hand():
    features = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    boxes = torch.tensor([[0.0, 0, 32, 8], [4.0, 0, 12, 8], [8.0, 0, 16, 8], [12.0, 3, 12.0, 3], [0.0, 0, 8, 8]])
    expected = torch.tensor([[1.5], [0.5], [1.0], [1.0], [0.125]])
    torch.testing.assert_close(mean_over_boxes(features, boxes, 8), expected)


def test_a_constant_map_has_that_mean_everywhere():
    boxes = torch.cat([random_boxes(20, 40, 40), torch.tensor([[-9.0, -9, 60, 70], [50, 50, 60, 60]], dtype=F64)])
    means = mean_over_boxes(torch.full((2, 5, 5), 3.0, dtype=F64), boxes, 8)
    torch.testing.assert_close(means, torch.full((22, 2), 3.0, dtype=F64))


def test_means_over_no_boxes():
    features = draws(3, 4, 4).requires_grad_()
    means = mean_over_boxes(features, torch.zeros(0, 4, dtype=F64), 8)
    assert means.shape == (0, 3)
    means.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


def test_gradient_of_a_mean():
    boxes = random_boxes(3, 16, 16)
    assert torch.autograd.gradcheck(lambda x: mean_over_boxes(x, boxes, 4), (draws(2, 4, 4).requires_grad_(),))


@pytest.mark.parametrize(
    ("box", "centers", "floor", "outward"),
    [
        ([8.0, 8.0, 24.0, 24.0], (1, 2), (1, 2), (1, 3)),
        ([11.0, 11.0, 21.0, 21.0], (1, 2), (1, 1), (1, 3)),
        ([13.0, 13.0, 15.0, 15.0], (1, 1), (1, 1), (1, 2)),
        ([0.0, 0.0, 39.0, 39.0], (0, 4), (0, 3), (0, 4)),
        ([3.0, 3.0, 100.0, 100.0], (0, 4), (0, 4), (0, 4)),
    ],
)
def test_which_cells_a_box_paints_by_hand(box, centers, floor, outward):
    """Of a map of 5 x 5 cells of 8 pixels, first and last."""
    for cells, (first, last) in (("centers", centers), ("floor", floor), ("outward", outward)):
        painted = paint_boxes(torch.tensor([box]), torch.tensor([0.5]), (5, 5), 8, cells=cells)  # pyright: ignore
        want = torch.zeros(5, 5)
        want[first : last + 1, first : last + 1] = 0.5
        assert torch.equal(painted, want), cells


def test_a_thin_box_paints_the_cell_of_its_first_corner_or_of_its_center():
    thin = torch.tensor([[8.0, 17.0, 32.0, 18.0]])
    assert paint_boxes(thin, torch.ones(1), (5, 5), 8, cells="floor").nonzero().tolist() == [[2, 1]]
    assert paint_boxes(thin, torch.ones(1), (5, 5), 8).nonzero().tolist() == [[2, 2]]
    outward = paint_boxes(thin, torch.ones(1), (5, 5), 8, cells="outward")
    assert outward.nonzero().tolist() == [[row, column] for row in (2, 3) for column in (1, 2, 3, 4)]
