"""distil_dataset: every objective runs, stops, resumes to the same bytes, and refuses what it cannot do."""

import json
import os
import re
import shutil
import signal
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distil.dataset import matching
from distil.dataset.config import Matching, Selection, Trajectory
from distil.dataset.distil import distil_dataset
from distil.dataset.methods import METHODS, preset
from distil.dataset.proxies import trained_proxy
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.locks import only_writer
from distil.runs import CHECKPOINT, PREVIOUS, PROXY, RESULT, EventLog, Interrupted, read_log
from distil.stopping import STOPPING
from tests.forked import ends_well, moments, seconds_of, started

from .conftest import changed, loop_of, make_images, stage_of, tiny, tiny_trajectory
from .killed import distil_until_killed

MATCHING = [name for name in METHODS if isinstance(preset(name, "custom", 1, "published"), Matching)]


class Recorder:
    def __init__(self):
        self.events = []

    def __call__(self, name, **fields):
        self.events.append((name, fields))

    def of(self, name):
        return [fields for n, fields in self.events if n == name]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_set(real, method):
    settings = preset(method, "custom", 2, "published")
    if isinstance(settings, Matching):
        settings = tiny(method, ipc=2)
    elif isinstance(settings, Trajectory):
        settings = tiny_trajectory(method, ipc=2)
    elif settings.observer is not None:
        settings = changed(settings, width=4, network_epochs=1, network="convnet2")
    made = distil_dataset(real, settings)
    assert made.params.shape == (6, 1, 8, 8)
    assert made.params.dtype == torch.uint8
    assert made.labels.ndim == (2 if method == "datm" else 1)
    if method != "datm":
        assert made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert made.method == method
    views = {"udd-windows": 12, "idc": 4, "dream": 4, "idm": 4, "ncfm": 4, "udd": 32, "udd-jitter": 32, "fred": 16}.get(
        method, 1
    )
    assert made.images_per_item == views
    assert len(made.decoded()) == 6 * views
    used = made.parameterization.pictured(made.params, 0).utilization
    assert (used is not None) == (method == "udd-windows")
    kinds = {"udd": "dct", "udd-jitter": "dct", "fred": "fred"}
    assert made.parameterization.kind == kinds.get(method, "crops")


@pytest.mark.parametrize("method", ["random", "herding", "k-center", "k-means"])
def test_coresets_hold_real_images_of_their_class(real, method):
    settings: Any = preset(method, "custom", 3)
    if settings.observer is not None:
        settings = changed(settings, width=4, network="convnet2", network_epochs=1)
    made = distil_dataset(real, settings)
    for item, label in zip(made.params, made.labels, strict=True):
        assert (real.images[real.by_class[int(label)]] == item).flatten(1).all(1).any()


@pytest.mark.parametrize("method", MATCHING)
def test_the_matching_loss_falls(method):
    real = make_images(each=30, side=16)
    lr = {"dc": 3.0, "dsa": 3.0, "dm": 3.0, "idm": 3.0, "udd": 0.06, "udd-jitter": 0.06}.get(method, 0.02)
    changes = {"width": 8, "outer": 1, "inner": 40, "batch": 30, "networks": "fresh", "augment": "none", "lr": lr}
    if method.startswith("udd"):
        changes["contrastive"] = "none"
    if method in ("udd", "udd-jitter"):
        changes |= {"policy": "fixed", "images": 4}
    if method == "udd-windows":
        changes["parameterization"] = "grid"
    if method in ("idm", "ncfm"):
        changes["classification"] = "none"
    settings = tiny(method, init="noise", **changes)
    log = Recorder()
    distil_dataset(real, settings, events=log)
    losses = [fields["loss"] for fields in log.of("step")]
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_is_zero_when_synthetic_equals_real():
    real = make_images(each=4)
    loop = loop_of(real, tiny("idc", factor=1, init="real", ipc=4, batch=4, augment="none"))
    _, losses = loop.gradient(stage_of(loop, loop.networks.fresh(0)))
    assert losses["loss"].item() == pytest.approx(0, abs=1e-6)


