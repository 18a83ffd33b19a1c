"""The estimate of a run's time, by a clock that only what is counted moves."""

from types import SimpleNamespace

import pytest

from distil.dataset import config, estimate, pool
from distil.dataset.matching import MatchingLoop
from distil.dataset.sampling import KMeansSampler

from .conftest import tiny


@pytest.fixture
def clock(monkeypatch):
    """In seconds: the clusters of a class 100, training a network of the queue 10, an update of an expert 1000, a
    gradient 1."""
    now = [0.0]

    def slow(place, name, seconds):
        before = getattr(place, name)

        def counted(*args, **named):
            now[0] += seconds
            return before(*args, **named)

        monkeypatch.setattr(place, name, counted)

    slow(KMeansSampler, "_choose", 100.0)
    slow(pool, "train_on_real", 10.0)
    slow(estimate, "train_batch", 1000.0)
    slow(MatchingLoop, "gradient", 1.0)
    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: now[0]))


@pytest.mark.parametrize(
    ("method", "changes", "seconds"),
    [
        ("idc", {"outer": 4, "inner": 20}, 80),
        ("dream", {"outer": 4, "inner": 20, "cluster_every": 10}, 80 + 4 * 2 * 300),
        ("dream", {"outer": 4, "inner": 25, "cluster_every": 10}, 100 + 4 * 3 * 300),
        ("dream", {"outer": 4, "inner": 20, "cluster_every": 10, "target_reuse": 5}, 400 + 4 * 2 * 300),
        ("idm", {"outer": 40}, 40 + 40 * 20),
        ("idm", {"outer": 40, "target_reuse": 5}, 200 + 40 * 20),
        ("ncfm", {"outer": 40}, 40),
    ],
)
def test_clusters_and_queues_count_as_often_as_they_come(real, clock, method, changes, seconds):
    assert estimate.seconds_of_run(real, tiny(method, **changes)) == pytest.approx(seconds)


def test_experts_count_every_batch_of_every_epoch(real, clock):
    settings = config.Experts(runs=5, epochs=7, batch=10)
    assert estimate.seconds_of_experts(real, settings, "convnet2", 4) == pytest.approx(5 * 7 * 4 * 1000)
