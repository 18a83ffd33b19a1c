"""Detectors and half-way run folders that version 0.1 wrote load, and continue to the same result."""

import json
import lzma
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distil.cli.main import main
from distil.detector.training.train import train_detector
from distil.fields import leaves
from distil.files import load_tensors
from distil.networks.detectors import load_detector

from .tiny import cells, squares, tiny_settings

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1" / "detector"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
RUNS = {
    "taught": {
        "loss": "gkd,pkd=0.05,mgd",
        "optimizer": "adamw",
        "prototype_features": "training",
        "color": 0.2,
        "global_levels": "own",
        "decay": False,
    },
    "published": {"loss": "gkd,defeat", "loss_form": "published", "prototype_every": 2},
    "alone": {"loss": "none"},
}


def test_a_detector_of_0_1_computes_the_same(tmp_path):
    path = tmp_path / "detector.safetensors"
    path.write_bytes(lzma.decompress((FIXTURES / "detector.safetensors.xz").read_bytes()))
    model, architecture, header = load_detector(path)
    assert (architecture.detector, architecture.classes) == ("retinanet", ("circle", "square"))
    assert header["validation"] == {"epoch": 3, "ap": 1.5, "ap50": 2.0}
    with torch.no_grad():
        maps = model.eval().backbone(torch.ones(1, 3, 64, 64))
    assert {name: float(x.double().sum()) for name, x in maps.items()} == pytest.approx(EXPECTED["detector"], rel=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_0_1_that_stopped_at_step_5_ends_with_the_weights_that_0_1_gave(name, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(FIXTURES / "runs" / name, folder)
    settings = tiny_settings(**RUNS[name], epochs=4)
    log = []
    path = train_detector(
        cells(0),
        squares(6),
        settings,
        out=folder,
        teacher=None if name == "alone" else cells(5),
        resume=True,
        events=lambda event, **fields: log.append((event, fields)),
    )
    assert next(fields["step"] for event, fields in log if event == "start") == 5
    wanted = load_file(FIXTURES / "expected.safetensors")
    found = {f"{name}/{key}": value for key, value in load_tensors(path)[0].items()}
    assert found.keys() == {key for key in wanted if key.startswith(f"{name}/")}
    for key, value in found.items():  # processors differ in the last bits
        torch.testing.assert_close(value, wanted[key], rtol=1e-5, atol=1e-6, msg=key)


def test_a_run_folder_of_0_1_resumes_from_the_command_line_with_its_settings(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    manifest = json.loads((FIXTURES / "run.json").read_text())
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(lzma.decompress((FIXTURES / "detector.safetensors.xz").read_bytes()))
    (folder / "run.json").write_text(json.dumps({**manifest, "teacher": str(path)}))
    given = {}

    def train(student, data, settings, **options):
        given.update({leaf.name: leaf.value for leaf in leaves(settings)})
        raise KeyboardInterrupt

    monkeypatch.setattr("distil.detector.training.train.train_detector", train)
    assert main(["detector", "train", "--resume", str(folder), "--device", "cpu"]) == 130
    names = {"knowledge": "loss", "optimiser": "optimizer", "colour": "color", "prototypes": "prototype_count"}
    saved = {names.get(name, name): value for name, value in manifest["settings"].items()}
    assert {name: list(x) if isinstance(x, tuple) else x for name, x in given.items()} == saved
