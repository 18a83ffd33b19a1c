"""A short run of benchmarks/fuzz.py over every kind of file, and that it and benchmarks/kills.py can fail."""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import distil.files
from distil.detector.gkd.prototypes import PrototypeSet
from distil.errors import DistilError

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import fuzz
import kills
from fuzzing import case, pool
from fuzzing.boxes import meant
from fuzzing.targets import TARGETS
from fuzzing.tensor_damage import sealed_text, tensor_file, tensors_of, unsealed

CASES = 10
"""Of every target."""


@pytest.fixture
def plant(monkeypatch):
    """Replace parts of a target, as a fault in the library would."""

    def planted(name, **changes):
        case.seed_of(name)  # made by the sound target
        target, files, content = case.seed_of(name)
        broken = replace(target, **changes)
        monkeypatch.setattr(case, "seed_of", lambda wanted: (broken, files, content))

    return planted


def kinds(name, count=20):
    return Counter(case.run_case(name, 0, number).kind for number in range(count))


@pytest.mark.slow
def test_no_mutation_brings_a_fault_to_light():
    counts = dict.fromkeys(TARGETS, CASES)
    failures = [one for one in pool.run(counts, seed=0, jobs=1) if one.kind not in case.GOOD]
    assert not failures, "\n".join(
        f"{one.kind}: python benchmarks/fuzz.py --replay {one.target!r} {one.number}: {one.mutation}: {one.detail}"
        for one in failures[:20]
    )


def test_a_reader_that_raises_something_else_is_reported(plant):
    def read(folder, name):
        return {}["missing"]

    plant("log", read=read)
    found = case.run_case("log", 0, 1)
    assert (found.kind, found.file) == ("exception", "log.jsonl")
    assert found.detail.startswith("KeyError: 'missing' in test_fuzz.py:")


def test_nonsense_that_is_accepted_is_reported(plant):
    def read(folder, name):
        found = PrototypeSet.load(folder / name)
        return replace(found, student=found.student * float("nan"))

    plant("prototypes", read=read)
    found = [case.run_case("prototypes", 0, number) for number in range(20)]
    assert {one.detail for one in found if one.kind == "nonsense"} >= {"student is not finite"}


def test_a_reader_that_overlooks_its_checksum_is_reported(monkeypatch):
    class Equal(str):
        def __ne__(self, other):
            return False

    case.seed_of("prototypes")
    monkeypatch.setattr(distil.files, "checksum", lambda tensors, header: Equal())
    whole = "the file is damaged, but was accepted with other content"
    found = [case.run_case("prototypes", 0, number) for number in range(300)]
    assert whole in {one.detail for one in found if one.kind == "nonsense"}


def test_a_reader_that_hangs_is_reported(plant, monkeypatch):
    monkeypatch.setattr(case, "SECONDS", 0.1)

    def read(folder, name):
        try:
            time.sleep(60)
        except Exception:
            return None

    plant("log", read=read)
    found = case.run_case("log", 0, 1)
    assert found.kind == "hang"
    assert 0.1 <= found.seconds < 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured on Linux")
def test_a_reader_that_takes_too_much_memory_is_reported(plant, monkeypatch):
    monkeypatch.setattr(case, "PEAK", 50 << 20)

    def read(folder, name):
        torch.ones(25 << 20)
        raise DistilError("too late")

    plant("log", read=read)
    found = case.run_case("log", 0, 1)
    assert found.kind == "memory"
    assert found.peak > 90 << 20


def test_a_refusal_that_says_nothing_is_reported(plant):
    def read(folder, name):
        raise DistilError("")

    plant("log", read=read)
    assert case.run_case("log", 0, 1).kind == "message"


def test_a_refusal_where_a_good_copy_lies_beside_is_reported(plant):
    def read(folder, name):
        raise DistilError("damaged")

    plant("prototypes", read=read, falls_back=(".safetensors",))
    assert set(kinds("prototypes", 30)) == {"lost", "refused"}


def test_a_seed_that_is_refused_is_reported():
    with pytest.MonkeyPatch.context() as patch:
        broken = replace(TARGETS["log"], nonsense=lambda found, case: "as planted")
        patch.setitem(TARGETS, "planted", broken)
        with pytest.raises(ValueError, match="the seed is nonsense: as planted"):
            case.seed_of("planted")


def dying(connection, seed):
    """In place of `fuzzing.pool.work`: the second case ends the process."""
    while (block := connection.recv()) is not None:
        for number in block[1]:
            connection.send(("began", number))
            if number == 1:
                os._exit(7)
            connection.send(("done", case.Outcome(block[0], number, "refused")))
        connection.send(("free", None))


def test_a_case_that_ends_its_process_is_reported_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(pool, "work", dying)
    found = list(pool.run({"log": 4}, seed=0, jobs=1))
    assert [(one.number, one.kind) for one in found] == [
        (0, "refused"),
        (1, "exception"),
        (2, "refused"),
        (3, "refused"),
    ]
    assert found[1].detail == "the process died, 7"
    assert found[1].file == "log.jsonl"


