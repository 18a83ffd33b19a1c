"""DetectorSettings: what is refused, and that JSON brings them back."""

import json
from dataclasses import asdict

import pytest

from distil.errors import DistilError
from distil.settings import DetectorSettings, check_settings, detector_settings_from_dict


def test_the_defaults_are_the_published_recipe_and_usable():
    settings = DetectorSettings()
    check_settings(settings)
    assert (settings.lr, settings.momentum, settings.weight_decay, settings.warmup) == (0.02, 0.9, 1e-4, 500)
    assert [round(share * settings.epochs) for share in settings.milestones] == [16, 22]


def test_json_brings_them_back():
    settings = DetectorSettings(milestones=(0.5,), scale=(0.8, 1.2), knowledge="gkd,pkd=0.5", epochs=7)
    assert detector_settings_from_dict(json.loads(json.dumps(asdict(settings)))) == settings
    with pytest.raises(DistilError, match=r"unknown setting 'epoch' in the saved run: it was made by another version"):
        detector_settings_from_dict({"epoch": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"--epochs is 0: it must be above 0\."),
        ({"batch": -1}, r"--batch is -1: it must be above 0\."),
        ({"lr": float("nan")}, r"--lr is nan: give a finite number\."),
        ({"weight_decay": -0.1}, r"--weight-decay is -0\.1: it cannot be negative\."),
        ({"momentum": 1.0}, r"--momentum is 1\.0: it must be below 1\."),
        ({"flip": 1.5}, r"--flip is 1\.5: it is a share, between 0 and 1\."),
        ({"validation": 1.0}, r"--validation is 1\.0: it is the share of images held out"),
        (
            {"milestones": (0.9, 0.5)},
            r"--milestones is 0\.9 0\.5: give rising shares of the epochs, each above 0 and below",
        ),
        ({"milestones": (1.0,)}, r"--milestones is 1\.0: give rising shares"),
        ({"milestones": (0.0, 0.5)}, r"--milestones is 0\.0 0\.5: give rising shares"),
        ({"scale": (1.2, 0.8)}, r"--scale is 1\.2 0\.8: give the lowest and the highest enlargement, both above 0\."),
        ({"temperature": 0.0}, r"--temperature is 0\.0: it must be above 0\."),
        ({"prototypes": 0}, r"--prototypes is 0: it must be above 0\."),
        ({"prototype_quantile": 2.0}, r"--prototype-quantile is 2\.0: it is a share"),
        ({"evaluate_every": 0}, r"--evaluate-every is 0: it must be above 0\."),
        ({"loss_form": "released"}, r"--loss-form is 'released': choose from distil, published\."),
        ({"knowledge": "gdk"}, r"unknown loss 'gdk'\. Did you mean gkd\? Known: gkd, mse, pkd"),
        ({"knowledge": "gkd,croskd=0.5"}, r"unknown loss 'croskd'\. Did you mean crosskd\?"),
        ({"knowledge": ""}, r"unknown loss ''\. Known: gkd, mse"),
        ({"knowledge": "gkd,none"}, r"unknown loss 'none'\."),
        ({"knowledge": "pkd,gkd,pkd=2"}, r"the loss 'pkd' is named more than once"),
        ({"knowledge": "pkd=0"}, r"--loss pkd=0: '0' is no factor; write pkd=0\.5, say\."),
    ],
)
def test_values_that_no_run_can_use_are_refused(changes, message):
    with pytest.raises(DistilError, match=message):
        check_settings(DetectorSettings(**changes))


def test_no_milestone_is_fine():
    check_settings(DetectorSettings(milestones=()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], r"the settings in the saved run are \[1\]: expected a value for each name"),
        (None, "the settings in the saved run are None"),
        ({"epochs": "3"}, "cannot be used: --epochs is '3': give a whole number"),
        ({"epochs": True}, "--epochs is True: give a whole number"),
        ({"epochs": 10**300}, "--epochs is 1000.*: give at most 1000000"),
        ({"workers": 10**9}, "--workers is 1000000000: give at most 1024"),
        ({"seed": 10**300}, "--seed is 1000.*: give a number of at most 63 bits"),
        ({"seed": None}, "--seed is None: give a whole number"),
        ({"lr": "0.1"}, "--lr is '0.1': give a finite number"),
        ({"lr": 10**400}, "--lr is 1000.*: give a finite number"),
        ({"decay": "no"}, "--decay is 'no': it must be true or false"),
        ({"decay": 1}, "--decay is 1: it must be true or false"),
        ({"optimiser": ["sgd"]}, r"--optimiser is \('sgd',\): choose from sgd, adamw"),
        ({"adapting_kernel": True}, "--adapting-kernel is True: choose from 1, 3"),
        ({"knowledge": 5}, "--loss is 5: it must be text"),
        ({"knowledge": "gkd\x1b"}, "--loss is .*which cannot be printed"),
        ({"milestones": "0.5"}, "--milestones is '0.5': give finite numbers"),
        ({"milestones": [0.5, None]}, r"--milestones is \(0.5, None\): give finite numbers"),
        ({"scale": [1.0]}, r"--scale is \(1.0,\): give 2 finite numbers"),
        ({"scale": {"a": 1}}, "--scale is .*: give 2 finite numbers"),
    ],
)
def test_saved_settings_of_wrong_types_are_refused_by_field(values, message):
    with pytest.raises(DistilError, match=message):
        detector_settings_from_dict(values)
