"""Experts: trained, kept in a folder, continued, read again, refused."""

import json
import os
import signal

import pytest
import torch
from torch.nn.functional import cross_entropy

from distil.dataset import experts as training
from distil.dataset.config import Experts
from distil.dataset.distil import distil_dataset
from distil.dataset.experts import UNFINISHED, train_experts
from distil.errors import DistilError
from distil.files import load_tensors
from distil.functional.augment import normalize
from distil.networks.classifier_files import open_classifier
from distil.networks.experts import EXPERTS, expert_file, open_experts
from distil.runs import EXPERTS_FOLDER, Interrupted

from .conftest import make_images, tiny

SMALL = Experts(runs=2, epochs=4, lr=0.1, batch=12, augment="none", momentum=0.5)
KIND = {"network": "convnet1", "width": 4}


def train(real, folder, settings=SMALL, **more):
    return train_experts(real, settings, folder, **KIND, **more)


def test_experts_learn_and_their_weights_are_kept_after_every_epoch(real, tmp_path):
    made = train(real, tmp_path)
    assert made.epochs == (0, 1, 2, 3, 4)
    assert made.runs == 2
    net = made.description.network_at(0)
    images, losses = normalize(real.batch(torch.arange(len(real))).images, real.mean, real.std), []
    for epoch in made.epochs:
        for weight, value in zip(net.parameters(), made.weights(0, epoch), strict=True):
            weight.data.copy_(value)
        losses.append(cross_entropy(net(images), real.labels).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    assert made.description.bytes == 4 * 5 * 2 * sum(weight.numel() for weight in net.parameters())


def test_a_folder_holds_what_memory_holds_and_more_experts_can_be_added(real, tmp_path):
    held = train(real, None, Experts(**{**vars(SMALL), "runs": 3}))
    train(real, tmp_path)
    first = expert_file(tmp_path, 0).read_bytes()
    more = train(real, tmp_path, Experts(**{**vars(SMALL), "runs": 3}))
    assert more.runs == 3
    assert expert_file(tmp_path, 0).read_bytes() == first
    for run in range(3):
        for one, other in zip(held.last(run), more.last(run), strict=True):
            assert torch.equal(one, other)
    assert train(real, tmp_path).runs == 3  # fewer than there are: all stay


def test_an_interrupted_expert_goes_on_to_equal_bytes(real, tmp_path):
    train(real, tmp_path / "whole")

    def interrupt(name, **fields):
        if fields.get("done") == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"expert 1 of 2 is kept in .* as it is after 2 of 4 epochs"):
        train(real, tmp_path / "stopped", events=interrupt)
    assert (tmp_path / "stopped" / UNFINISHED).is_file()
    told = []
    train(real, tmp_path / "stopped", events=lambda name, **fields: told.append(fields["done"]))
    assert told == [3, 4, 5, 6, 7, 8]
    for run in range(2):
        assert expert_file(tmp_path / "stopped", run).read_bytes() == expert_file(tmp_path / "whole", run).read_bytes()
    assert not (tmp_path / "stopped" / UNFINISHED).exists()


def test_a_damaged_unfinished_expert_is_told_and_trained_again(real, tmp_path):
    train(real, tmp_path / "whole")
    train(real, tmp_path / "other")
    expert_file(tmp_path / "other", 1).unlink()
    (tmp_path / "other" / UNFINISHED).write_bytes(b"not tensors")
    told = []
    train(real, tmp_path / "other", events=lambda name, **fields: told.append((name, fields.get("message", ""))))
    assert told[0][0] == "damaged"
    assert told[0][1].endswith("Expert 2 is trained again.")
    assert expert_file(tmp_path / "other", 1).read_bytes() == expert_file(tmp_path / "whole", 1).read_bytes()


def test_weights_are_kept_every_so_many_epochs_and_the_last(real, tmp_path):
    made = train(real, tmp_path, Experts(**{**vars(SMALL), "epochs": 5, "every": 2, "runs": 1}))
    assert made.epochs == (0, 2, 4, 5)
    tensors, _ = load_tensors(expert_file(tmp_path, 0))
    assert all(len(tensor) == 4 for tensor in tensors.values())


def test_the_learning_rate_falls_by_steps(real):
    steady = train(real, None, Experts(**{**vars(SMALL), "runs": 1, "epochs": 6}))
    falling = train(real, None, Experts(**{**vars(SMALL), "runs": 1, "epochs": 6, "lr_decay": "steps"}))
    same = [all(map(torch.equal, steady.weights(0, e), falling.weights(0, e))) for e in range(7)]
    assert same == [True] * 5 + [False] * 2


