"""Runs that were damaged, stopped or doubled: what a resumed run accepts, and that it ends with the same bytes."""

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distil.detector.training.train import train_detector
from distil.detector.training.trainer import BEST, LAST
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.locks import only_writer
from distil.runs import CHECKPOINT, PREVIOUS, EventLog, Interrupted, read_log
from tests.forked import ends_well, moments, seconds_of, started

from .tiny import Recorder, cells, scripted, squares, tiny_settings, train_until_killed

TAUGHT = tiny_settings(loss="gkd,pkd", optimizer="adamw", prototype_features="training")
SCORES = (1.0, 3.0, 2.0)


def train(out, settings=TAUGHT, *, scores=SCORES, **options):
    options = {"teacher": cells(5), "measure": scripted(*scores), "validation": squares(5, 7), **options}
    return train_detector(cells(0), squares(), settings, out=out, **options)


def stopping_after(step, with_signal=signal.SIGTERM):
    def events(name, **fields):
        if name == "step" and fields["step"] == step:
            os.kill(os.getpid(), with_signal)

    return events


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A whole run, and a run of the same stopped after step 10 of 12, its checkpoint before that after step 7."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "whole")
    for step, scores in ((6, SCORES), (9, SCORES[1:])):
        with pytest.raises(Interrupted):
            train(folder / "stopped", events=stopping_after(step), scores=scores, resume=step > 6)
    return folder


@pytest.fixture
def copied(stopped, tmp_path):
    shutil.copytree(stopped / "stopped", tmp_path / "run")
    return tmp_path / "run"


