"""Class by class on the command line: --classes, and distil concat."""

import json
from dataclasses import replace

import pytest
import torch

from distil.cli.main import main
from distil.cli.set_words import class_names, named_in_path
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.evaluation.protocols import PROTOCOLS

FAST = ["--outer", "1", "--inner", "1", "--width", "4", "--validation", "0", "--device", "cpu"]
QUICK = ["--protocol", "quick", "--width", "4", "--runs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets of two classes each, made by runs on those classes, and both in one file."""
    place = tmp_path_factory.mktemp("classes")
    patch = pytest.MonkeyPatch()
    patch.chdir(place)
    patch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], max_updates=5))
    for classes in ("3,1", "8,0"):
        assert main(["dataset", "dm", "digits", "--classes", classes, *FAST]) == 0
    files = [f"runs/digits-{name}-dm-ipc1-seed0/distilled.safetensors" for name in ("3-1", "8-0")]
    assert main(["concat", *files, "--out", "all.safetensors"]) == 0
    yield place
    patch.undo()


def test_runs_on_some_classes_are_joined_and_judged(folder, capsys):
    assert DistilledSet.load("all.safetensors").classes == ("3", "1", "8", "0")
    run = json.loads((folder / "runs/digits-3-1-dm-ipc1-seed0/run.json").read_text())
    assert run["classes"] == ["3", "1"]
    assert run["read"]["classes"] == ["3", "1"]
    assert main(["evaluate", "all.safetensors", "digits", "--classes", "0,1,3,8", *QUICK]) == 0
    told = capsys.readouterr().out
    assert "Classes: 0, 1, 3, 8 (4 of 10): " in told
    assert "made from other images" not in told
    assert main(["show", "all.safetensors"]) == 0
    assert main(["export", "all.safetensors", "--to", "npz", "--out", "all.npz"]) == 0


def test_a_set_of_other_images_is_told(folder, capsys):
    import numpy as np

    images = np.arange(40, dtype=np.uint8).repeat(256).reshape(40, 16, 16)
    np.savez("other.npz", x_train=images, y_train=np.arange(40) % 4, classes=np.array(["0", "1", "3", "8"]))
    assert main(["evaluate", "all.safetensors", "other.npz", *QUICK]) == 0
    assert "Note: this set was made from other images than the training images of other" in capsys.readouterr().out


def test_without_classes_it_is_told_how(folder, capsys):
    assert main(["evaluate", "all.safetensors", "digits", *QUICK]) == 2
    assert "with --classes 3,1,8,0." in capsys.readouterr().err


def test_a_finished_run_of_some_classes_is_not_begun_again(folder, capsys):
    assert main(["dataset", "--resume", "runs/digits-3-1-dm-ipc1-seed0"]) == 0
    assert "This run is finished" in capsys.readouterr().out
    (folder / "runs/digits-3-1-dm-ipc1-seed0/distilled.safetensors").rename("kept.safetensors")
    assert main(["dataset", "--resume", "runs/digits-3-1-dm-ipc1-seed0"]) == 0
    told = capsys.readouterr().out
    assert "Classes: 3, 1 (2 of 10)" in told
    assert "distil evaluate runs/digits-3-1-dm-ipc1-seed0/distilled.safetensors digits --classes 3,1 " in told
    again = folder / "runs/digits-3-1-dm-ipc1-seed0/distilled.safetensors"
    assert again.read_bytes() == (folder / "kept.safetensors").read_bytes()


def test_a_run_file_whose_classes_make_no_sense(folder, tmp_path, capsys):
    run = json.loads((folder / "runs/digits-8-0-dm-ipc1-seed0/run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**run, "classes": "8,0"}))
    assert main(["dataset", "--resume", str(tmp_path)]) == 2
    assert 'classes is "8,0" and should be a list of names' in capsys.readouterr().err


def test_joining_says_what_it_made_and_refuses_what_it_must_not(folder, capsys):
    assert main(["concat", "all.safetensors", "--classes", "8,3", "--out", "two.safetensors"]) == 0
    told = capsys.readouterr().out
    assert "2 images of 2 classes, 530 bytes" in told
    assert "  8: dm of digits train (2 of 10 classes), seed 0" in told
    two = DistilledSet.load("two.safetensors")
    assert torch.equal(two.decoded().images, DistilledSet.load("all.safetensors").decoded_of([2, 0]))
    for words, message in (
        (
            ["concat", "all.safetensors", "two.safetensors", "--out", "x.safetensors"],
            "class '8' is in set 1 and in set",
        ),
        (
            ["concat", "all.safetensors", "--out", "two.safetensors"],
            "two.safetensors exists: give another name, or --over",
        ),
        (["concat", "all.safetensors", "--out", "all.npz", "--overwrite"], "a name that ends in .safetensors"),
        (["concat", "all.safetensors", "--classes", "4", "--out", "x.safetensors"], "unknown class '4'"),
        (["dataset", "dm", "digits", "--classes", "1,x"], "unknown class 'x'"),
        (["dataset", "dm", "digits", "--classes", "1"], "only one class ('1')"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    (folder / "x.safetensors").write_bytes(b"something else")
    assert main(["concat", "all.safetensors", "--out", "x.safetensors", "--overwrite"]) == 2
    assert (folder / "x.safetensors").read_bytes() == b"something else"
    assert main(["concat", "all.safetensors", "--out", "two.safetensors", "--overwrite"]) == 0


def test_names_with_commas_are_found():
    known = ["a", "salt, pepper", "b,c", "b"]
    assert class_names("a, salt, pepper,b,c", known) == ["a", "salt, pepper", "b,c"]
    assert class_names("b,a", known) == ["b", "a"]
    with pytest.raises(DistilError, match="unknown class 'd'"):
        class_names("a,d", known)
    assert named_in_path("0,1 x/y") == "-0-1-x-y"
    assert len(named_in_path("x" * 50)) == 11
    assert named_in_path(None) == ""