def test_relabeling_the_classes_relabels_the_result():
    real = make_images(side=16)
    order = [2, 0, 1]
    swapped = replace(
        real,
        images=torch.cat([real.images[real.by_class[c]] for c in order]),
        classes=tuple(real.classes[c] for c in order),
    )
    settings = tiny("dm", outer=4, inner=1)
    one, other = distil_dataset(real, settings), distil_dataset(swapped, settings)
    assert other.classes == ("c", "a", "b")
    assert torch.equal(other.params, one.params[order])
    start = changed(settings, outer=1, lr=1e-12)
    assert not torch.equal(one.params, distil_dataset(real, start).params)


def test_relabeling_with_the_classifiers_rows_moved_leaves_the_matching_gradient(real):
    settings = tiny("udd-windows", augment="color_crop", parameterization="grid", cfc_share=0.3)
    order = [2, 0, 1]
    swapped = replace(
        real,
        images=torch.cat([real.images[real.by_class[c]] for c in order]),
        classes=tuple(real.classes[c] for c in order),
    )
    loop, other = loop_of(real, settings), loop_of(swapped, settings)
    state = loop.networks.fresh(0)
    gradient, losses = loop.gradient(stage_of(loop, state))
    with torch.no_grad():
        for name in ("weight", "bias"):
            rows = getattr(state.net.classifier, name)
            rows.copy_(rows[order].clone())
    other.params = loop.params[order].clone()
    moved, moved_losses = other.gradient(stage_of(other, state))
    torch.testing.assert_close(moved, gradient[order], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moved_losses, losses)


def test_mined_windows_move_idle_pixels_only(real):
    apart = {"windows": 1, "windows_factor": 0, "windows_init": "kept", "windows_loss": "apart"}
    settings = tiny("udd-windows", augment="none", contrastive="none", windows_share=0.5, **apart)
    loop = loop_of(real, settings, _proxy(real))
    loop.step()
    mined, state = loop.placed, loop.held[0].state

    def gradient(placed, **changes):
        other = loop_of(real, changed(settings, **changes), _proxy(real))
        other.placed, other.params = placed, loop.params
        return other.gradient(stage_of(other, state))

    plain, _ = gradient(mined.unmined)
    masked, losses = gradient(replace(mined, utilization=torch.ones_like(mined.utilization)))
    torch.testing.assert_close(masked, plain)
    assert losses["mined"] > 0
    half = mined.utilization.clone()
    half[:, :, :4], half[:, :, 4:] = 1.0, 0.5
    masked, _ = gradient(replace(mined, utilization=half))
    torch.testing.assert_close(masked[..., :4], plain[..., :4])
    assert (masked - plain)[..., 4:].abs().max() > 0
    assert ((masked - plain).norm() / plain.norm()).item() == pytest.approx(0.5, rel=1e-4)
    free, _ = gradient(mined, windows_mask=False)
    x1, y1, x2, y2 = mined.windows[0, 0].int().tolist()
    moved = (free - plain)[0, 0].abs()
    assert moved[y1:y2, x1:x2].max() > 0
    moved[y1:y2, x1:x2] = 0
    assert moved.max() < 1e-6


def test_the_contrastive_gradient_has_its_share(real):
    settings = tiny("udd-windows", parameterization="grid", cfc_share=0.25)
    loop, alone = loop_of(real, settings), loop_of(real, changed(settings, contrastive="none"))
    state = loop.networks.fresh(0)
    both, losses = loop.gradient(stage_of(loop, state))
    plain, _ = alone.gradient(stage_of(alone, state))
    assert ((both - plain).norm() / plain.norm()).item() == pytest.approx(0.25, rel=1e-4)
    assert losses["contrast"] > 0


def _proxy(real):
    return trained_proxy("convnet2", 4, real, 2, device="cpu", seed=0)


def test_windows_enter_refresh_and_freeze(real):
    settings = tiny("udd-windows", outer=10, inner=1, windows_start=0.3, windows_freeze=0.3, refresh=2)
    log = Recorder()
    distil_dataset(real, settings, events=log)
    assert [fields["step"] for fields in log.of("windows")] == [4, 5, 7]


@pytest.mark.parametrize("policy", ["fixed", "random"])
def test_control_policies_need_no_proxy(real, policy, tmp_path):
    made: Any = distil_dataset(real, tiny("udd-windows", policy=policy), folder=tmp_path)
    regions = made.parameterization.regions
    assert regions.shape == (3, 12, 4) if policy == "random" else regions.shape[1:] == (12, 4)
    assert not (tmp_path / "proxy.safetensors").exists()