def test_an_address_names_one_mutation():
    one, other = (case.damaged_folder("COCO", 3, 17) for _ in range(2))
    assert one == other
    assert len({str(case.damaged_folder("COCO", 3, number)[2]) for number in range(20)}) > 15


def test_a_sealed_tensor_file_passes_the_check_behind_which_the_others_stand(tmp_path):
    path = tmp_path / "file.safetensors"
    tensors = {"a": torch.full((2,), float("nan"))}
    path.write_bytes(tensor_file(tensors, sealed_text(tensors, '{"kind": "x"}')))
    assert distil.files.load_tensors(path)[1] == {"kind": "x"}
    path.write_bytes(unsealed(path.read_bytes()))
    assert "checksum" not in tensors_of(path.read_bytes())[1]


@pytest.mark.parametrize(
    ("flag", "set_"),
    [("no", False), ("False", False), ("Unspecified", False), ("0", False), (None, False), (1, True), ("true", True)],
)
def test_what_flags_mean(flag, set_):
    assert meant(flag) is set_


def test_the_table_is_put_into_its_page(tmp_path):
    row = {"cases": 3, "refused": 1, "equal": 1, "valid": 0, "failures": {"hang": 1}, "seconds": 1.5, "peak": 3 << 20}
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- fuzz -->\nold\n<!-- end fuzz -->\nafter\n")
    fuzz.put_into_page("fuzz", fuzz.table({"targets": {"log": row}}), page)
    assert page.read_text().splitlines() == [
        "before",
        "<!-- fuzz -->",
        "| file | cases | refused | accepted, equal | accepted, valid | failures | slowest s | most memory MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        "| log | 3 | 1 | 1 | 0 | 1 hang | 1.50 | 3 |",
        "| all | 3 | 1 | 1 | 0 | 1 hang | 1.50 | 3 |",
        "<!-- end fuzz -->",
        "after",
    ]


COMMAND = """
import os, signal, sys, time
os.write(int(os.environ["DISTIL_KILLS_READY"]), b"!")
{handler}
time.sleep({seconds} if sys.argv[1] == "first" else 0)
open("result.txt", "w").write("{result}" + ({differs} if sys.argv[1] == "again" else ""))
"""
SAVES = """
def save(number, frame):
    print("continue with distil again")
    {more}
    sys.exit(130)
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGXCPU"):
    signal.signal(getattr(signal, name), save)
"""


@pytest.fixture
def stopped(monkeypatch):
    """A trial of a command that takes half a minute to write result.txt, unless it continues as `again`."""
    monkeypatch.setattr(kills, "write_data", lambda folder: None)
    monkeypatch.setattr(kills, "TWICE", 0.0)
    monkeypatch.setitem(kills.COMMANDS, "fake", kills.Command("first", ("result.txt",)))

    def trial(differs="''", more="", signal="SIGTERM"):
        code = COMMAND.format(handler=SAVES.format(more=more), seconds=30, result="same", differs=differs)
        monkeypatch.setattr(kills, "line_of", lambda words: [sys.executable, "-c", code, words])
        monkeypatch.setattr(kills, "SIGNALS", (signal,))
        same = kills.hashlib.sha256(b"same").hexdigest()
        return kills.run_trial("fake", 0, 0, kills.Reference({"result.txt": same}, 0.8))

    return trial


def test_a_command_that_saves_and_goes_on_passes(stopped):
    trial = stopped()
    assert (trial.faults, trial.statuses, trial.words) == ([], [130, 0], ["first", "again"])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"differs": "'!'"}, "of other bytes: result.txt"),
        ({"more": "open('.x.part', 'w')"}, "left over: .x.part"),
        ({"more": "raise ValueError('as planted')"}, "a traceback, ValueError: as planted"),
        ({"more": "sys.exit(3)"}, "gave status 3"),
    ],
)
def test_a_command_that_does_not_is_reported(stopped, fault, told):
    assert any(told in text for text in stopped(**fault).faults)


def test_the_table_of_kills():
    trials = [
        {"command": "demo", "signals": ["SIGKILL", "SIGINT"], "statuses": [-9, 130, 0], "faults": []},
        {"command": "demo", "signals": ["SIGHUP"], "statuses": [0], "faults": ["of other bytes: x"]},
    ]
    lines = kills.table({"trials": trials}).splitlines()
    assert lines[2] == "| `demo` | 2 | 3 | 1 | 1 | 1 | 1 | 1 |"
    assert lines[-1] == "Signals: SIGKILL 1, SIGTERM 0, SIGINT 1, SIGHUP 1, SIGUSR1 0, SIGXCPU 0."


def test_the_results_are_whole():
    for name in ("fuzz", "kills"):
        path = Path(kills.RESULT).with_name(f"{name}.json")
        if path.exists():
            assert json.loads(path.read_text())["versions"]