def test_other_experts_in_the_folder_are_refused(real, tmp_path):
    train(real, tmp_path)
    with pytest.raises(DistilError, match=r"holds other experts \(the settings of their training\)"):
        train(real, tmp_path, Experts(**{**vars(SMALL), "lr": 0.2}))
    with pytest.raises(DistilError, match=r"holds other experts \(the images they were trained on\)"):
        train(make_images(seed=1), tmp_path)
    with pytest.raises(DistilError, match=r"holds other experts \(seed 0 against 1\)"):
        train(real, tmp_path, seed=1)


def test_what_is_missing_or_damaged_is_named(real, tmp_path):
    with pytest.raises(DistilError, match=f"holds no experts: {EXPERTS} is missing"):
        open_experts(tmp_path)
    train(real, tmp_path)
    path = expert_file(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DistilError, match=r"expert-0001.safetensors is damaged"):
        open_experts(tmp_path).last(1)
    path.unlink()
    with pytest.raises(DistilError, match=r"holds 1 of 2 experts: expert-0001.safetensors is missing"):
        open_experts(tmp_path)
    manifest = json.loads((tmp_path / EXPERTS).read_text())
    for name, value, told in (("epochs", [1, 2], "epochs are"), ("width", "4", "whole numbers"), ("mean", [], "mean")):
        (tmp_path / EXPERTS).write_text(json.dumps({**manifest, name: value}))
        with pytest.raises(DistilError, match=f"{EXPERTS} is damaged: .*{told}"):
            open_experts(tmp_path)


def test_experts_are_an_ensemble_of_their_last_weights(real, tmp_path):
    made = train(real, tmp_path)
    images = real.batch(torch.arange(4)).images
    net, logits = made.description.network_at(0), []
    for run in range(2):
        for weight, value in zip(net.parameters(), made.last(run), strict=True):
            weight.data.copy_(value)
        logits.append(net(normalize(images, real.mean, real.std)))
    with torch.no_grad():
        found = open_classifier(tmp_path).logits(images)
    torch.testing.assert_close(found, torch.stack(logits).mean(0).detach())


def test_a_run_takes_the_experts_it_is_given_or_trains_its_own_once(real, tmp_path):
    settings = tiny("ncfm", network="convnet1", outer=2)
    distil_dataset(real, settings, folder=tmp_path / "own")
    inside = tmp_path / "own" / EXPERTS_FOLDER
    assert open_experts(inside).runs == settings.networks.experts.runs
    distil_dataset(real, settings, folder=tmp_path / "given", experts=inside)
    one, other = ((tmp_path / name / "distilled.safetensors").read_bytes() for name in ("own", "given"))
    assert one == other
    assert not (tmp_path / "given" / EXPERTS_FOLDER).exists()


def test_experts_of_other_images_or_networks_are_refused(real, tmp_path):
    settings = tiny("ncfm", network="convnet1", outer=2)
    train(make_images(seed=1), tmp_path)
    with pytest.raises(DistilError, match="were trained on made up, and the run learns from other images"):
        distil_dataset(real, settings, experts=tmp_path)
    with pytest.raises(DistilError, match="are convnet1 of width 4, and the run has convnet2 of width 4"):
        distil_dataset(real, tiny("ncfm", outer=2), experts=tmp_path)
    with pytest.raises(DistilError, match="idc uses no experts"):
        distil_dataset(real, tiny("idc"), experts=tmp_path)


def test_a_stop_within_an_epoch_goes_back_to_its_beginning(real, tmp_path, monkeypatch):
    train(real, tmp_path / "whole")
    calls = []
    before = training.train_batch

    def counted(*args):
        calls.append(1)
        if len(calls) == 5:  # of three an epoch
            os.kill(os.getpid(), signal.SIGINT)
        return before(*args)

    with monkeypatch.context() as patched:
        patched.setattr(training, "train_batch", counted)
        with pytest.raises(Interrupted, match="as it is after 1 of 4 epochs"):
            train(real, tmp_path / "stopped")
    assert len(calls) == 5
    train(real, tmp_path / "stopped", Experts(**{**vars(SMALL), "runs": 3}))
    for run in range(2):
        assert expert_file(tmp_path / "stopped", run).read_bytes() == expert_file(tmp_path / "whole", run).read_bytes()


def test_a_manifest_with_impossible_numbers_is_refused(real, tmp_path):
    train(real, tmp_path)
    manifest = json.loads((tmp_path / EXPERTS).read_text())
    wrong = (("runs", 0, "runs are 0"), ("runs", 10**12, "runs are"), ("format_version", None, "no distil writes"))
    for name, value, told in wrong:
        (tmp_path / EXPERTS).write_text(json.dumps({**manifest, name: value}))
        with pytest.raises(DistilError, match=told):
            open_experts(tmp_path)
