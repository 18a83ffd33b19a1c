"""Score files: what is not one, or makes no sense, is refused with the file's name and the field's."""

import copy
import json
from pathlib import Path

import pytest

from distil.cli.main import main
from distil.errors import DistilError
from distil.report.scores import add_scores, by_table, read_scores

OLD = Path(__file__).parents[1] / "fixtures" / "version_0_1" / "scores.json"

ROW = {
    "name": "set",
    "method": "idc",
    "images_per_class": 1,
    "views": 40,
    "bytes": 2634,
    "protocol": "quick",
    "protocol_settings": {"epochs": 3},
    "width": None,
    "seed": 0,
    "test": "digits test",
    "test_images": 360,
    "test_fingerprint": "ab",
    "file_sha256": None,
    "updates": 3,
    "runs": 2,
    "networks": {"convnet3": {"accuracies": [50.0, 60.0], "mean": 55.0, "std": 50**0.5}},
}


def written(file: Path, **change) -> Path:
    row = {**copy.deepcopy(ROW), **change}
    file.write_text(json.dumps({"format_version": 1, "scores": [ROW, row]}))
    return file


def test_a_file_of_version_0_1_is_read_compared_with_its_own_kind_alone_and_extended(tmp_path, capsys):
    (file := tmp_path / "scores.json").write_bytes(OLD.read_bytes())
    (row,) = read_scores(file)
    assert row["networks"]["convnet3"]["accuracies"] == [67.2, 71.6]
    assert "protocol_version" not in row
    assert main(["compare", str(file), "--markdown"]) == 0
    assert "Protocol quick of unknown version, labels not told: accuracy in %" in capsys.readouterr().out
    add_scores(file, {**row, "protocol_version": 2, "name": "new", "path": "new"})
    assert [len(group) for group in by_table(read_scores(file))] == [1, 1]


def test_a_sound_file_is_read(tmp_path):
    assert read_scores(written(tmp_path / "a.json"))[1] == ROW


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b"\xff\xfe", b"{", b'{"scores": NaN}', b'{"scores": ' + b"9" * 5000 + b"}", b'{"scores": [1]}'],
)
def test_what_is_no_score_file(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DistilError, match=r"a\.json: not a score file.*Give a file that distil evaluate wrote\."):
        read_scores(tmp_path / "a.json")


def networks(**change):
    return {"networks": {"convnet3": {**ROW["networks"]["convnet3"], **change}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "name is None: it must be text."),
        ({"name": "a\x1b[2J"}, "name is 'a\\x1b[2J': it holds '\\x1b', which cannot be printed."),
        ({"name": "\ud800"}, "name is '\\ud800': it holds"),
        ({"method": ["idc"]}, "method is ['idc']: it must be text."),
        ({"bytes": "2634"}, "bytes is '2634': it must be a whole number, at least 0."),
        ({"runs": True}, "runs is True: it must be a whole number"),
        ({"test_images": 1.5}, "test_images is 1.5: it must be a whole number"),
        ({"images_per_class": 0}, "images_per_class is 0: it must be a whole number, at least 1, or null."),
        ({"width": "128"}, "width is '128'"),
        ({"seed": 10**300}, "seed is 1000"),
        ({"protocol_settings": [1]}, "protocol_settings are [1]: they must be an object."),
        ({"path": 3}, "path is 3: it must be text."),
        ({"protocol_version": 0}, "protocol_version is 0: it must be a whole number, at least 1."),
        ({"protocol_version": "2"}, "protocol_version is '2': it must be a whole number, at least 1."),
        ({"labels": "soft"}, "labels is 'soft': it must be hard, stored or teacher."),
        ({"labels": "hard"}, "label_bytes is None: it must be a whole number"),
        ({"labels": "stored", "label_bytes": 4, "temperature": -1.0}, "temperature is -1.0: it must be a number above"),
        ({"labels": "teacher", "label_bytes": 0, "temperature": 20.0}, "teacher is None: it must be an object"),
        ({"networks": {}}, "networks are {}: they must be an object with a network at least."),
        ({"networks": {"convnet3": 5}}, "convnet3 has no list of accuracies."),
        (networks(accuracies=[]), "convnet3 has no list of accuracies."),
        (networks(accuracies=["50"]), "the accuracies of convnet3 are ['50']: they must be percentages, 0 to 100."),
        (networks(accuracies=[50.0, 600.0]), "the accuracies of convnet3 are [50.0, 600.0]: they must be percentages"),
        (networks(mean=95.0), "mean of convnet3 is 95.0, and its accuracies give 55."),
        (networks(std=None), "std of convnet3 is None, and its accuracies give 7.07107."),
    ],
)
def test_nonsense_in_a_row_is_refused_by_field(tmp_path, change, message):
    with pytest.raises(DistilError) as caught:
        read_scores(written(tmp_path / "a.json", **change))
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: row 1: {message}")
    assert str(caught.value).endswith("Evaluate the set again, into another file.")
