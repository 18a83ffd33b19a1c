"""Selection rules against exhaustive or step-by-step references."""

from itertools import combinations

import pytest
import torch

from distil.dataset.selection.coresets import herding, k_center, k_means, random_choice


def points(n=12, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_herding_step_by_step():
    x = points()
    chosen = []
    for step in range(5):
        best, best_gap = None, float("inf")
        for i in range(len(x)):
            if i in chosen:
                continue
            mean = x[[*chosen, i]].sum(0) / (step + 1)
            gap = (mean - x.mean(0)).norm().item()
            if gap < best_gap:
                best, best_gap = i, gap
        chosen.append(best)
    assert herding(x, 5).tolist() == chosen


def test_k_center_is_within_twice_the_best_radius():
    x = points()

    def radius(rows):
        return torch.cdist(x, x[list(rows)]).min(1).values.max().item()

    best = min(radius(rows) for rows in combinations(range(len(x)), 3))
    chosen = k_center(x, 3).tolist()
    assert len(set(chosen)) == 3
    assert radius(chosen) <= 2 * best + 1e-6


def test_k_center_begins_in_the_middle_and_then_goes_farthest():
    x = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert k_center(x, 3).tolist() == [2, 3, 0]


def test_k_means_finds_the_middle_of_each_cluster_largest_first():
    offsets = torch.tensor([[0.0, 0], [0.1, 0], [-0.1, 0]])
    x = torch.cat([offsets, offsets + 10, offsets[:1] + torch.tensor([[10.0, 10.01]])])
    assert k_means(x, 2, seed=0).tolist()[1] == 0
    assert k_means(x, 2, seed=0).tolist()[0] in (3, 6)


@pytest.mark.parametrize("rule", [herding, k_center, lambda x, n: k_means(x, n, 0)])
def test_every_row_is_taken_once(rule):
    assert sorted(rule(points(), 12).tolist()) == list(range(12))


def test_random_choice_is_addressed_by_the_class_name():
    assert random_choice(50, 5, 0, "cat").tolist() == random_choice(50, 5, 0, "cat").tolist()
    assert random_choice(50, 5, 0, "cat").tolist() != random_choice(50, 5, 0, "dog").tolist()
    assert len(set(random_choice(50, 50, 0, "cat").tolist())) == 50