def same_end(folder, stopped):
    whole = stopped / "whole"
    for name in (LAST, BEST):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    one, other = (load_tensors(each / CHECKPOINT)[0] for each in (folder, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def step_of(path):
    return load_tensors(path)[1]["step"]


def flip(path, byte=-40):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_the_end_is_the_same(copied, stopped):
    assert (step_of(copied / CHECKPOINT), step_of(copied / PREVIOUS)) == (10, 8)
    flip(copied / CHECKPOINT)
    log = Recorder()
    train(copied, resume=True, events=log, scores=SCORES[2:])
    assert log.of("start")[0]["step"] == 8
    (note,) = log.of("note")
    assert note["text"].startswith(f"{copied / CHECKPOINT} is damaged")
    assert note["text"].endswith(f"The run continues from {copied / PREVIOUS}, step 8.")
    same_end(copied, stopped)


def test_prototypes_that_only_the_checkpoint_before_needs_are_kept(tmp_path):
    settings = tiny_settings(loss="gkd", epochs=4)
    train(tmp_path / "whole", settings, scores=(1.0,) * 4)
    # checkpoints with each best epoch: the last of these needs the prototypes of epoch 3, the one before of epoch 2
    with pytest.raises(Interrupted):
        train(tmp_path / "run", settings, scores=(1.0,) * 4, events=stopping_after(13))
    flip(tmp_path / "run" / CHECKPOINT)
    step = step_of(tmp_path / "run" / PREVIOUS)
    assert step == 12
    train(tmp_path / "run", settings, scores=(1.0,) * 4, resume=True)
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


def test_damaged_prototypes_lead_to_the_checkpoint_before(copied, stopped):
    needed = copied / "prototypes-0002.safetensors"
    flip(needed)
    log = Recorder()
    train(copied, resume=True, events=log, scores=SCORES[2:])
    assert log.of("note")[0]["text"].startswith(f"{needed} is damaged")
    same_end(copied, stopped)


@pytest.mark.parametrize("how", [flip, Path.unlink])
def test_lost_weights_of_the_best_epoch_are_told_and_later_epochs_take_their_place(copied, stopped, how):
    how(copied / BEST)
    log = Recorder()
    assert train(copied, resume=True, events=log, scores=SCORES[2:]) == copied / BEST
    assert log.of("note")[0]["text"].endswith(
        "It held the weights of the best epoch so far; the best from here on is kept."
    )
    assert load_tensors(copied / BEST)[1]["validation"]["epoch"] == 3  # 3.0 of epoch 2 is lost, 2.0 of epoch 3 is left
    assert (copied / LAST).read_bytes() == (stopped / "whole" / LAST).read_bytes()


def change(path, **header):
    tensors, own = load_tensors(path)
    save_tensors(path, tensors, own | header)


def change_tensor(path, part, spoil):
    """Spoil the first floating tensor whose name holds `part`; the checksum is then that of the spoilt file."""
    tensors, header = load_tensors(path)
    name = next(name for name in tensors if part in name and tensors[name].is_floating_point())
    tensors[name] = spoil(tensors[name].clone())
    save_tensors(path, tensors, header)


def with_first(value):
    def spoil(tensor):
        tensor.view(-1)[0] = value
        return tensor

    return spoil


SPOILT = {
    "NaN in a weight": (lambda path: change_tensor(path, "module.model", with_first(float("nan"))), "no finite number"),
    "a weight of 1e30": (lambda path: change_tensor(path, "module.model", with_first(1e30)), "holds 1e\\+30"),
    "infinity in the optimiser": (lambda path: change_tensor(path, ".exp_avg", with_first(float("inf"))), "no finite"),
    "a moment of 1e30": (lambda path: change_tensor(path, ".exp_avg", with_first(-1e30)), "holds 1e\\+30"),
    "a negative square": (lambda path: change_tensor(path, ".exp_avg_sq", with_first(-1.0)), "cannot be what an"),
    "a step of the optimiser": (lambda path: change_tensor(path, ".step", with_first(1e6)), "the run has 12 steps"),
    "another shape": (lambda path: change_tensor(path, ".exp_avg", lambda x: x[:1]), "no state of this run's optimi"),
    "another type": (lambda path: change_tensor(path, "module.model", lambda x: x.double()), "is of torch.float64"),
    "a step beyond the end": (lambda path: change(path, step=13), "its step is 13, and the run has 12 steps"),
    "a negative step": (lambda path: change(path, step=-1), "its step is -1"),
    "a step that is text": (lambda path: change(path, step="7"), "'step' in its header is '7'"),
    "a history of numbers": (lambda path: change(path, history=[1, 2]), "its history has 1 after"),
    "a history of the future": (
        lambda path: change(path, history=[{"epoch": 3, "ap": 1.0, "ap50": 1.0}]),
        "its history has",
    ),
    "a history with text": (lambda path: change(path, history=[{"epoch": 1, "ap": "x", "ap50": 1.0}]), "its history"),
    "no settings": (lambda path: change(path, settings=None), "'settings' in its header is None"),
    "no scaler": (lambda path: change(path, scaler={"scale": 1.0}), "its scaler is another precision's"),
    "negative seconds": (lambda path: change(path, seconds=-1.0), "its seconds are -1.0"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_state_that_makes_no_sense_is_passed_over_or_refused(copied, how):
    spoil, message = SPOILT[how]
    for name in (CHECKPOINT, PREVIOUS):
        spoil(copied / name)
    with pytest.raises(DistilError, match=message) as caught:
        train(copied, resume=True)
    assert str(copied / CHECKPOINT) in str(caught.value)
    assert (copied / CHECKPOINT).is_file()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_first(float("nan")), "extra.gkd.student holds what is no finite number"),
        (lambda x: x[:, 1:], r"the features gathered for prototypes are not those of this run \(student\)"),
    ],
)
def test_gathered_features_that_make_no_sense_are_refused(tmp_path, spoil, message):
    with pytest.raises(Interrupted):
        train(tmp_path, events=stopping_after(5))
    (tmp_path / PREVIOUS).unlink()
    change_tensor(tmp_path / CHECKPOINT, "extra.gkd.student", spoil)
    with pytest.raises(DistilError, match=message):
        train(tmp_path, resume=True)


@pytest.mark.parametrize("how", ["NaN in a weight", "a step beyond the end"])
def test_the_checkpoint_before_stands_in_for_one_that_makes_no_sense(copied, stopped, how):
    SPOILT[how][0](copied / CHECKPOINT)
    log = Recorder()
    train(copied, resume=True, events=log, scores=SCORES[2:])
    assert log.of("start")[0]["step"] == 8
    assert str(copied / PREVIOUS) in log.of("note")[0]["text"]
    same_end(copied, stopped)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_each_signal_saves_and_the_run_goes_on(stopped, tmp_path, name):
    with pytest.raises(Interrupted, match=r"stopped after step 6 of 12: continue with distil detector train --resume"):
        train(tmp_path, events=stopping_after(5, getattr(signal, name)))
    assert step_of(tmp_path / CHECKPOINT) == 6
    train(tmp_path, resume=True, scores=SCORES[1:])
    same_end(tmp_path, stopped)


def test_a_checkpoint_stands_before_the_last_validation(stopped, tmp_path):
    def dying(name, **fields):
        if name == "preparing" and fields["what"] == "validation after epoch 3":
            raise MemoryError

    with pytest.raises(MemoryError):
        train(tmp_path, events=dying)
    assert step_of(tmp_path / CHECKPOINT) == 12
    log = Recorder()
    train(tmp_path, resume=True, events=log, scores=SCORES[2:])
    assert not log.of("step")
    assert [x["epoch"] for x in log.of("validation")] == [3]
    same_end(tmp_path, stopped)


def test_a_stop_is_heard_within_a_validation(stopped, tmp_path):
    def events(name, **fields):
        if name == "preparing" and fields["what"] == "validation after epoch 3":
            os.kill(os.getpid(), signal.SIGTERM)

    message = r"stopped while validating after step 12 of 12: continue with distil detector train --resume"
    with pytest.raises(Interrupted, match=message):
        train(tmp_path, events=events)
    train(tmp_path, resume=True, scores=SCORES[2:])
    same_end(tmp_path, stopped)


def test_a_checkpoint_with_the_last_validation_stands_before_the_export(tmp_path, monkeypatch):
    def dying(*values, **options):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("distil.detector.training.trainer.Run.finish", dying)
        with pytest.raises(MemoryError):
            train(tmp_path)
    header = load_tensors(tmp_path / CHECKPOINT)[1]
    assert (header["step"], [entry["epoch"] for entry in header["history"]]) == (12, [1, 2, 3])


def test_a_folder_has_one_writer(copied):
    def second(name, **fields):
        if name == "step":
            with only_writer(copied):  # the thread that holds it may enter again
                pass
            assert (copied / ".lock").read_text().startswith(f"process {os.getpid()} on ")

    train(copied, resume=True, events=second, scores=SCORES[2:])
    assert not (copied / ".lock").exists()


def test_a_folder_that_is_removed_during_the_run_is_told(tmp_path):
    out = tmp_path / "run"

    def remove(name, **fields):
        if name == "step" and fields["step"] == 2:
            shutil.rmtree(out)

    with pytest.raises(DistilError, match=f"the run folder {out} is gone: "):
        train(out, events=remove, checkpoint_seconds=0.0)
    assert not out.exists()


class Killed(BaseException):
    """In the place of SIGKILL: nothing of the run comes after it."""


def judged(found, annotations, classes):
    """A figure that depends on what was found."""
    figure = float(sum(one["scores"].double().sum() + one["boxes"].double().sum() for one in found)) % 97
    return SimpleNamespace(ap=figure, ap50=figure)


def told(folder):
    """What the log says of a run, apart from when, how long, and how often it began and saved."""
    lines = [line for line in read_log(folder / "log.jsonl") if line["event"] not in ("start", "checkpoint")]
    return [{name: x for name, x in line.items() if name not in ("time", "seconds")} for line in lines]


@pytest.mark.parametrize("at", ["validation", "checkpoint", "prototypes"])
def test_a_run_killed_at_the_end_of_an_epoch_tells_everything_once(tmp_path, at):
    def events(folder, kill_at, resumed):
        log, seen = EventLog(folder / "log.jsonl", resumed=resumed), []

        def pass_on(name, **fields):
            log(name, **fields)
            seen.append(name)
            after = seen[-2:] == ["validation", "checkpoint"] if kill_at == "checkpoint" else name == kill_at
            if after and fields.get("step", 0) > 0:
                raise Killed

        return pass_on

    def run(folder, kill_at="", resumed=False):
        listener = events(folder, kill_at, resumed)
        train(folder, measure=judged, events=listener, resume=resumed, checkpoint_seconds=0.0)

    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", at)
    run(tmp_path / "killed", resumed=True)
    assert told(tmp_path / "killed") == told(tmp_path / "whole")
    assert {line["event"] for line in told(tmp_path / "whole")} == {"step", "validation", "prototypes", "done"}


@pytest.mark.slow
def test_runs_killed_at_many_moments_end_with_the_same_bytes_and_leave_nothing(tmp_path):
    told, drawn = tmp_path / "told.txt", moments()
    lasted = seconds_of(train_until_killed, tmp_path / "whole", told=told)
    folder, kills = tmp_path / "killed", 0
    for number in (signal.SIGKILL, signal.SIGTERM) * 4:
        process = started(train_until_killed, folder, told=told)
        process.join(lasted * drawn.uniform(0.1, 0.5))
        if process.is_alive():
            os.kill(process.pid or 0, number)
            kills += 1
        process.join(120)
    assert kills >= 3
    ends_well(started(train_until_killed, folder, told=told), told)
    for name in (LAST, BEST):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
