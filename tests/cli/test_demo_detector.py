"""The detector tour from end to end, with few scenes."""

import json
import os
import shlex
import signal
from contextlib import contextmanager
from html import unescape

import pytest

from distil.cli import detector_tour
from distil.cli.main import main
from distil.data.detection import opener, scenes
from distil.detector import presets as detector_presets
from distil.detector.training.trainer import Run


@pytest.fixture
def few_scenes(monkeypatch):
    few = scenes.scenes_source
    monkeypatch.setattr(opener, "scenes_source", lambda *count, seed=0: few(6, 2, 4, seed=seed))
    monkeypatch.setattr(detector_presets, "SCENES", detector_presets.SCENES | {"teacher_floor": 0.0, "batch": 3})


def test_the_tour_trains_three_detectors_and_writes_one_report(few_scenes, tmp_path):
    seen = []

    @contextmanager
    def stage(title):
        yield lambda name, **fields: seen.append((title, name))

    for _ in range(2):
        tour = detector_tour.run_detector_demo(tmp_path, device="cpu", stage=stage, epochs=(1, 2))
    assert list(tour.scores) == ["teacher", "student alone", "student with gkd"]
    assert tour.weights["teacher"] > 5 * tour.weights["student alone"]
    assert tour.weights["student alone"] == tour.weights["student with gkd"]
    assert all(score.images == 4 for score in tour.scores.values())
    assert len(tour.reliabilities.values) == tour.scores["teacher"].objects
    titles = {title for title, name in seen if name == "validation"}
    assert len(titles) == 3
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["scores"]["teacher"]["ap"] == tour.scores["teacher"].ap
    by_tag = summary["by_tag"]["student with gkd"]
    assert {kind: each["objects"] for kind, each in by_tag.items()} == {
        kind: each["objects"] for kind, each in summary["reliability"].items()
    }
    assert any("gkd" in line for line in summary["preflight"])
    page = (tmp_path / "report.html").read_text()
    for text in (
        "student with gkd",
        "The prototypes that both share",
        "Where the two disagree most",
        "teacher's AP50",
    ):
        assert text in unescape(page)
    assert page.count("<img ") == 4
    assert "http" not in page.split("</style>")[1]


def test_a_stopped_tour_prints_a_command_that_goes_on(few_scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(detector_tour.run_detector_demo.__kwdefaults__, "epochs", (1, 2))
    out, real = tmp_path / "my tour", Run.update

    def update(self, batch, epoch):
        real(self, batch, epoch)
        if self.training.epochs == 2 and self.step == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "update", update)
        assert main(["demo", "detector", "--out", str(out), "--device", "cpu"]) == 128 + signal.SIGTERM
    told = capsys.readouterr().err
    assert f"distil: interrupted: continue with distil demo detector --out '{out}' --device cpu\n" in told
    command = shlex.split(told.strip().splitlines()[-1].partition("continue with ")[2])
    steps = []
    monkeypatch.setattr(Run, "update", lambda self, *values: (steps.append(self.step), real(self, *values)))
    assert main(command[1:]) == 0
    assert steps == [1, 2, 3, 0, 1, 2, 3]
    assert (out / "report.html").is_file()
    steps.clear()
    assert main(command[1:]) == 0
    assert len(steps) == 10
    assert not (out / ".lock").exists()
