"""What the commands print when they open detection data."""

import pytest

from distil.cli.detector_words import open_boxes
from distil.cli.main import main
from distil.data.detection.opener import open_detection
from tests.data.detection.test_coco import write_coco


def test_every_command_says_what_it_read_before_anything_is_spent(tmp_path, capsys):
    write_coco(tmp_path)
    told = str(open_detection(str(tmp_path)).inventory)
    for words in (
        ["evaluate", "nothing.safetensors", str(tmp_path), "--split", "train"],
        ["show", "nothing.safetensors", str(tmp_path), "--split", "train"],
        ["preflight", "nothing.safetensors", str(tmp_path)],
        ["train", str(tmp_path), "--teacher", "nothing.safetensors", "--out", str(tmp_path / "run")],
        ["train", str(tmp_path), "--out", str(tmp_path / "run"), "--backbone", "no-such-backbone"],
    ):
        assert main(["detector", *words]) == 2
        assert capsys.readouterr().out.startswith(told + "\n"), words


@pytest.mark.parametrize(("rank", "lines"), [("0", True), ("1", False)])
def test_the_first_process_alone_says_it(monkeypatch, capsys, rank, lines):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", rank)
    assert open_boxes("scenes:4", None, fix_boxes=False).inventory is not None
    assert capsys.readouterr().out.startswith("Read scenes") == lines


def test_boxes_that_are_mended_are_told_first(tmp_path, capsys):
    path = write_coco(tmp_path)
    path.write_text(
        path.read_text().replace("[1, 2, 5, 6]", "[1, 2, 50, 6]").replace("[2.5, 3, 4, 4]", "[2.5, 3, 0, 4]")
    )
    open_boxes(str(tmp_path), None, fix_boxes=True)
    told = capsys.readouterr().out
    left_out = (
        "left out: 1 box without area in the image (annotation 3 on a.png): dropped, because boxes are to be fixed\n"
    )
    assert left_out in told
    assert "1 box clipped to the image, because boxes are to be fixed (annotation 1 on a.png)\n" in told
