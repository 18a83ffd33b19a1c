"""Run folders: manifests, checkpoints, logs that survive a crash."""

import json

import pytest
import torch

from distil.errors import DistilError
from distil.files import load_tensors
from distil.runs import (
    CHECKPOINT,
    LOG,
    PREVIOUS,
    PROXY,
    RESULT,
    EventLog,
    has_checkpoint,
    is_abandoned,
    load_checkpoint,
    read_log,
    read_manifest,
    remove_abandoned,
    remove_checkpoints,
    save_checkpoint,
    start_run,
)


def test_a_folder_holds_one_run(tmp_path):
    start_run(tmp_path / "run", {"command": "dataset", "settings": {"ipc": 1}})
    assert read_manifest(tmp_path / "run") == {"command": "dataset", "settings": {"ipc": 1}}
    with pytest.raises(
        DistilError, match=r"already holds a run\. Continue it \(resume=.*run\) or choose another folder \(out\)\.$"
    ):
        start_run(tmp_path / "run", {})
    with pytest.raises(DistilError, match=r"holds no run: run.json is missing"):
        read_manifest(tmp_path)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(DistilError, match=r"run.json cannot be read"):
        read_manifest(tmp_path / "run")


def test_a_resumed_log_forgets_what_will_be_written_again(tmp_path):
    path = tmp_path / "log.jsonl"
    log = EventLog(path)
    log("start", steps=10)
    for step in range(1, 6):
        log("step", step=step, loss=1.5)
    with open(path, "a") as file:
        file.write('{"event": "st')
    assert len(read_log(path)) == 6
    EventLog(path, resume_at=4)("step", step=4, loss=2.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("step") for line in lines] == [None, 1, 2, 3, 4]
    assert lines[-1]["loss"] == 2.5


def test_a_log_in_an_impossible_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DistilError, match=r"cannot write .*log.jsonl"):
        EventLog(tmp_path / "file" / "log.jsonl")("step", step=1)


def two_checkpoints(folder):
    for step in (1, 2):
        save_checkpoint(folder, {"x": torch.full((3,), float(step))}, {"step": step})


def flip_last_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_the_checkpoint_before_the_last_is_kept(tmp_path):
    assert load_checkpoint(tmp_path) is None
    two_checkpoints(tmp_path)
    assert load_tensors(tmp_path / PREVIOUS)[1] == {"step": 1}
    tensors, header, note = load_checkpoint(tmp_path)  # pyright: ignore[reportGeneralTypeIssues]
    assert (tensors["x"].tolist(), header, note) == ([2.0] * 3, {"step": 2}, "")
    remove_checkpoints(tmp_path)
    assert not has_checkpoint(tmp_path)


@pytest.mark.parametrize("how", ["flipped", "short", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, how):
    two_checkpoints(tmp_path)
    path = tmp_path / CHECKPOINT
    if how == "flipped":
        flip_last_bit(path)
    elif how == "short":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    assert has_checkpoint(tmp_path)
    _, header, note = load_checkpoint(tmp_path)  # pyright: ignore[reportGeneralTypeIssues]
    assert header == {"step": 1}
    assert str(path) in note
    assert note.endswith(f"The run continues from {tmp_path / PREVIOUS}, step 1.")
    assert not path.exists()
    save_checkpoint(tmp_path, {}, {"step": 3})  # the good one stays where it is
    assert load_tensors(tmp_path / PREVIOUS)[1] == {"step": 1}


def test_a_checkpoint_from_which_no_run_can_go_on_gives_way_too(tmp_path):
    two_checkpoints(tmp_path)

    def sound(tensors, header):
        if header["step"] == 2:
            raise DistilError("step 2 is absurd.")

    assert load_checkpoint(tmp_path, sound)[1] == {"step": 1}


def test_two_damaged_checkpoints_are_refused_and_kept(tmp_path):
    two_checkpoints(tmp_path)
    for name in (CHECKPOINT, PREVIOUS):
        flip_last_bit(tmp_path / name)
    with pytest.raises(DistilError, match=rf"{CHECKPOINT} is damaged"):
        load_checkpoint(tmp_path)
    assert (tmp_path / CHECKPOINT).exists()


def test_a_log_with_a_bad_byte_or_nonsense_loses_only_those_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [b'{"event": "a", "step": 1}', b'{"event": "\xff"}', b"[1]", b"[" * 5000, b'{"event": "b", "step": "x"}']
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert [line["event"] for line in read_log(path)] == ["a", "b"]
    EventLog(path, resume_at=1)
    assert [line["event"] for line in read_log(path)] == ["b"]


def test_a_resumed_log_forgets_from_the_step_that_start_tells(tmp_path):
    path = tmp_path / "log.jsonl"
    log = EventLog(path)
    log("start", step=0, steps=4)
    log("preparing", what="opening", done=0)
    for step in (1, 2, 3):
        log("step", step=step)
        log("checkpoint", step=step)
        log("validation", step=step)
    before = path.read_text()
    log = EventLog(path, resumed=True)
    assert path.read_text() == before
    log("start", step=2, steps=4)
    told = [(line["event"], line["step"]) for line in read_log(path)]
    assert told == [
        ("start", 0),
        ("step", 1),
        ("checkpoint", 1),
        ("validation", 1),
        ("step", 2),
        ("checkpoint", 2),
        ("start", 2),
    ]
    EventLog(path, resumed=True)("start", step=0, steps=4)
    assert [(line["event"], line["step"]) for line in read_log(path)] == [("start", 0)]


def test_only_a_run_without_checkpoint_and_result_is_abandoned(tmp_path):
    folder = tmp_path / "run"
    assert not is_abandoned(folder, "dataset")
    start_run(folder, {"command": "dataset"})
    for name in (LOG, PROXY, ".lock", ".run.json.0123.part"):
        (folder / name).write_text("")
    assert is_abandoned(folder, "dataset")
    assert not is_abandoned(folder, "detector train")
    for name in (CHECKPOINT, PREVIOUS, RESULT, "notes.txt"):
        (folder / name).write_text("")
        assert not is_abandoned(folder, "dataset")
        (folder / name).unlink()
    remove_abandoned(folder)
    assert not is_abandoned(folder, "dataset")
    start_run(folder, {"command": "dataset"})


def test_a_missing_checkpoint_does_not_hide_that_the_one_before_is_damaged(tmp_path):
    two_checkpoints(tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    flip_last_bit(tmp_path / PREVIOUS)
    with pytest.raises(DistilError, match=rf"{PREVIOUS} is damaged"):
        load_checkpoint(tmp_path)
