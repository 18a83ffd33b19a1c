"""IDM's queue of networks."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from distil.dataset.compose import networks_of, task_of
from distil.dataset.pool import PoolNetworks
from distil.dataset.restoring import check_tensors

from .conftest import make_images, tiny


def pool_of(real, **changes) -> PoolNetworks:
    settings = tiny("idm", **changes)
    made: Any = networks_of(settings, task_of(real, settings))
    return made


def copies(states):
    return [[weight.detach().clone() for weight in state.weights] for state in states]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_fresh_network_joins_at_the_end_and_the_oldest_leaves(real):
    pool = pool_of(real, network_first=2, network_most=4, network_every=2)
    pool.fresh(0)
    sizes, queue = [len(pool.queue)], pool.queue
    for outer in range(1, 7):
        pool.fresh(outer)
        sizes.append(len(pool.queue))
        left = len(queue) + (outer % 2 == 0) - len(pool.queue)
        kept = len(queue) - left
        assert all(now is before for now, before in zip(pool.queue, queue[left:], strict=False))
        if len(pool.queue) > kept:
            number = pool.settings.first + outer // 2
            assert same(copies(pool.queue[-1:])[0], copies([pool.drawn.fresh(number)])[0])
        queue = pool.queue
    assert sizes == [3, 3, 4, 4, 4, 4, 4]


def test_so_many_networks_as_asked_for_are_trained_between_two_steps(real):
    pool = pool_of(real, network_first=5, network_most=9, network_every=100, network_trained=2)
    pool.fresh(0)
    trained = torch.zeros(6)
    for outer in range(1, 9):
        before = copies(pool.queue)
        pool.fresh(outer)
        moved = [not same(a, b) for a, b in zip(before, copies(pool.queue), strict=True)]
        assert sum(moved) == 2
        trained += torch.tensor(moved)
    assert (trained > 0).sum() > 3


def test_a_step_is_matched_in_a_network_of_the_queue_and_not_always_the_same(real):
    pool = pool_of(real, network_first=5, network_most=9, network_every=100)
    places = []
    for outer in range(12):
        state = pool.fresh(outer)
        assert pool.fresh(outer) is state
        places += [place for place, one in enumerate(pool.queue) if one is state]
    assert len(places) == 12
    assert len(set(places)) > 3


def test_networks_learn_the_real_images_and_say_how_well(real):
    easy = make_images(classes=2, each=40)
    changes = {"network_first": 1, "network_every": 1000, "network_batch": 32, "network_steps": 10, "network_lr": 0.05}
    pool = pool_of(easy, **changes)
    pool.fresh(0)
    assert [state.accuracy for state in pool.queue] == [0.0, 0.0]
    for outer in range(1, 5):
        pool.fresh(outer)
    assert all(state.accuracy > 0.9 for state in pool.queue)

    idle = pool_of(easy, **(changes | {"network_lr": 0.0}))
    idle.fresh(0)
    for state in idle.queue:
        with torch.no_grad():
            state.net.classifier.weight.zero_()  # pyright: ignore
            state.net.classifier.bias.copy_(torch.tensor([1.0, 0.0]))  # pyright: ignore
    idle.fresh(1)
    assert all(0.4 < state.accuracy < 0.6 for state in idle.queue)


@pytest.mark.parametrize("outer", [0, 3, 7])
def test_a_restored_queue_goes_on_as_the_first(real, outer):
    changes = {"network_first": 2, "network_most": 4, "network_every": 2}
    pool, again = pool_of(real, **changes), pool_of(real, **changes)
    pool.fresh(outer)
    state = {name: tensor.clone() for name, tensor in pool.state().items()}
    check_tensors(state, pool.expected(outer))
    again.restore(state)
    for later in (outer, outer + 1, outer + 4):
        assert same(copies([pool.fresh(later)])[0], copies([again.fresh(later)])[0])
    assert [one.accuracy for one in pool.queue] == [one.accuracy for one in again.queue]
    assert all(same(a, b) for a, b in zip(copies(pool.queue), copies(again.queue), strict=True))


def test_seeds_make_other_queues(real):
    one, other = pool_of(real), pool_of(real, seed=1)
    assert not same(copies([one.fresh(2)])[0], copies([other.fresh(2)])[0])
    equal = PoolNetworks(one.settings, one.drawn, replace(one.training))
    assert same(copies([one.fresh(3)])[0], copies([equal.fresh(3)])[0])
