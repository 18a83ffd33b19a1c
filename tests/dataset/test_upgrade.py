"""Settings, files and runs of version 0.1; saved settings that cannot be used are refused by name."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from distil.cli.main import main
from distil.dataset import config
from distil.dataset.config import Dct, Matching, Response, Selection, Windows
from distil.dataset.upgrade import RENAMED, settings_from_dict
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.fields import leaves, to_dict

OLD = Path(__file__).parents[1] / "fixtures" / "version_0_1"
EXPECTED = json.loads((OLD / "expected.json").read_text())


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", EXPECTED["files"])
def test_a_file_of_version_0_1_decodes_to_the_same_pixels(name, tmp_path):
    wanted, made = EXPECTED["files"][name], DistilledSet.load(OLD / "files" / name)
    assert digest(made.decoded().images) == wanted["decoded"]
    assert len(made.decoded()) == wanted["images"]
    assert made.bytes["total"] == wanted["bytes"]
    assert made.decoded().labels.tolist()[:: made.images_per_item] == wanted["labels"]
    made.save(tmp_path / name)
    assert digest(DistilledSet.load(tmp_path / name).decoded().images) == wanted["decoded"]


@pytest.mark.parametrize("name", EXPECTED["runs"])
def test_a_run_of_version_0_1_resumes_to_the_same_result(name, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(OLD / "runs" / name, folder)
    assert main(["dataset", "--resume", str(folder)]) == 0
    made = DistilledSet.load(folder / "distilled.safetensors")
    assert digest(made.params) == EXPECTED["runs"][name]["stored"]
    means = made.decoded().images.double().mean((1, 2, 3)).tolist()
    assert means == pytest.approx(EXPECTED["runs"][name]["means"], abs=2e-6)  # spans end on the last bit of the CPU
    starts = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in starts if line["event"] == "start"] == [0, EXPECTED["runs"][name]["step"]]
    assert made.settings == to_dict(settings_from_dict(made.settings))


FLAT = {"method": "idc", "ipc": 1, "formation": "grid", "policy": "none", "network_data": "real"}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (
            {"formation": "spectrum", "spectral_views": 8, "storage": "uint4"},
            Dct(images=8, bits=4, policy=config.Fixed()),
        ),
        (
            {"policy": "response", "proxy_steps": 5, "windows_loss": "joint", "factor": 2, "refresh": 3},
            Windows(factor=2, policy=Response(5), windows_loss=config.Joint(), refresh=3),
        ),
        ({"factor": 3, "init": "mix"}, config.Grid(factor=3, init="mix")),
    ],
)
def test_flat_settings_become_the_parts_that_they_meant(changes, part):
    settings = settings_from_dict(FLAT | changes)
    assert isinstance(settings, Matching)
    assert settings.parameterization == part


def test_flat_settings_of_a_selection_lose_the_network_that_random_never_used():
    flat = {"ipc": 2, "network": "convnet3", "width": 32, "network_epochs": 5, "validation": 0.1, "seed": 0}
    assert settings_from_dict({"method": "random", **flat}) == Selection("random", ipc=2)
    herding = settings_from_dict({"method": "herding", **flat})
    assert herding == Selection("herding", ipc=2, observer=config.Observer(width=32, network_epochs=5))


def test_renamed_settings_exist_under_their_new_names():
    placed = [config.Grid(), config.Windows(), config.Dct(policy=config.Jitter())]
    names = {leaf.name for part in placed for leaf in leaves(Matching(parameterization=part))}
    names |= {"parameterization", "networks"}
    assert {new for old, new in RENAMED.items() if " " not in old} <= names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"the settings in the saved run are \[\]"),
        ({"method": ["idc"]}, "method is .*: it must be text"),
        ({"method": "random", "ipc": "1"}, "ipc is '1': give a whole number"),
        ({"method": "random", "factor": 1}, "unknown setting 'factor' in the saved run"),
        ({"width": 10**9}, "width is 1000000000: give at most 4096"),
        ({"ipc": 0}, "ipc is 0: it must be above 0"),
        (FLAT | {"factor": 10**6}, "factor is 1000000: give at most 31"),
        (FLAT | {"formation": "circles"}, "formation is 'circles': choose from grid, spectrum"),
        (FLAT | {"colour": 1}, "unknown setting 'colour' in the saved run"),
        ({"validations": 10**9}, "validations is 1000000000: give at most 10000"),
        (FLAT | {"policy": "fixed", "windows_mask": None}, "windows_mask is None: it must be true or false"),
        (FLAT | {"storage": 8}, "storage is 8: choose from uint8, float32"),
        (FLAT | {"lr_image": None}, "lr is None: give a finite number"),
        ({"validation": 2}, "validation is 2: it is the share of images held out"),
        ({"parameterization": {"kind": "circles"}}, "parameterization is 'circles': choose from grid, windows, dct"),
        ({"parameterization": 5}, "parameterization is 5: expected its settings, with a kind"),
        (
            {"objective": {"kind": "mine.Own"}},
            "objective is 'mine.Own', a part that only the program which",
        ),
    ],
)
def test_saved_settings_that_cannot_be_used_are_refused_by_field(values, message):
    with pytest.raises(DistilError, match=message):
        settings_from_dict(values)
