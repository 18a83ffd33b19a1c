"""The demo from end to end, with networks and runs cut to seconds."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from distil.cli import tour
from distil.dataset.methods import preset
from distil.distilled_set.record import DistilledSet
from distil.evaluation.protocols import PROTOCOLS
from tests.dataset.conftest import changed_where


@pytest.fixture
def small(monkeypatch):
    def tiny(method, key, ipc):
        changes = {"width": 4, "outer": 2, "inner": 2, "network_samples": 8, "batch": 4, "validations": 1}
        return changed_where(preset(method, key, ipc), **changes, proxy_steps=2)

    monkeypatch.setattr(tour, "preset", tiny)
    monkeypatch.setattr(tour, "RUNS", 2)
    monkeypatch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], max_updates=5, whole_updates=5))


def test_the_demo_judges_both_methods_beside_their_controls_and_writes_a_report(small, tmp_path):
    seen = []

    @contextmanager
    def stage(title):
        def events(name, **fields):
            seen.append((title, name))

        yield events

    for _ in range(2):
        rows = tour.run_demo(tmp_path, device="cpu", stage=stage)
    assert [row["name"] for row in rows] == ["random real images", "IDC", "UDD", "whole training set"]
    assert [row["images_per_class"] for row in rows] == [1, 1, 1, None]
    assert all(0 <= row["mean"] <= 100 for row in rows)
    assert rows[1]["bytes"] == DistilledSet.load(tmp_path / "idc" / "distilled.safetensors").bytes["total"]
    page = (tmp_path / "report.html").read_text()
    assert "reconstruction" in page
    assert "distil evaluate runs/udd/distilled.safetensors digits --protocol quick --width 4 --runs 2" in page
    titles = list(dict.fromkeys(title for title, _ in seen))
    assert titles[0] == "IDC: distil 1,297 images into 10"
    assert len(titles) == 6
    assert {name for _, name in seen} >= {"start", "step", "validation", "evaluate", "cosines", "done"}
