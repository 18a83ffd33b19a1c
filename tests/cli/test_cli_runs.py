"""What runs on the command line survive: signals, readers that go away, damaged files, second writers, lost folders."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distil.cli import dataset, set_words, tour
from distil.cli.main import main
from distil.dataset import proxies
from distil.dataset import run as running
from distil.dataset.matching import MatchingLoop
from distil.dataset.methods import preset
from distil.evaluation import evaluator
from distil.evaluation.protocols import PROTOCOLS
from distil.locks import LOCK
from distil.runs import CHECKPOINT, PREVIOUS, PROXY, RESULT, read_log
from distil.stopping import STOPPING
from tests.dataset.conftest import changed_where
from tests.forked import ends_well, moments, run_command, seconds_of, started

TINY = ["--width", "8", "--outer", "2", "--inner", "2", "--network-samples", "8", "--batch", "4"]
TINY += ["--validations", "1", "--device", "cpu"]
JUDGE = ["digits", "--protocol", "quick", "--width", "8", "--device", "cpu"]
OTHERS = [number for number in STOPPING if number != signal.SIGINT]


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch, tmp_path):
    """Work in a new folder, on one thread, with a judge of five updates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], max_updates=5, whole_updates=5))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(capsys, *words, status=0):
    """What a command prints, on both streams."""
    assert main([str(word) for word in words]) == status
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return output


def fails(capsys, *words, status=2):
    error = run(capsys, *words, status=status).err
    lines = [line for line in error.splitlines() if line.startswith("distil: ")]
    assert len(lines) == 1, error
    return lines[0]


