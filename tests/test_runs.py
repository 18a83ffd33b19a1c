"""Run folders: atomic writes, logs that survive a crash, stop requests."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from distil.errors import DistilError
from distil.runs import (
    EventLog,
    load_tensors,
    read_log,
    read_manifest,
    save_tensors,
    start_run,
    stop_requests,
    write_atomic,
)


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    for text in ("one", "two"):
        write_atomic(target, lambda path, text=text: path.write_text(text))
    assert target.read_text() == "two"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def broken(path: Path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DistilError, match=r"cannot write .*file.txt: No space left on device\. Free space there"):
        write_atomic(target, broken)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DistilError, match=r"cannot write .*file/x: "):
        write_atomic(tmp_path / "file" / "x", lambda path: path.write_text(""))


def test_tensors_round_trip_with_equal_bytes(tmp_path):
    tensors = {"b": torch.arange(6).view(2, 3), "a": torch.rand(3)}
    for name in ("one", "two"):
        save_tensors(tmp_path / name, tensors, {"step": 3, "a": [1, 2]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    back, header = load_tensors(tmp_path / "one")
    assert header == {"step": 3, "a": [1, 2]}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_unreadable_tensor_files(tmp_path):
    with pytest.raises(DistilError, match=r"no such file: .*missing"):
        load_tensors(tmp_path / "missing")
    save_tensors(tmp_path / "whole", {"a": torch.rand(100)}, {})
    (tmp_path / "short").write_bytes((tmp_path / "whole").read_bytes()[:-7])
    with pytest.raises(DistilError, match=r"short is not a whole safetensors file .*make it again"):
        load_tensors(tmp_path / "short")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DistilError, match=r"text is not a whole safetensors file"):
        load_tensors(tmp_path / "text")


def test_a_safetensors_file_of_somebody_else(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.rand(2)}, str(tmp_path / "other"))
    with pytest.raises(DistilError, match=r"distil did not write it"):
        load_tensors(tmp_path / "other")


def test_a_folder_holds_one_run(tmp_path):
    start_run(tmp_path / "run", {"command": "dataset", "settings": {"ipc": 1}})
    assert read_manifest(tmp_path / "run") == {"command": "dataset", "settings": {"ipc": 1}}
    with pytest.raises(DistilError, match=r"already holds a run\. Continue it with --resume"):
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_stop_request_is_remembered_and_the_second_raised(number):
    before = signal.getsignal(number)
    with stop_requests() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
