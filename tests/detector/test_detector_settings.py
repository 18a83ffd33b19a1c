"""DetectorSettings: what is refused, and that JSON brings them back, also those that version 0.1 wrote."""

import json

import pytest

from distil.detector.presets import detector_preset
from distil.detector.settings import DetectorSettings, detector_settings_from_dict
from distil.errors import DistilError
from distil.fields import leaves, to_dict, with_values


def test_the_defaults_are_the_published_recipe():
    training = DetectorSettings().training
    assert (training.lr, training.momentum, training.weight_decay, training.warmup) == (0.02, 0.9, 1e-4, 500)
    assert [round(share * training.epochs) for share in training.milestones] == [16, 22]


def test_json_brings_them_back():
    settings = with_values(detector_preset("gkd", "scratch"), milestones=(0.5,), loss="gkd,pkd=0.5", epochs=7)
    assert detector_settings_from_dict(json.loads(json.dumps(to_dict(settings)))) == settings


def test_flat_settings_of_version_0_1_mean_the_same():
    saved = {"method": "gkd", "knowledge": "gkd,pkd=0.5", "optimiser": "adamw", "colour": 0.2, "epochs": 7}
    saved |= {"prototypes": 5, "prototype_side": 12.0, "milestones": [0.5], "foreground_weight": 2.0, "decay": False}
    saved |= {"loss_form": "published", "teacher_floor": 3.0}
    names = {"knowledge": "loss", "optimiser": "optimizer", "colour": "color", "prototypes": "prototype_count"}
    values = {leaf.name: leaf.value for leaf in leaves(detector_settings_from_dict(saved))}
    for name, value in saved.items():
        assert values.pop(names.get(name, name)) == (tuple(value) if isinstance(value, list) else value)
    default = {leaf.name: leaf.value for leaf in leaves(DetectorSettings())}
    assert all(value == default[name] for name, value in values.items())
    assert not detector_settings_from_dict({"epochs": 3}).taught
    with pytest.raises(DistilError, match=r"unknown setting 'epoch' in the saved run: it was made by another version"):
        detector_settings_from_dict({"epoch": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"epochs is 0: it must be above 0\."),
        ({"batch": -1}, r"batch is -1: it must be above 0\."),
        ({"lr": float("nan")}, r"lr is nan: give a finite number\."),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1: it cannot be negative\."),
        ({"momentum": 1.0}, r"momentum is 1\.0: it must be below 1\."),
        ({"flip": 1.5}, r"flip is 1\.5: it is a share, between 0 and 1\."),
        ({"validation": 1.0}, r"validation is 1\.0: it is a share of the images, at least 0 and below 1\."),
        (
            {"milestones": (0.9, 0.5)},
            r"milestones is 0\.9 0\.5: give rising shares of the epochs, each above 0 and below",
        ),
        ({"milestones": (1.0,)}, r"milestones is 1\.0: give rising shares"),
        ({"milestones": (0.0, 0.5)}, r"milestones is 0\.0 0\.5: give rising shares"),
        ({"scale": (1.2, 0.8)}, r"scale is 1\.2 0\.8: give the lowest and the highest enlargement, both above 0\."),
        ({"temperature": 0.0}, r"temperature is 0\.0: it must be above 0\."),
        ({"prototype_count": 0}, r"prototype_count is 0: it must be above 0\."),
        ({"prototype_quantile": 2.0}, r"prototype_quantile is 2\.0: it is a share"),
        ({"evaluate_every": 0}, r"evaluate_every is 0: it must be above 0\."),
        ({"loss_form": "released"}, r"loss_form is 'released': choose from distil, published\."),
        ({"loss": "gdk"}, r"unknown loss 'gdk'\. Did you mean gkd\? Choose from gkd, mse, pkd"),
        ({"loss": "gkd,croskd=0.5"}, r"unknown loss 'croskd'\. Did you mean crosskd\?"),
        ({"loss": ""}, r"unknown loss ''\. Choose from gkd, mse"),
        ({"loss": "gkd,none"}, r"unknown loss 'none'\."),
        ({"loss": "pkd,gkd,pkd=2"}, r"the loss 'pkd' is named more than once"),
        ({"loss": "pkd=0"}, r"loss is pkd=0: '0' is no factor; write pkd=0\.5, say\."),
    ],
)
def test_values_that_no_run_can_use_are_refused(changes, message):
    with pytest.raises(DistilError, match=message):
        with_values(DetectorSettings(), **changes)


def test_no_milestone_is_fine():
    assert with_values(DetectorSettings(), milestones=()).training.milestones == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], r"the settings in the saved run are \[1\]: expected a value for each name"),
        (None, "the settings in the saved run are None"),
        ({"epochs": "3"}, "cannot be used: epochs is '3': give a whole number"),
        ({"epochs": True}, "epochs is True: give a whole number"),
        ({"epochs": 10**300}, "epochs is 1000.*: give at most 1000000"),
        ({"workers": 10**9}, "workers is 1000000000: give at most 1024"),
        ({"seed": 10**300}, "seed is 1000.*: give a number of at most 63 bits"),
        ({"seed": None}, "seed is None: give a whole number"),
        ({"lr": "0.1"}, "lr is '0.1': give a finite number"),
        ({"lr": 10**400}, "lr is 1000.*: give a finite number"),
        ({"decay": "no"}, "decay is 'no': it must be true or false"),
        ({"decay": 1}, "decay is 1: it must be true or false"),
        ({"optimizer": ["sgd"]}, r"optimizer is \('sgd',\): choose from sgd, adamw"),
        ({"adapting_kernel": True}, "adapting_kernel is True: choose from 1, 3"),
        ({"knowledge": 5}, "loss is 5: it must be text"),
        ({"knowledge": "gkd\x1b"}, "loss is .*which cannot be printed"),
        ({"milestones": "0.5"}, "milestones is '0.5': give finite numbers"),
        ({"milestones": [0.5, None]}, r"milestones is \(0.5, None\): give finite numbers"),
        ({"scale": [1.0]}, r"scale is \(1.0,\): give 2 finite numbers"),
        ({"scale": {"a": 1}}, "scale is .*: give 2 finite numbers"),
    ],
)
def test_saved_settings_of_wrong_types_are_refused_by_field(values, message):
    with pytest.raises(DistilError, match=message):
        detector_settings_from_dict(values)
