"""Addressed randomness."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from distil.rng import seed_at, stream


@given(st.integers(), st.lists(st.one_of(st.integers(), st.text())), st.lists(st.one_of(st.integers(), st.text())))
def test_different_addresses_have_different_seeds(seed, one, other):
    assert (seed_at(seed, *one) == seed_at(seed, *other)) == (one == other)


def test_a_number_and_its_text_are_different_addresses():
    assert seed_at(0, 1) != seed_at(0, "1")
    assert seed_at(0, "a", "b") != seed_at(0, "ab")


def test_the_seed_of_an_address_never_changes():
    assert seed_at(0, "network", 3) == 3777806225640563662


def test_equal_addresses_draw_alike_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    a, b = torch.rand(4, generator=stream(7, "x", 2)), torch.rand(4, generator=stream(7, "x", 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, torch.rand(4, generator=stream(8, "x", 2)))
    assert torch.equal(before, torch.random.get_rng_state())