def distil(*words, **options):
    """A command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-m", "distil", *map(str, words)], env=environment, text=True, **pipes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of an IDC run of the digits that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished") / "whole"
    with distil("dataset", "idc", "digits", *TINY, "--out", folder, "--checkpoint-seconds", "0") as process:
        assert process.communicate()[1]
    assert process.returncode == 0
    return folder


@pytest.fixture
def whole(finished):
    """The bytes of its result; a copy of it lies in the working folder."""
    shutil.copytree(finished, "whole")
    return Path("whole", RESULT).read_bytes()


def cut_short(folder="whole", **manifest):
    """Make a finished run one that was killed after its last checkpoint."""
    Path(folder, RESULT).unlink()
    path = Path(folder, "run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | manifest))


def events(folder):
    return [(line["event"], line.get("step")) for line in read_log(Path(folder, "log.jsonl"))]


# ------------------------------------------------------------------------------------------------------ stored files


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("settings", [], "settings is [] and should be an object"),
        ("settings", "idc", 'settings is "idc" and should be an object'),
        ("format_version", "1", 'format_version is "1" and should be a whole number'),
        ("format_version", True, "format_version is true and should be a whole number"),
        ("format_version", 0, "format_version is 0"),
        ("root", 5, "root is 5 and should be text or null"),
        ("source", ["digits"], 'source is ["digits"] and should be text'),
        ("size", "8", 'size is "8" and should be a whole number or null'),
        ("device", None, "device is null and should be text"),
        ("source_fingerprint", 1e308, "source_fingerprint is 1e+308 and should be text"),
        ("command", "detector train", "whole holds a run of distil detector train, not of distil dataset"),
    ],
)
def test_run_json_of_wrong_types_is_one_error(capsys, whole, field, value, told):
    cut_short(**{field: value})
    assert told in fails(capsys, "dataset", "--resume", "whole")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("optimizer.lr", "0.1"),
        ("optimizer.lr", None),
        ("optimizer.lr", 10**400),
        ("outer", 2.5),
        ("outer", 10**400),
        ("augment_one", 1),
        ("parameterization", 3),
        ("objective", {}),
        ("network", 7),
        ("method", ["idc"]),
        ("parameterization.init", {}),
    ],
)
def test_settings_of_wrong_types_in_run_json_are_one_error(capsys, whole, setting, value):
    settings = json.loads(Path("whole/run.json").read_text())["settings"]
    *outer, name = setting.split(".")
    (settings[outer[0]] if outer else settings)[name] = value
    cut_short(settings=settings)
    message = fails(capsys, "dataset", "--resume", "whole")
    assert message.startswith("distil: whole/run.json: ")
    assert f" {name} is " in message
    assert len(message) < 500


def test_a_setting_in_run_json_that_this_version_does_not_know_is_named(capsys, whole):
    settings = json.loads(Path("whole/run.json").read_text())["settings"]
    cut_short(settings={**settings, "unheard": 1})
    message = fails(capsys, "dataset", "--resume", "whole")
    assert message.startswith("distil: whole/run.json: unknown setting")
    assert "unheard" in message


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"command": "\xff"}', b'{"size": NaN}', b"5", b"\x00" * 9])
def test_run_json_that_is_no_json_object_is_one_error(capsys, whole, content):
    cut_short()
    Path("whole/run.json").write_bytes(content)
    assert "whole/run.json" in fails(capsys, "dataset", "--resume", "whole")


def test_a_bad_byte_in_the_log_costs_its_line_alone(capsys, whole):
    before = events("whole")
    cut_short()
    log = Path("whole/log.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"event", b"ev\xffnt")
    log.write_bytes(b"".join(lines) + b'["no object"]\n' + b'{"event": "step", "step": "no number"}\n{"event": "st')
    run(capsys, "dataset", "--resume", "whole")
    assert Path("whole", RESULT).read_bytes() == whole
    after = [event for event in events("whole") if event not in (("start", 4), ("step", "no number"))]
    assert after == [event for event in before if event != before[1]]


def test_a_damaged_checkpoint_is_told_and_the_one_before_gives_the_same_result(capsys, whole):
    before = events("whole")
    cut_short()
    data = bytearray(Path("whole", CHECKPOINT).read_bytes())
    data[-1] ^= 1
    Path("whole", CHECKPOINT).write_bytes(data)
    out = run(capsys, "dataset", "--resume", "whole").out
    told = [line for line in out.splitlines() if line.startswith("Note: ")]
    assert len(told) == 1
    assert f"{CHECKPOINT} is damaged" in told[0]
    assert told[0].endswith(f"{PREVIOUS}, step 3.")
    assert Path("whole", RESULT).read_bytes() == whole
    assert [event for event in events("whole") if event not in (("start", 3), ("damaged", 3))] == before


def test_a_damaged_result_is_made_again_from_the_last_checkpoint(capsys, whole):
    path = Path("whole", RESULT)
    path.write_bytes(whole[:-7])
    out = run(capsys, "dataset", "--resume", "whole").out
    assert f"Note: {path}" in out
    assert path.read_bytes() == whole
    assert run(capsys, "dataset", "--resume", "whole").out == f"This run is finished: {path}\n"


@pytest.mark.parametrize("seconds", ["nan", "-1"])
def test_seconds_that_never_come_are_refused(capsys, seconds):
    message = fails(capsys, "dataset", "idc", "digits", *TINY, "--checkpoint-seconds", seconds)
    assert f"--checkpoint-seconds is {float(seconds)}: give a number of seconds, 0 or more" in message
    assert not os.listdir()


# ---------------------------------------------------------------------------------------------------------- one writer

HOLD = """
import sys
from distil.locks import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_start_and_a_resume_beside_a_live_run_are_refused_before_images_are_opened(capsys, whole, monkeypatch):
    cut_short()
    monkeypatch.setattr(set_words, "open_images", lambda *_: pytest.fail("opened"))
    words = [sys.executable, "-c", HOLD, "whole"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for words in (["idc", "digits", *TINY, "--out", "whole"], ["--resume", "whole"]):
            message = fails(capsys, "dataset", *words)
            assert f"another run is writing to whole (process {holder.pid} on " in message
        holder.stdin.close()


def test_of_two_starts_at_the_same_instant_one_wins(whole):
    both = [distil("dataset", "idc", "digits", *TINY, "--out", "run") for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    refused = next(error for process, error in zip(both, errors, strict=True) if process.returncode)
    assert "another run is writing to run" in refused or "run already holds a finished run" in refused
    assert Path("run", RESULT).read_bytes() == whole
    assert not Path("run", LOCK).exists()


ADD = """
import sys
from pathlib import Path
from distil.report.scores import add_scores
row = {name: "some" for name in ("method", "protocol", "test", "test_fingerprint")} | {"protocol_settings": {}}
row |= {"images_per_class": 1, "bytes": 9, "width": None, "runs": 1, "test_images": 9, "file_sha256": None}
row |= {"networks": {"convnet3": {"accuracies": [50.0], "mean": 50.0, "std": 0.0}}}
for seed in range(10):
    add_scores(Path("all.json"), {**row, "name": sys.argv[1], "seed": seed})
"""


def test_two_writers_of_a_score_file_lose_no_row():
    both = [subprocess.Popen([sys.executable, "-c", ADD, name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    rows = json.loads(Path("all.json").read_text())["scores"]
    assert sorted((row["name"], row["seed"]) for row in rows) == [(name, run) for name in "ab" for run in range(10)]
    assert os.listdir() == ["all.json"]


# ------------------------------------------------------------------------------------------------------------ folders


def abandoned(capsys, monkeypatch, folder="run"):
    """A run folder whose run was killed while its proxy network was trained."""
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "forgotten_if_nothing_happened", lambda folder: False)
        patch.setattr(proxies, "trained_proxy", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        run(capsys, "dataset", "udd", "digits", *TINY, "--proxy-steps", "2", "--out", folder, status=130)
    Path(folder, LOCK).write_text("process 1 on a machine of before")
    Path(folder, ".run.json.0123456789abcdef.part").write_text("half")
    assert Path(folder, "run.json").exists()


@pytest.mark.parametrize("how", ["start", "resume"])
def test_a_folder_of_a_run_that_died_before_its_first_step_blocks_nobody(capsys, monkeypatch, how):
    words = ["dataset", "udd", "digits", *TINY, "--proxy-steps", "2"]
    run(capsys, *words, "--out", "whole")
    abandoned(capsys, monkeypatch)
    if how == "start":
        out = run(capsys, *words, "--out", "run").out
        assert "Note: the run in run ended before its first checkpoint: it is begun again." in out
    else:
        run(capsys, "dataset", "--resume", "run")
    assert Path("run", RESULT).read_bytes() == Path("whole", RESULT).read_bytes()
    assert sorted(os.listdir("run")) == sorted(["run.json", "log.jsonl", CHECKPOINT, PROXY, RESULT])
    assert events("run") == events("whole")


def test_a_folder_with_anything_else_is_not_taken_over(capsys, monkeypatch):
    abandoned(capsys, monkeypatch)
    Path("run/notes.txt").write_text("mine")
    message = fails(capsys, "dataset", "idc", "digits", *TINY, "--out", "run")
    assert "run already holds a run" in message
    assert Path("run/run.json").exists()


def write_photos(root="photos"):
    from PIL import Image

    for name in ("cat", "dog"):
        Path(root, name).mkdir(parents=True)
        for index in range(6):
            pixels = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(root, name, f"{index}.png"))


@pytest.mark.parametrize(
    ("where", "source", "out", "remedy"),
    [
        ("photos", ".", None, "--out ../runs/photos-random-ipc1-seed0"),
        ("photos", "../photos", None, "--out ../runs/photos-random-ipc1-seed0"),
        (".", "photos", "photos/runs/a", "--out runs/a"),
        (".", "photos", "photos", "--out runs/photos"),
        (".", "photos/", "link/a", "--out runs/a"),
    ],
)
def test_a_run_folder_inside_its_own_images_is_refused(capsys, monkeypatch, where, source, out, remedy):
    write_photos()
    Path("link").symlink_to("photos")
    monkeypatch.chdir(where)
    message = fails(capsys, "dataset", "random", source, *([] if out is None else ["--out", out]))
    named = os.getcwd() if source == "." else source
    assert f"would lie inside the data folder {named}, whose folders are read as classes" in message
    assert message.endswith(remedy)
    assert sorted(os.listdir("." if where == "photos" else "photos")) == ["cat", "dog"]
    run(capsys, "dataset", "random", source, *remedy.split())


def test_a_run_folder_that_readers_pass_over_may_lie_inside(capsys):
    write_photos()
    run(capsys, "dataset", "random", "photos", "--out", "photos/.runs/a")
    run(capsys, "dataset", "random", "photos", "--out", "again")
    assert Path("again", RESULT).read_bytes() == Path("photos/.runs/a", RESULT).read_bytes()


def test_a_folder_that_is_deleted_during_a_run_is_made_anew(capsys, whole, monkeypatch):
    save, saved = running.save_checkpoint, []

    def delete_first(folder, *args):
        if not saved:
            shutil.rmtree(folder)
        saved.append(folder)
        save(folder, *args)

    monkeypatch.setattr(running, "save_checkpoint", delete_first)
    out = run(capsys, "dataset", "idc", "digits", *TINY, "--out", "run", "--checkpoint-seconds", "0").out
    assert out.count("Note: run was deleted during the run; it is made anew, without the earlier log.") == 1
    assert Path("run", RESULT).read_bytes() == whole
    assert "This run is finished" in run(capsys, "dataset", "--resume", "run").out
    assert len(saved) == 4


def test_the_working_folder_may_be_deleted_during_a_run(capsys, whole, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir("here")
    begin = MatchingLoop.begin

    def delete(*args):
        os.rmdir(tmp_path / "here")
        return begin(*args)

    monkeypatch.setattr(MatchingLoop, "begin", delete)
    run(capsys, "dataset", "idc", "digits", *TINY, "--out", "../run")
    assert (tmp_path / "run" / RESULT).read_bytes() == whole
    assert "the working folder was deleted" in fails(capsys, "dataset", "idc", "digits", *TINY)
    assert not (tmp_path / "run" / LOCK).exists()


def test_what_was_read_is_kept_with_the_run(capsys):
    write_photos()
    Path("photos/cat/notes.txt").write_text("")
    out = run(capsys, "dataset", "random", "photos", "--out", "run").out
    read = json.loads(Path("run/run.json").read_text())["read"]
    assert out.startswith("Read photos")
    assert (read["name"], read["classes"], [split["split"] for split in read["splits"]]) == (
        "photos",
        ["cat", "dog"],
        ["train", "test"],
    )


# ------------------------------------------------------------------------------------------------------------ signals


def signalled(number):
    """In the place of some work: the signal arrives, and the work continues for a minute."""

    def work(*args, **options):
        os.kill(os.getpid(), number)
        time.sleep(60)

    return work


@pytest.mark.parametrize("number", [signal.SIGINT, *OTHERS])
@pytest.mark.parametrize("when", ["opening", "proxy", "first checks"])
def test_a_signal_outside_the_loop_ends_the_command_and_leaves_no_folder(capsys, monkeypatch, number, when):
    where = {
        "opening": (set_words, "open_images"),
        "proxy": (proxies, "trained_proxy"),
        "first checks": (MatchingLoop, "begin"),
    }
    monkeypatch.setattr(*where[when], signalled(number))
    words = ["dataset", "udd", "digits", *TINY, "--proxy-steps", "2"]
    assert "interrupted" in fails(capsys, *words, status=128 + number)
    assert not os.listdir()


@pytest.mark.parametrize("number", OTHERS)
def test_a_signal_in_the_loop_saves_and_the_status_tells_which(capsys, whole, monkeypatch, number):
    step = running.Run.after_step

    def after_step(self, losses):
        if self.loop.done == 2:
            os.kill(os.getpid(), number)
        step(self, losses)

    with monkeypatch.context() as patch:
        patch.setattr(running.Run, "after_step", after_step)
        message = fails(capsys, "dataset", "idc", "digits", *TINY, "--out", "run", status=128 + number)
    assert message == "distil: stopped after step 2 of 4: continue with distil dataset --resume run"
    run(capsys, "dataset", "--resume", "run")
    assert Path("run", RESULT).read_bytes() == whole


def scores(path):
    return json.loads(Path(path).read_text())["scores"]


@pytest.fixture
def trainings(monkeypatch):
    """Names of the networks that were trained; `stop_at`: before which of them Ctrl-C comes."""
    trained = []
    train = evaluator.train_together

    def spy(nets, *args, names, **options):
        if len(trained) == spy.stop_at:  # pyright: ignore[reportFunctionMemberAccess]
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        trained.append(names)
        train(nets, *args, names=names, **options)

    spy.stop_at = None  # pyright: ignore[reportFunctionMemberAccess]
    monkeypatch.setattr(evaluator, "train_together", spy)
    return trained, spy


@pytest.mark.parametrize("of", ["set", "random:1"])
def test_a_stopped_evaluation_goes_on_from_its_finished_networks(capsys, whole, trainings, of):
    trained, spy = trainings
    file = f"whole/{RESULT}" if of == "set" else of
    words = ["evaluate", file, *JUDGE, "--networks", "convnet1,convnet2", "--runs", "2", "--json"]
    run(capsys, *words, "all.json")
    trained.clear()
    spy.stop_at = 3
    message = fails(capsys, *words, "parts.json", status=143)
    assert message.endswith(
        "interrupted: 3 of 4 networks are finished and kept: the same command continues with the others"
    )
    assert not Path("parts.json").exists()
    spy.stop_at = None
    trained.clear()
    out = run(capsys, *words, "parts.json").out
    assert "Note: 3 of 4 networks were trained before this command was stopped; it continues." in out
    assert trained == [["convnet2, run 2 of 2"]]
    assert scores("parts.json") == scores("all.json")
    assert sorted(os.listdir()) == ["all.json", "parts.json", "whole"]


@pytest.mark.parametrize(
    "other",
    [["--seed", "1"], ["--width", "4"], ["--at-once", "2"], ["--protocol", "medium"], "changed", "nonsense", "newer"],
)
def test_what_another_evaluation_finished_or_a_changed_file_is_not_used(capsys, monkeypatch, trainings, other):
    monkeypatch.setitem(PROTOCOLS, "medium", replace(PROTOCOLS["medium"], max_updates=5, whole_updates=5))
    trained, spy = trainings
    spy.stop_at = 1
    words = ["evaluate", "random:1", *JUDGE, "--networks", "convnet1", "--runs", "2", "--json", "x.json"]
    run(capsys, *words, status=143)
    kept = next(Path().glob("x.json.*.unfinished"))
    if other == "changed":
        kept.write_text(kept.read_text().replace('[\n   "convnet1",\n   0,', '[\n   "convnet1",\n   1,'))
    elif other == "nonsense":
        kept.write_bytes(b"\xff{")
    elif other == "newer":
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"format_version": 9}))
    spy.stop_at = None
    trained.clear()
    run(capsys, *words, *(other if isinstance(other, list) else []))
    assert sum(map(len, trained)) == 2


def test_an_evaluation_without_a_score_file_says_that_nothing_is_kept(capsys, trainings):
    trainings[1].stop_at = 1
    words = ["evaluate", "random:1", *JUDGE, "--networks", "convnet1", "--runs", "2"]
    message = fails(capsys, *words, status=143)
    assert message.endswith("1 of 2 networks were finished and are lost: with --json they would have been kept")
    assert not os.listdir()


@pytest.mark.parametrize("words", [[], ["--out", "a b", "--device", "cpu"]])
def test_a_stopped_demo_names_a_command_that_works(capsys, monkeypatch, words):
    def small(method, key, ipc):
        changes = {"width": 4, "outer": 2, "inner": 2, "network_samples": 8, "batch": 4, "validations": 0}
        return changed_where(preset(method, key, ipc), proxy_steps=2, **changes)

    monkeypatch.setattr(tour, "preset", small)
    monkeypatch.setattr(tour, "evaluate_real", signalled(signal.SIGTERM))
    message = fails(capsys, "demo", *words, status=143)
    want = "distil demo --out 'a b' --device cpu" if words else "distil demo"
    assert message == f"distil: interrupted: begin again with {want}"
    assert not Path(words[1] if words else "demo", LOCK).exists()


# ------------------------------------------------------------------------------------------------------------ outputs


def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def closed_terminal():
    """A terminal whose window was closed: writing to it is an input/output error."""
    master, slave = pty.openpty()
    os.close(master)
    return slave


@pytest.mark.parametrize("where", [closed_pipe, closed_terminal, "/dev/full"])
def test_a_run_goes_on_when_nobody_reads_it(where):
    end = os.open(where, os.O_WRONLY) if isinstance(where, str) else where()
    process = distil("dataset", "random", "digits", "--out", "run", stdout=end, stderr=end)
    os.close(end)
    assert process.wait() == 0
    assert Path("run", RESULT).exists()


def test_a_run_goes_on_after_the_first_line_is_read(whole):
    process = distil("dataset", "idc", "digits", *TINY, "--out", "run", stderr=subprocess.STDOUT)
    assert process.stdout.readline().startswith("Read digits ")
    process.stdout.close()
    assert process.wait() == 0
    assert Path("run", RESULT).read_bytes() == whole


def test_a_run_whose_streams_were_closed_before_it_began():
    words = f"{sys.executable} -m distil.cli.main dataset random digits --out run <&- >&- 2>&-"
    assert subprocess.run(words, shell=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode == 0
    assert Path("run", RESULT).exists()


def test_an_evaluation_goes_on_when_nobody_reads_it(capsys, monkeypatch, whole):
    """A pipe without a reader in the place of the streams of this process."""
    with os.fdopen(closed_pipe(), "w") as end, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", end)
        patch.setattr(sys, "stderr", end)
        assert main(["evaluate", f"whole/{RESULT}", *JUDGE, "--networks", "convnet1", "--runs", "1"]) == 0
    assert Path(f"whole/{RESULT}.scores.json").exists()


def test_a_full_disk_under_the_output_is_told_where_it_can_be(capsys, monkeypatch):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["dataset", "random", "digits", "--out", "run"]) == 0
    assert capsys.readouterr().err.endswith(
        "distil: standard output could not be written (No space left on device); the command continued without it.\n"
    )


NO_SPACE = "distil: the output cannot be written: No space left on device. Free space there, or print elsewhere.\n"


@pytest.mark.parametrize(
    ("words", "where", "status", "told"),
    [
        (["methods"], "pipe", 141, ""),
        (["--version"], "pipe", 141, ""),
        (["methods"], "/dev/full", 2, NO_SPACE),
        (["--help"], "/dev/full", 2, NO_SPACE),
    ],
)
def test_a_command_that_only_prints_ends_when_it_cannot(words, where, status, told):
    end = closed_pipe() if where == "pipe" else os.open(where, os.O_WRONLY)
    process = distil(*words, stdout=end)
    os.close(end)
    assert process.communicate()[1] == told
    assert process.returncode == status


def test_names_that_a_stream_has_no_letters_for_do_not_stop_a_run(capsys, monkeypatch):
    write_photos()
    Path("photos/cat").rename("photos/k\u00e4tzchen")
    process = subprocess.run(
        [sys.executable, "-m", "distil", "dataset", "random", "photos", "--out", "\u00e4"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == rb"  distil show '\xe4/distilled.safetensors'"


def test_the_bar_on_a_terminal_shows_the_run():
    """Opening, the proxy network's training and the steps share one bar, which ends with the last step."""
    master, slave = pty.openpty()
    seen = []

    def read():
        try:
            while data := os.read(master, 4096):
                seen.append(data)
        except OSError:
            return

    reader = threading.Thread(target=read)
    reader.start()
    write_photos()
    words = ["dataset", "udd", "photos", *TINY, "--proxy-steps", "30", "--images", "4", "--out", "run"]
    words += ["--recipe", "published"]
    process = distil(*words, "--validation", "0.2", stderr=slave, stdout=subprocess.DEVNULL)
    os.close(slave)
    assert process.wait() == 0
    reader.join()
    os.close(master)
    text = b"".join(seen).decode()
    assert "udd on photos: opening photos" in text
    assert "udd on photos: training the proxy network" in text
    last = [line for line in text.replace("\r", "\n").splitlines() if "udd on photos" in line][-1]
    assert "4/4" in last
    assert "validation" in last


# -------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_random_moments_a_run_gives_the_same_bytes(number, tmp_path):
    """Kills while images are opened, the proxy is trained, networks are prepared, steps are made and saved."""
    flags = [*TINY, "--outer", "6", "--inner", "4", "--target-reuse", "2", "--proxy-steps", "40"]
    flags += ["--validations", "2", "--checkpoint-seconds", "0"]

    told, drawn, kills = tmp_path / "told.txt", moments(), 0

    def begun(folder):
        if Path(folder, "run.json").exists() and (Path(folder, CHECKPOINT).exists()):
            words = ["dataset", "--resume", folder, "--checkpoint-seconds", "0"]
        else:
            words = ["dataset", "udd", "digits", *flags, "--out", folder]
        return started(run_command, words, told=told)

    lasted = seconds_of(run_command, ["dataset", "udd", "digits", *flags, "--out", "whole"], told=told)
    while not Path("run", RESULT).exists():
        process = begun("run")
        process.join(lasted * drawn.uniform(0.2, 1.0) if kills < 2 else 120)
        if process.is_alive():
            os.kill(process.pid or 0, number)
            kills += 1
            process.join(120)
        assert process.exitcode in (0, -number, 128 + number), told.read_text()
    assert kills
    assert "Traceback" not in told.read_text()
    said = tmp_path / "said.txt"
    ends_well(started(run_command, ["dataset", "--resume", "run"], told=said), said)
    assert said.read_text().startswith("This run is finished")
    assert Path("run", RESULT).read_bytes() == Path("whole", RESULT).read_bytes()
    assert sorted(os.listdir("run")) == sorted(os.listdir("whole"))
    logged = [
        [event for event in events(folder) if event[0] not in ("start", "checkpoint")] for folder in ("run", "whole")
    ]
    assert logged[0] == logged[1]
