"""Several processes make one set: with the bytes of one, and all of them end together."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distil import distil_dataset, preset
from distil.cli.main import main
from distil.dataset.matching import MatchingLoop
from distil.dataset.step import together
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.evaluation.evaluator import evaluate_distilled
from distil.evaluation.protocols import PROTOCOLS
from distil.processes import ONE, Processes, is_first, joined
from distil.runs import CHECKPOINT, RESULT, read_log
from tests.dataset.conftest import make_images, tiny
from tests.forked import in_two_processes

CASES = {
    "idc": ("idc", {"outer": 3}),
    "udd": ("udd", {"outer": 3, "inner": 2, "target_reuse": 2, "refresh": 1, "contrastive": "cfc"}),
    "udd-windows": ("udd-windows", {"inner": 2}),
    "dc": ("dc", {"inner": 2}),
    "k-means": ("idc", {"outer": 1, "inner": 2, "sampler": "kmeans"}),
    "targets": ("idc", {"outer": 1, "inner": 2, "networks": "targets", "target_reuse": 2}),
}
"""Each reaches another way in which work is spread: networks ahead (three for two processes), stages, none; choices of
the first process; networks that need the images; a sampler that remembers; networks that need targets."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images():
    return make_images(classes=5, each=8, channels=3)


def make_sets(folder: Path) -> None:
    """Make and evaluate all sets in the processes there are; the first keeps them."""
    for name, (method, changes) in CASES.items():
        made = distil_dataset(images(), tiny(method, **changes), folder=folder / name)
        if is_first():
            assert torch.equal(DistilledSet.load(folder / name / RESULT).params, made.params)
    protocol = replace(PROTOCOLS["quick"], max_updates=4)
    options = {"networks": ("convnet2", "convnet3"), "width": 4, "runs": 3, "processes": joined("cpu")}
    told = []
    scores = evaluate_distilled(made, images(), protocol, events=lambda _, **fields: told.append(fields), **options)
    assert [fields["accuracy"] for fields in told] == [x for values in scores.accuracies.values() for x in values]
    if is_first():
        (folder / "scores").write_text(repr(scores.accuracies))


def make_sets_and_be_refused(folder: Path) -> None:
    make_sets(folder)
    with pytest.raises(DistilError, match="process 1 of 2 has other settings than process 0"):
        distil_dataset(images(), tiny("dm", seed=0 if is_first() else 1))
    with pytest.raises(DistilError, match="mtt unrolls the training of one network"):
        distil_dataset(images(), preset("mtt", "custom", 1))


def test_two_processes_make_the_bytes_and_the_scores_of_one(tmp_path):
    told = tmp_path / "told.txt"
    assert in_two_processes(make_sets_and_be_refused, tmp_path / "two", told=told) == [0, 0], told.read_text()[-4000:]
    make_sets(tmp_path / "one")
    for name in CASES:
        for file in (RESULT, CHECKPOINT):
            one, two = ((tmp_path / count / name / file).read_bytes() for count in ("one", "two"))
            assert one == two, (name, file)
    assert (tmp_path / "one" / "scores").read_text() == (tmp_path / "two" / "scores").read_text()


RUN = ["dataset", "idc", "digits", "--width", "4", "--outer", "2", "--inner", "4", "--network-samples", "8", "--batch"]
RUN += ["4", "--validations", "1", "--device", "cpu", "--out"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The result of an undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*RUN, str(folder)]) == 0
    torch.set_num_threads(before)
    return (folder / RESULT).read_bytes()


def signalled(rank: int, number: int, words: list[str]) -> None:
    """Run a command; the process `rank` is sent a signal when two steps are done."""
    step = MatchingLoop.step

    def until_then(self):
        if self.done == 2 and int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), number)
        return step(self)

    MatchingLoop.step = until_then
    raise SystemExit(main(words))


@pytest.mark.parametrize(("rank", "number"), [(1, signal.SIGKILL), (1, signal.SIGTERM)])
def test_one_process_that_is_killed_or_stopped_ends_all_and_another_number_continues(rank, number, tmp_path, whole):
    folder, told = tmp_path / "run", tmp_path / "told.txt"
    ended = in_two_processes(signalled, rank, number, [*RUN, str(folder)], told=told)
    stopped = number == signal.SIGTERM
    assert ended == ([143, 143] if stopped else [2, -number]), told.read_text()[-4000:]
    lines = [line for line in told.read_text().splitlines() if line.startswith("distil: ")]
    why = "stopped after step 3 of 8" if stopped else "another process of this run has ended, so all have stopped"
    assert lines == [f"distil: {why}: continue with distil dataset --resume {folder}"]
    assert "Traceback" not in told.read_text()
    assert read_log(folder / "log.jsonl")[-1] == {
        **read_log(folder / "log.jsonl")[-1],
        "event": "checkpoint",
        "step": 3 if stopped else 2,
    }
    assert main(["dataset", "--resume", str(folder)]) == 0
    assert (folder / RESULT).read_bytes() == whole


def test_a_refusal_is_told_once_and_other_commands_take_one_process(tmp_path, capsys, monkeypatch):
    told = tmp_path / "told.txt"
    (tmp_path / "run.json").write_text("{}")
    assert in_two_processes(signalled, 0, 0, [*RUN, str(tmp_path)], told=told) == [2, 2]
    assert told.read_text().count("distil: ") == told.read_text().count("already holds a run") == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["show", "set.safetensors"]) == 2
    assert "distil show runs in one process: start it without torchrun." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("classes", "images", "least", "sizes"),
    [(10, 4, 4, [3, 3, 2, 2]), (10, 4, 1, [10]), (3, 4, 4, [1, 1, 1]), (10, 32, 1, [4, 3, 3]), (5, 1000, 2, [1] * 5)],
)
def test_classes_share_passes_in_equal_chunks(classes, images, least, sizes):
    chunks = together(classes, images, 128, least)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [label for chunk in chunks for label in chunk] == list(range(classes))


def test_pieces_are_dealt_out_in_turn():
    assert dict(Processes(1, 3).mine("abcde")) == {1: "b", 4: "e"}
    assert dict(ONE.mine("ab")) == {0: "a", 1: "b"}
