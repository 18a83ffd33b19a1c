"""The cosine transform against SciPy's, and how a network's use of each cosine is measured."""

import pytest
import torch
from scipy.fft import dctn, idctn

from distil.functional.dct import (
    GREY,
    coefficients,
    cosines,
    from_coefficients,
    from_kept_coefficients,
    information_about_cosines,
    jitter_of_cosines,
    lowest_frequencies,
    response_to_cosines,
    shared_among_views,
)
from distil.functional.utilization import jitter_divergence

SHAPE = (3, 4, 6)


def images(count=5, shape=SHAPE, seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def one_coefficient(position, slope=3.0):
    """A classifier of two classes that looks at one coefficient alone."""

    def predict(x):
        seen = slope * coefficients(x)[:, position]
        return torch.stack([torch.zeros_like(seen), seen], 1)

    return predict


@pytest.mark.parametrize("shape", [SHAPE, (1, 28, 28), (1, 1, 5)])
def test_coefficients_equal_scipys(shape):
    x = images(shape=shape)
    expected = torch.from_numpy(dctn((x - GREY).numpy(), type=2, norm="ortho", axes=(1, 2, 3))).flatten(1)
    torch.testing.assert_close(coefficients(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 28, 32])
def test_cosines_are_orthonormal(size):
    rows = cosines(size, dtype=torch.float64)
    torch.testing.assert_close(rows @ rows.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)


def test_color_rows_are_brightness_and_two_differences():
    rows = cosines(3) * torch.tensor([3.0, 2.0, 6.0]).sqrt()[:, None]
    torch.testing.assert_close(rows, torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]), rtol=0, atol=1e-6)


def test_images_are_the_sums_of_their_cosines():
    x = images()
    torch.testing.assert_close(from_coefficients(coefficients(x), SHAPE), x, rtol=0, atol=1e-5)
    kept = torch.tensor([5, 71, 0])
    values = coefficients(x)
    only = torch.zeros_like(values)
    only[:, kept] = values[:, kept]
    found = from_kept_coefficients(values[:, kept], kept, SHAPE)
    expected = idctn(only.unflatten(1, SHAPE).numpy(), type=2, norm="ortho", axes=(1, 2, 3)) + GREY  # pyright: ignore
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_views_take_their_numbers_one_after_another_and_leave_a_rest():
    numbers = torch.arange(14.0).view(2, 7)
    assert shared_among_views(numbers, 3).tolist() == [[0, 1, 2], [3, 4, 5], [7, 8, 9], [10, 11, 12]]


def test_response_is_variance_times_fisher_information():
    x, position, slope = images(40), 7, 3.0
    found = response_to_cosines(one_coefficient(position, slope), x, torch.Generator().manual_seed(0), draws=400)
    seen = coefficients(x)[:, position]
    p = torch.sigmoid(slope * seen)
    expected = seen.var() * (slope**2 * p * (1 - p)).mean()
    assert float(found[position]) == pytest.approx(float(expected), rel=0.05)
    others = found[torch.arange(72) != position]
    assert float(others.abs().max()) < 1e-6 * float(expected)


def test_information_is_told_of_a_coefficient_that_all_images_lack():
    x, position = images(8), 7
    values = coefficients(x)
    values[:, position] = 0
    lacking = from_coefficients(values, SHAPE)
    found = information_about_cosines(one_coefficient(position), lacking, torch.Generator().manual_seed(0), draws=50)
    assert float(found[position]) == pytest.approx(3.0**2 / 4, rel=1e-4)
    response = response_to_cosines(one_coefficient(position), lacking, torch.Generator().manual_seed(0))
    assert float(response[position]) < 1e-9


def test_jitter_from_donors_moves_what_all_images_share():
    x, donors, position = images(1).repeat(4, 1, 1, 1), images(3, seed=1), 7
    predict = one_coefficient(position)
    alike = jitter_of_cosines(predict, x, torch.Generator().manual_seed(3))
    assert float(alike.abs().max()) < torch.finfo(torch.float32).eps  # equal predictions, but for rounding
    found = jitter_of_cosines(predict, x, torch.Generator().manual_seed(3), donors)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(3))[[0, 1, 2, 0]]
    values = coefficients(x)
    values[:, position] = coefficients(donors)[order, position]
    expected = jitter_divergence(predict(x), predict(from_coefficients(values, SHAPE))).mean()
    torch.testing.assert_close(found[position], expected, rtol=1e-4, atol=1e-7)


def test_jitter_is_the_divergence_after_swapping_one_coefficient():
    x, position = images(6), 7
    predict = one_coefficient(position)
    found = jitter_of_cosines(predict, x, torch.Generator().manual_seed(3))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    values = coefficients(x)
    values[:, position] = values[order, position]
    swapped = from_coefficients(values, SHAPE)
    expected = jitter_divergence(predict(x), predict(swapped)).mean()
    torch.testing.assert_close(found[position], expected, rtol=1e-4, atol=1e-7)
    assert float(found[torch.arange(72) != position].abs().max()) < 1e-5 * float(expected)


def test_the_lowest_frequencies_come_first_and_brightness_before_color():
    order = lowest_frequencies((3, 4, 4)).argsort(descending=True, stable=True).tolist()
    assert order[0] == 0
    assert set(order[1:3]) == {1, 4}
    assert order.index(16) > order.index(5)
