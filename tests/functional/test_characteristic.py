"""Characteristic functions against a slow reference written from the equation in float64."""

import cmath
import math

import pytest
import torch
from torch.nn.functional import normalize

from distil.functional.characteristic import (
    LEAST_PHASE,
    characteristic_distance,
    characteristic_function,
    distance_to,
)


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_function(rows, frequency):
    """mean_n exp(i <t, row_n>), each row of length 1."""
    total = 0j
    for row in rows.tolist():
        length = math.sqrt(sum(x * x for x in row))
        total += cmath.exp(1j * sum(t * x / length for t, x in zip(frequency, row, strict=True)))
    return total / len(rows)


def slow_distance(real, synthetic, frequencies, amplitude, phase):
    total = 0.0
    for frequency in frequencies.tolist():
        p, q = slow_function(real, frequency), slow_function(synthetic, frequency)
        turned = 2 * (abs(p) * abs(q) - p.real * q.real - p.imag * q.imag)
        total += math.sqrt(amplitude * (abs(p) - abs(q)) ** 2 + phase * max(turned, LEAST_PHASE))
    return total / len(frequencies)


@pytest.mark.parametrize(("amplitude", "phase"), [(0.5, 0.5), (1.0, 1.0), (0.2, 0.0), (0.0, 3.0)])
def test_the_distance_is_its_definition(amplitude, phase):
    real, synthetic, frequencies = draws(7, 5), 3 * draws(4, 5, seed=1), draws(9, 5, seed=2)
    found = characteristic_distance(real, synthetic, frequencies, amplitude, phase)
    assert float(found) == pytest.approx(slow_distance(real, synthetic, frequencies, amplitude, phase), rel=1e-12)
    assert float(found) > 0.01
    known = characteristic_function(normalize(real), frequencies)
    assert torch.equal(distance_to(*known, synthetic, frequencies, amplitude, phase), found)


def test_with_both_weights_one_it_is_the_distance_of_complex_numbers():
    real, synthetic, frequencies = draws(7, 5), draws(4, 5, seed=1), draws(9, 5, seed=2)
    gaps = [abs(slow_function(real, t) - slow_function(synthetic, t)) for t in frequencies.tolist()]
    assert float(characteristic_distance(real, synthetic, frequencies, 1.0, 1.0)) == pytest.approx(
        sum(gaps) / len(gaps)
    )


def test_equal_sets_are_as_near_as_the_bound_of_the_phase_allows():
    real, frequencies = draws(7, 5), draws(9, 5, seed=2)
    same = real[torch.randperm(7, generator=torch.Generator().manual_seed(0))] * 2.5
    nearest = math.sqrt(0.5 * LEAST_PHASE)
    assert float(characteristic_distance(real, same, frequencies)) == pytest.approx(nearest, rel=1e-3)
    assert float(characteristic_distance(real, real[:6], frequencies)) > 1e4 * nearest


def test_equal_sets_have_a_gradient_that_is_finite():
    rows = draws(7, 5).float()
    synthetic = rows.clone().requires_grad_()
    characteristic_distance(rows, synthetic, draws(9, 5, seed=2).float()).backward()
    assert synthetic.grad is not None
    assert bool(synthetic.grad.isfinite().all())