def test_equal_seeds_give_equal_bytes_and_others_do_not(real, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        distil_dataset(real, tiny(seed=seed), folder=tmp_path / folder)
    a, b, c = ((tmp_path / f / RESULT).read_bytes() for f in "abc")
    assert a == b
    assert a != c


FAST = {
    "networks": "targets",
    "bfloat16": "real_network_synthetic",
    "lr_schedule": "cosine",
    "target_reuse": 2,
}
MINED = {"images": 4, "start": "random", "refresh": 1}


@pytest.mark.parametrize(
    ("method", "changes"),
    [*((method, {}) for method in MATCHING), ("idc", FAST), ("udd-windows", FAST), ("udd", MINED)],
)
def test_a_restored_state_continues_bit_for_bit_and_every_state_is_sound(real, method, changes):
    settings = tiny(method, **changes)
    proxy = _proxy(real) if method.startswith("udd") else None
    loop, saved = loop_of(real, settings, proxy), {}
    while loop.done < loop.steps:
        loop.step()
        loop.check(loop.done, loop.state_dict())
        if loop.done in (2, 3, 5):
            saved[loop.done] = {name: tensor.clone() for name, tensor in loop.state_dict().items()}
    for stop, state in saved.items():
        again = loop_of(real, settings, proxy)
        again.load_state_dict(stop, state)
        while again.done < again.steps:
            again.step()
        assert again.done == loop.done == 6 * settings.target_reuse
        assert torch.equal(again.params, loop.params)


@pytest.mark.parametrize(("method", "changes"), [("udd-windows", {}), ("udd", {"images": 4})])
def test_an_interrupted_run_resumes_to_the_same_bytes(real, tmp_path, method, changes):
    settings = tiny(method, validations=2, validation=0.25, **changes)
    judged = []

    def validate(made, held_out):
        judged.append(len(held_out.labels))
        return 50.0

    whole = distil_dataset(real, settings, folder=tmp_path / "whole", validate=validate)
    assert judged == [9, 9]

    def interrupt(name, **fields):
        if name == "step" and fields["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted, match=r"stopped after step 4 of 6: its checkpoint is in .*stopped"):
        distil_dataset(real, settings, folder=folder, events=interrupt)
    assert not (folder / RESULT).exists()
    log = Recorder()
    again = distil_dataset(real, settings, folder=folder, resume=True, events=log)
    assert log.of("start")[0]["step"] == 4
    assert torch.equal(again.params, whole.params)
    assert (folder / RESULT).read_bytes() == (tmp_path / "whole" / RESULT).read_bytes()


@pytest.mark.slow
def test_killed_at_random_moments_the_result_has_the_same_bytes(tmp_path):
    told, drawn = tmp_path / "told.txt", moments()
    lasted = seconds_of(distil_until_killed, tmp_path / "whole", told=told)
    folder, kills = tmp_path / "killed", 0
    while kills < 2:
        process = started(distil_until_killed, folder, told=told)
        process.join(lasted * drawn.uniform(0.2, 0.6))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
    assert kills >= 1
    ends_well(started(distil_until_killed, folder, told=told), told)
    assert (folder / RESULT).read_bytes() == (tmp_path / "whole" / RESULT).read_bytes()


def test_the_proxy_of_an_earlier_run_in_the_folder_is_not_used(real, tmp_path):
    distil_dataset(real, tiny("udd-windows", proxy_steps=40), folder=tmp_path / "used")
    again, fresh = (distil_dataset(real, tiny("udd-windows"), folder=tmp_path / name) for name in ("used", "fresh"))
    assert torch.equal(again.parameterization.utilization, fresh.parameterization.utilization)  # pyright: ignore
    assert (tmp_path / "used" / "proxy.safetensors").read_bytes() == (
        tmp_path / "fresh" / "proxy.safetensors"
    ).read_bytes()


def test_coefficients_that_run_away_stop_the_run_though_they_are_finite(real):
    with pytest.raises(DistilError, match=r"at step 1 of \d+, or the images left all bounds: lower lr,"):
        distil_dataset(real, tiny("udd", lr=1e12))


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(real, tmp_path, monkeypatch):
    settings = tiny("idc", inner=6, lr=1e38, momentum=0.9)
    with pytest.raises(DistilError, match=r"the loss stopped being a finite number at step [1-6] of 12, or the im"):
        distil_dataset(real, settings, folder=tmp_path)
    assert not (tmp_path / RESULT).exists()
    folder = tmp_path / "late"
    before = []

    def run_away(name, **fields):
        if name == "checkpoint" and fields["step"] == 2:
            before.append((folder / CHECKPOINT).read_bytes())
            monkeypatch.setattr(matching, "LARGEST", 0.0)

    with pytest.raises(DistilError, match=r"at step 3 of .*checkpoint.safetensors, is from before and is kept"):
        distil_dataset(real, tiny("idc"), folder=folder, events=run_away, checkpoint_seconds=0.0)
    assert [(folder / CHECKPOINT).read_bytes()] == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "seed was 0 and is 5"),
        ({"lr": 1.0}, "lr was"),
        ({"network_samples": 5}, "samples was 4 and is 5"),
        ({"networks": "fresh"}, "networks was real and is fresh"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(real, tmp_path, changes, named):
    distil_dataset(real, tiny("idc"), folder=tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(DistilError, match=f"checkpoint.safetensors is of another run: {named}"):
        distil_dataset(real, tiny("idc", **changes), folder=tmp_path, resume=True)


def test_a_checkpoint_of_other_images_is_refused(real, tmp_path):
    distil_dataset(real, tiny("idc"), folder=tmp_path, checkpoint_seconds=0.0)
    other = replace(real, images=real.images.flip(0))
    with pytest.raises(DistilError, match=r"checkpoint.safetensors was made from other training images"):
        distil_dataset(other, tiny("idc"), folder=tmp_path, resume=True)


@pytest.mark.parametrize("method", ["idc", "dm"])
def test_the_contrastive_loss_joins_every_objective(real, method):
    log = Recorder()
    made = distil_dataset(real, tiny(method, contrastive="cfc", cfc_share=0.3), events=log)
    assert all(fields["contrast"] > 0 for fields in log.of("step"))
    assert not torch.equal(made.params, distil_dataset(real, tiny(method)).params)


def test_a_new_run_leaves_no_older_checkpoint(real, tmp_path):
    distil_dataset(real, tiny("idc"), folder=tmp_path, checkpoint_seconds=0.0)
    assert (tmp_path / PREVIOUS).exists()
    distil_dataset(real, tiny("idc", seed=1), folder=tmp_path)
    assert load_tensors(tmp_path / CHECKPOINT)[1]["settings"]["seed"] == 1
    assert not (tmp_path / PREVIOUS).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ipc": 0}, r"ipc is 0: it must be above 0"),
        ({"factor": 9}, r"factor 9 is larger than the images' side, 8 pixels"),
        ({"factor": 5}, r"factor 5 does not cut 8x8 images: its last cells would start outside"),
        ({"ipc": 13, "init": "real"}, r"ipc 13 asks for more images than class 'a' has \(12"),
        ({"ipc": 4, "init": "mix"}, r"class 'a' has 12 images and init mix shrinks 16 \(ipc 4 x 4 cells\)"),
        ({"lr": float("nan")}, r"lr is nan: give a finite number"),
        ({"lr": -1.0}, r"lr is -1.0: it must be above 0"),
        ({"parameterization": "windows", "windows_start": 1.5}, r"windows_start is 1.5: it is a share"),
        ({"validation": 1.0}, r"validation is 1.0: it is the share of images held out"),
        ({"init": "nois"}, r"init is 'nois': choose from noise, real, mix"),
        ({"ipc": 1.5}, r"ipc is 1.5: give a whole number"),
        ({"parameterization": "windows", "windows": 99}, r"windows 99 is more than the \d+ candidate windows"),
        ({"parameterization": "windows", "factor": 1}, r"has no windows to mine: use factor 2"),
        ({"network": "convnte3"}, r"convnet3"),
        ({"augment": "colour"}, r"unknown augmentation 'colour'"),
    ],
)
def test_settings_that_cannot_work_are_refused(real, changes, message):
    with pytest.raises(DistilError, match=message):
        distil_dataset(real, tiny(**changes))


def test_a_class_of_one_image_needs_every_image(real):
    rows = torch.cat([real.by_class[0], real.by_class[1], real.by_class[2][:1]])
    lopsided = replace(real, images=real.images[rows], labels=real.labels[rows])
    settings = preset("random", "custom", 1)
    with pytest.raises(DistilError, match=r"class 'c' has 1 image, and validation 0.1 holds .* use validation 0"):
        distil_dataset(lopsided, settings)
    made = distil_dataset(lopsided, replace(settings, validation=0.0))
    assert torch.equal(made.params[2], real.images[real.by_class[2][0]])


def test_noise_needs_no_real_image_for_each_item(real):
    made = distil_dataset(real, tiny("dc", ipc=13))
    assert len(made.params) == 39


def test_float_storage_keeps_what_was_learned(real):
    fine, coarse = (distil_dataset(real, tiny(storage=storage)) for storage in ("float32", "uint8"))
    assert fine.params.dtype == torch.float32
    assert (fine.params * 255).round().to(torch.uint8).equal(coarse.params)
    assert fine.bytes["images"] == 4 * coarse.bytes["images"]


def test_the_held_out_share_is_never_learned_from(real):
    settings = tiny(validation=0.25)
    kept, held_out = real.split(0.25, settings.seed)
    changed = real.images.clone()
    rows = [(real.images == image).flatten(1).all(1).nonzero()[0, 0] for image in held_out.images]
    rows = torch.stack(rows)
    changed[rows] = 255 - changed[rows]
    other = replace(real, images=changed)
    assert torch.equal(distil_dataset(real, settings).params, distil_dataset(other, settings).params)
    assert len(kept.labels) + len(held_out.labels) == len(real.labels)


def test_a_result_in_an_impossible_place_is_named(real, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DistilError, match="cannot write"):
        distil_dataset(real, tiny(), folder=tmp_path / "file" / "run")


def test_the_saved_set_says_how_it_was_made(real, tmp_path):
    distil_dataset(real, tiny("udd-windows"), folder=tmp_path)
    loaded = DistilledSet.load(tmp_path / RESULT)
    assert loaded.method == "udd-windows"
    assert loaded.settings["parameterization"]["policy"] == {"kind": "response", "proxy_steps": 2}
    assert loaded.source_fingerprint == real.fingerprint()
    assert loaded.classes == real.classes


# ------------------------------------------------------------------------------------- damaged, locked and killed runs


def finished(real, settings, folder):
    """The bytes and the log of a run that nothing disturbed, which left two checkpoints and no result."""
    log = EventLog(folder / "log.jsonl")
    distil_dataset(real, settings, folder=folder, events=log, validate=lambda *_: 50.0, checkpoint_seconds=0.0)
    result = folder / RESULT
    whole = result.read_bytes()
    result.unlink()
    return whole, told(folder)


def told(folder):
    """The lines of a log but those that tell of a run's starts and checkpoints, without their times."""
    lines = [line for line in read_log(folder / "log.jsonl") if line["event"] not in ("start", "checkpoint", "damaged")]
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def resumed(real, settings, folder):
    log, recorder = EventLog(folder / "log.jsonl", resumed=True), Recorder()

    def events(name, **fields):
        log(name, **fields)
        recorder(name, **fields)

    distil_dataset(real, settings, folder=folder, resume=True, events=events, validate=lambda *_: 50.0)
    return (folder / RESULT).read_bytes(), told(folder), recorder


def flip(path, place=-1, bit=1):
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(bytes(data))


HELD_OUT = {"validations": 2, "validation": 0.25}


@pytest.mark.parametrize("method", ["idc", "udd", "udd-windows"])
def test_one_flipped_bit_gives_way_to_the_checkpoint_before_and_the_same_result(real, tmp_path, method):
    settings = tiny(method, **HELD_OUT)
    whole, lines = finished(real, settings, tmp_path)
    flip(tmp_path / CHECKPOINT)
    again, lines_again, log = resumed(real, settings, tmp_path)
    assert again == whole
    assert lines_again == lines
    assert log.of("start")[0]["step"] == 5
    message = log.of("damaged")[0]["message"]
    assert f"{tmp_path / CHECKPOINT} is damaged" in message
    assert message.endswith(f"The run continues from {tmp_path / PREVIOUS}, step 5.")


def test_a_checkpoint_of_the_last_step_makes_the_last_validation_and_the_result(real, tmp_path):
    settings = tiny("idc", **HELD_OUT)
    whole, lines = finished(real, settings, tmp_path)
    kept = [line for line in lines if (line["event"], line["step"]) not in (("validation", 6), ("done", 6))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    again, lines_again, log = resumed(real, settings, tmp_path)
    assert (again, lines_again) == (whole, lines)
    assert [fields["step"] for fields in log.of("validation")] == [6]


@pytest.fixture(scope="module")
def windows_run(tmp_path_factory):
    """The folder of a run with mined windows as `finished` leaves it, and the bytes of its result."""
    folder = tmp_path_factory.mktemp("windows")
    return folder, finished(make_images(), tiny("udd-windows"), folder)[0]


@pytest.mark.parametrize("of_before", [False, True], ids=["with checksum", "of before"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda t, h: t["canvases"].fill_(float("nan")),
            r"its canvases hold nan, which is not between -10000 and 10000",
        ),
        (lambda t, h: t["canvases"].view(-1)[3:4].fill_(1e30), r"its canvases hold 1e\+30"),
        (lambda t, h: t["momentum"].view(-1)[0:1].fill_(1e38), r"its momentum hold 1e\+38"),
        (lambda t, h: t["weight.0"].view(-1)[0:1].fill_(float("inf")), r"its weight.0 hold inf"),
        (lambda t, h: t["weight_momentum.1"].view(-1)[0:1].fill_(-1e9), r"its weight_momentum.1 hold -1e\+09"),
        (lambda t, h: t["utilisation"].view(-1)[0:1].fill_(2), r"its utilisation hold 2, which is not between 0 and 1"),
        (lambda t, h: t["windows"][0, 0].copy_(torch.tensor([5, 0, 3, 8.0])), r"its windows are not inside"),
        (lambda t, h: t.pop("weight.3"), r"it lacks tensor 'weight.3'"),
        (lambda t, h: t.pop("windows"), r"it lacks tensor 'windows'"),
        (lambda t, h: t.update(extra=torch.zeros(1)), r"it holds an unknown tensor 'extra'"),
        (lambda t, h: t.update(canvases=t["canvases"][:, :, :4]), r"its canvases are torch.float32 of shape"),
        (lambda t, h: t.update(canvases=t["canvases"].double()), r"its canvases are torch.float64 of shape"),
        (lambda t, h: h.update(step=7), r"its step is 7, and the run has steps 0 to 6"),
        (lambda t, h: h.update(step="5"), r"its step is '5'"),
        (lambda t, h: h.update(step=True), r"its step is True"),
        (lambda t, h: h.pop("step"), r"its step is None"),
        (lambda t, h: h.update(settings=[]), r"its header names no settings"),
    ],
)
def test_nonsense_in_a_resumed_state_is_refused_and_the_checkpoint_before_is_used(
    real, tmp_path, change, named, of_before, windows_run
):
    settings = tiny("udd-windows")
    folder, whole = windows_run
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors, header = load_tensors(tmp_path / CHECKPOINT)
    change(tensors, header)
    write_checkpoint(tmp_path / CHECKPOINT, tensors, header, of_before)
    again, _, log = resumed(real, settings, tmp_path)
    assert again == whole
    assert re.search(named, log.of("damaged")[0]["message"])

    (tmp_path / RESULT).unlink()
    write_checkpoint(tmp_path / CHECKPOINT, tensors, header, of_before)
    (tmp_path / PREVIOUS).unlink(missing_ok=True)
    with pytest.raises(DistilError, match=rf"{CHECKPOINT} is damaged: {named}"):
        distil_dataset(real, settings, folder=tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).exists()


def test_a_checkpoint_in_the_folder_of_a_selection_is_of_another_run(real, tmp_path):
    distil_dataset(real, tiny("idc"), folder=tmp_path)
    (tmp_path / RESULT).unlink()
    with pytest.raises(DistilError, match=r"holds a checkpoint, and random, which chooses real images, makes none"):
        distil_dataset(real, Selection(method="random", ipc=1), folder=tmp_path, resume=True)
    assert not (tmp_path / RESULT).exists()


def write_checkpoint(path, tensors, header, of_before):
    if of_before:
        save_file({name: x.contiguous() for name, x in tensors.items()}, path, {"distil": json.dumps(header)})
    else:
        save_tensors(path, tensors, header)


@pytest.mark.parametrize("kept", [[3, 1], [0, 0], [0, 999]])
def test_frequencies_that_no_image_has_are_refused(real, tmp_path, kept):
    settings = tiny("udd")
    distil_dataset(real, settings, folder=tmp_path)
    tensors, header = load_tensors(tmp_path / CHECKPOINT)
    tensors["cosines"][:2] = torch.tensor(kept)
    save_tensors(tmp_path / CHECKPOINT, tensors, header)
    with pytest.raises(DistilError, match=r"checkpoint.safetensors is damaged: its cosines"):
        distil_dataset(real, settings, folder=tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["flipped", "nan", "huge", "another network", "no safetensors"])
def test_a_damaged_proxy_is_trained_again_to_the_same_bytes(real, tmp_path, damage):
    settings = tiny("udd-windows")
    whole, _ = finished(real, settings, tmp_path)
    path = tmp_path / PROXY
    sound = path.read_bytes()
    tensors, header = load_tensors(path)
    if damage == "flipped":
        flip(path)
    elif damage == "no safetensors":
        path.write_text("nothing")
    else:
        last = sorted(tensors)[-1]
        if damage == "another network":
            tensors[last] = torch.zeros(1)
        else:
            tensors[last].fill_(float("nan") if damage == "nan" else 1e9)
        write_checkpoint(path, tensors, header, of_before=True)
    again, _, log = resumed(real, settings, tmp_path)
    assert again == whole
    assert path.read_bytes() == sound
    message = log.of("damaged")[0]["message"]
    assert str(path) in message
    assert message.endswith("The proxy network is trained again.")


def test_a_folder_has_one_writer(real, tmp_path):
    refused = []

    def second():
        try:
            distil_dataset(real, tiny("idc"), folder=tmp_path, resume=True)
        except DistilError as error:
            refused.append(str(error))

    with only_writer(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert re.match(rf"another run is writing to {tmp_path} \(process {os.getpid()} on", refused[0])


def test_unfinished_files_of_dead_processes_are_removed_at_the_start(real, tmp_path):
    (tmp_path / f".{CHECKPOINT}.0123456789abcdef.part").write_text("half")
    distil_dataset(real, tiny("idc"), folder=tmp_path)
    assert sorted(os.listdir(tmp_path)) == [CHECKPOINT, RESULT]


@pytest.mark.parametrize("number", [n for n in STOPPING if n != signal.SIGINT])
def test_every_signal_that_asks_a_run_to_stop_saves(real, tmp_path, number):
    def ask(name, **fields):
        if name == "step" and fields["step"] == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="stopped after step 3") as stop:
        distil_dataset(real, tiny("idc"), folder=tmp_path, events=ask)
    assert stop.value.number == number
    assert load_tensors(tmp_path / CHECKPOINT)[1]["step"] == 3


@pytest.mark.parametrize("stop_at", [0, 12])
def test_a_stop_while_networks_are_prepared_does_not_wait_for_them(real, tmp_path, stop_at):
    settings = tiny("udd", **FAST, refresh=1)
    whole = distil_dataset(real, settings)
    prepared = []

    def ask(name, **fields):
        if name == "preparing" and fields["unit"] == "network":
            prepared.append(fields["done"])
            if len(prepared) == (1 if stop_at == 0 else 4):
                os.kill(os.getpid(), signal.SIGTERM)

    if stop_at == 0:
        with pytest.raises(Interrupted, match="stopped before the first step: nothing was saved"):
            distil_dataset(real, settings, folder=tmp_path, events=ask)
    else:
        settings_outer = settings.inner * settings.target_reuse
        with pytest.raises(Interrupted, match=f"stopped after step {settings_outer} of"):
            distil_dataset(real, settings, folder=tmp_path, events=ask)
    assert prepared[-1] == 1
    assert (tmp_path / CHECKPOINT).exists() == (stop_at > 0)
    again = distil_dataset(real, settings, folder=tmp_path, resume=True)
    assert torch.equal(again.params, whole.params)


def test_the_time_before_the_first_step_is_told(real):
    log = Recorder()
    distil_dataset(real, tiny("udd", **FAST), events=log)
    told = {fields["what"]: fields for fields in log.of("preparing")}
    assert told["training the proxy network"]["done"] == told["training the proxy network"]["of"] == 2
    assert told["preparing networks"] == {
        "what": "preparing networks",
        "unit": "network",
        "done": 3,
        "of": 3,
        "every": 6,
    }
    log = Recorder()
    distil_dataset(real, changed(preset("herding", "custom", 1), network="convnet2", width=4), events=log)
    assert [fields["what"] for fields in log.of("preparing") if fields["done"] == fields["of"]] == [
        "training the network that embeds images",
        "embedding the images",
        "choosing images",
    ]
