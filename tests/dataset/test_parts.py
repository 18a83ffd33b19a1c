"""Every part that remembers or draws, in a run that is interrupted, and what cannot be combined."""

import os
import signal

import pytest
import torch

from distil.dataset.distil import distil_dataset
from distil.errors import DistilError
from distil.runs import RESULT, Interrupted

from .conftest import tiny

TEN = {"outer": 2, "inner": 5}
DREAM = {"outer": 1, "inner": 10, "cluster_every": 4, "batch": 4}
ADAM = {"optimizer": "adam", "images": 4, "objective": "feature"}
POOL = {"outer": 10, "inner": 1, "network_first": 2, "network_most": 4, "network_every": 2}
PARTS = {
    "characteristic": ("idc", TEN | {"objective": "characteristic", "frequencies": 16, "factor": 1}),
    "adamw": ("udd", TEN | ADAM | {"policy": "fixed"}),
    "adamw, refreshed": ("udd", ADAM | {"start": "random", "refresh": 4, "inner": 1, "outer": 10}),
    "k-means": ("dream", DREAM),
    "k-means, targets reused": ("dream", DREAM | {"inner": 1, "outer": 2, "target_reuse": 5}),
    "k-means among a part": ("dream", DREAM | {"cluster_pool": 6}),
    "pool": ("idm", POOL),
    "pool, targets reused": ("idm", POOL | {"outer": 5, "target_reuse": 2}),
    "experts": ("ncfm", TEN | {"outer": 10, "inner": 1, "expert_runs": 2, "frequencies": 16}),
    "class term": ("idc", TEN | {"classification": "ce", "ce_weight": 0.5}),
    "variance": ("udd", TEN | {"policy": "variance", "images": 4, "init_from": "kmeans"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_ten_steps_are_five_then_a_resume_and_five(real, tmp_path, name):
    method, changes = PARTS[name]
    settings = tiny(method, **changes)
    whole = distil_dataset(real, settings, folder=tmp_path / "whole")

    def interrupt(name, **fields):
        if name == "step" and fields["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="stopped after step 5 of 10"):
        distil_dataset(real, settings, folder=folder, events=interrupt)
    again = distil_dataset(real, settings, folder=folder, resume=True)
    assert torch.equal(again.params, whole.params)
    assert (folder / RESULT).read_bytes() == (tmp_path / "whole" / RESULT).read_bytes()


REFUSED = {
    "pool": (
        ("idm", {"inner": 2}),
        "networks pool takes another network in every step: use inner 1 and as many outer iterations, not inner 2.",
    ),
    "interpolated": (
        ("idc", {"networks": "interpolated", "inner": 3}),
        "networks interpolated takes another network in every step: use inner 1 and as many outer iterations, not "
        "inner 3.",
    ),
    "class term": (
        ("idm", {"networks": "real"}),
        "ce_by_accuracy weighs by the training accuracy of networks in a pool: use networks pool, or leave it out.",
    ),
    "targets": (
        ("idc", {"networks": "targets", "objective": "characteristic"}),
        "networks targets trains by the real gradients, and this objective computes none: use networks real or fresh.",
    ),
    "variance": (
        ("udd", {"policy": "variance", "refresh": 2}),
        "refresh 2 chooses frequencies again by a network's response: use policy response or jitter, or refresh 0.",
    ),
    "queue": (("idm", {"network_most": 0}), "network_most is 0: it must be above 0."),
    "frequencies": (
        ("idc", {"objective": "characteristic", "frequencies": 0}),
        "frequencies is 0: it must be above 0.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_combined_is_refused_with_the_remedy(real, name):
    (method, changes), message = REFUSED[name]
    with pytest.raises(DistilError) as refusal:
        distil_dataset(real, tiny(method, **changes))
    assert str(refusal.value) == message
