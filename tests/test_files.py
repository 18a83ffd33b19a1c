"""Files that are whole or not there, and that notice a changed bit."""

import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distil.errors import DistilError
from distil.files import (
    load_tensors,
    parse_json,
    read_json,
    remove_unfinished,
    save_tensors,
    unfinished_folder,
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


def test_every_flipped_bit_is_refused(tmp_path):
    whole, path = tmp_path / "whole", tmp_path / "flipped"
    tensors = {
        "b": torch.arange(3).to(torch.int16),
        "a": torch.tensor(2.0, dtype=torch.bfloat16),
        "none": torch.ones(0),
    }
    save_tensors(whole, tensors, {"step": 3, "name": "b\u00e9e", "list": [1.5, None]})
    data = whole.read_bytes()
    assert load_tensors(whole)[1] == {"step": 3, "name": "b\u00e9e", "list": [1.5, None]}
    accepted = []
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                back, header = load_tensors(path)
            except DistilError as error:
                assert str(path) in str(error)  # noqa: PT017
                continue
            accepted.append((header, {name: tensor.tolist() for name, tensor in back.items()}))
    meant = (load_tensors(whole)[1], {name: tensor.tolist() for name, tensor in tensors.items()})
    assert all(other == meant for other in accepted)  # such as \\u00e9 written as \\u00E9


@pytest.mark.parametrize("value", [float("nan"), Path("x"), {1: 2, "a": 3}])
def test_a_header_that_json_cannot_hold(tmp_path, value):
    with pytest.raises(DistilError, match=r"cannot write .*file: its header is not what JSON can hold"):
        save_tensors(tmp_path / "file", {"a": torch.ones(2)}, {"x": value})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("side", [2**63, 2**64 - 1])
def test_a_shape_beyond_all_numbers_is_damage(tmp_path, side):
    entry = {"dtype": "F32", "shape": [0, side], "data_offsets": [0, 0]}
    header = json.dumps({"__metadata__": {"distil": "{}"}, "a": entry}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DistilError, match="file is not a whole safetensors file"):
        load_tensors(tmp_path / "file")


def test_an_unfinished_folder_is_removed_unless_it_was_moved(tmp_path):
    with unfinished_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("")
        assert len(folder.name) == len(".out.0123456789abcdef.part")
    assert os.listdir(tmp_path) == []
    with unfinished_folder(tmp_path / "out") as folder:
        folder.rename(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_files_of_before_have_no_checksum_and_load(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, str(tmp_path / "old"), metadata={"distil": json.dumps({"step": 3})})
    assert load_tensors(tmp_path / "old")[1] == {"step": 3}


@pytest.mark.parametrize("text", ["{", "[1]", '"text"', "[" * 100_000, '{"a": NaN}', '{"a": ' + "1" * 5000 + "}"])
def test_a_broken_header_is_one_error(tmp_path, text):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, str(tmp_path / "bad"), metadata={"distil": text})
    with pytest.raises(DistilError, match=r"bad: its header is damaged \(.*\)\. Copy or make the file again\."):
        load_tensors(tmp_path / "bad")


def test_a_file_keeps_its_permissions_and_a_new_one_takes_the_usual(tmp_path):
    target, other = tmp_path / "file", tmp_path / "plain"
    write_atomic(target, lambda path: path.write_text("one"))
    other.write_text("")
    assert target.stat().st_mode == other.stat().st_mode
    target.chmod(0o640)
    write_atomic(target, lambda path: path.write_text("two"))
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_temporary_names_cannot_be_guessed(tmp_path):
    names = []
    for _ in range(2):
        write_atomic(tmp_path / "file", lambda path: (names.append(path.name), path.write_text("x")))
    assert names[0] != names[1]
    assert all(len(name) == len(".file.0123456789abcdef.part") for name in names)


def test_the_replaced_file_can_be_kept(tmp_path):
    for text in ("one", "two", "three"):
        write_atomic(tmp_path / "file", lambda path, text=text: path.write_text(text), previous=tmp_path / "before")
    assert (tmp_path / "before").read_text() == "two"
    assert sorted(os.listdir(tmp_path)) == ["before", "file"]


def test_a_file_that_is_kept_already_leaves_no_link(tmp_path):
    """As a process leaves it that is killed once the old file is kept and before the new one is in its place."""
    (tmp_path / "file").write_text("one")
    os.link(tmp_path / "file", tmp_path / "before")
    write_atomic(tmp_path / "file", lambda path: path.write_text("two"), previous=tmp_path / "before")
    assert ((tmp_path / "file").read_text(), (tmp_path / "before").read_text()) == ("two", "one")
    assert sorted(os.listdir(tmp_path)) == ["before", "file"]


KILLED = """
import os, signal, sys
from distil.files import write_atomic
def write(path):
    path.write_text("half")
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
write_atomic(sys.argv[1], write)
"""


def test_unfinished_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    target = tmp_path / "file"
    subprocess.run([sys.executable, "-c", KILLED, str(target), "die"], check=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "other"), "die"], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    living = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target), "live"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    living.stdout.readline()
    assert len(list(tmp_path.iterdir())) == 2  # the dead one's of this file has gone when the other began
    remove_unfinished(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    living.communicate()
    assert target.read_text() == "half"
    assert os.listdir(tmp_path) == ["file"]


def test_json_is_read_strictly(tmp_path):
    for text in ("{", "[" * 100_000, "[" * 500 + "]" * 500, "[NaN]", "[Infinity]", "[1e309]", '{"a": -1e400}'):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)
    (tmp_path / "bad.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DistilError, match=r"bad.json cannot be read as JSON \(.*\)\. Copy or make the file again\."):
        read_json(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json")
