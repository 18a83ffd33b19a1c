"""`distil detector ...` from the command line, on a small COCO folder."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from distil.cli.detector import COMMANDS
from distil.cli.detector_flags import SEVERAL
from distil.cli.main import main
from distil.detector.presets import (
    DETECTOR_METHODS,
    DETECTOR_SOURCES,
    OURS,
    OURS_SOURCES,
    detector_preset,
    student_preset,
)
from distil.detector.settings import DetectorSettings
from distil.errors import DistilError
from distil.fields import leaves
from distil.networks.detectors import load_detector
from tests.forked import in_two_processes, run_command

STUDENT = "--detector retinanet --backbone timm:test_resnet --norm group --channels 16 --min-size 64 --max-size 64"
STUDENT += " --anchor 16 --head-convs 1"
RUN = "--epochs 2 --batch 4 --lr 0.001 --optimizer adamw --device cpu"
TAUGHT = f"{RUN} --prototype-side 4"


def write_split(folder, split, count, seed):
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / "images").mkdir(exist_ok=True, parents=True)
    for i in range(count):
        pixels = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
        x, y = (int(v) for v in rng.integers(4, 28, 2))
        label = i % 2
        pixels[y : y + 28, x : x + 28, label] = 250
        name = f"{split}{i}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": i, "file_name": name, "width": 64, "height": 64})
        box = {"bbox": [x, y, 28, 28], "area": 784, "iscrowd": 0, "category_id": label + 1}
        annotations.append({"id": i + 1, "image_id": i, **box})
    table = {"images": images, "annotations": annotations}
    table["categories"] = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    (folder / f"instances_{split}.json").write_text(json.dumps(table))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    for seed, (split, count) in enumerate((("train", 8), ("val", 4), ("test", 4))):
        write_split(folder, split, count, seed)
    return folder


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "teacher"
    assert main(["detector", "train", f"coco:{data}", "--out", str(out), *STUDENT.split(), *RUN.split()]) == 0
    return out


def distil(teacher, data, out, *more):
    words = ["detector", "train", f"coco:{data}", "--teacher", str(teacher), "--out", str(out)]
    return main([*words, *STUDENT.split(), *TAUGHT.split(), *more])


def test_a_student_is_distilled_evaluated_drawn_and_exported(teacher, data, tmp_path, capsys):
    out = tmp_path / "student"
    assert distil(teacher, data, out, "--loss", "gkd,pkd=0.5", "--teacher-floor", "0") == 0
    text = capsys.readouterr().out
    assert "teacher" in text
    assert str(out / "student.safetensors") in text
    names = set()
    for line in (out / "log.jsonl").read_text().splitlines():
        names |= set(json.loads(line).get("losses", {}))
    assert {"classification", "gkd.global", "gkd.foreground", "gkd.background", "gkd.soft", "pkd"} <= names

    figures = tmp_path / "figures.json"
    assert main(["detector", "evaluate", str(out), f"coco:{data}", "--device", "cpu", "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["images"] == 4

    assert main(["detector", "show", str(out), f"coco:{data}", "--images", "2", "--device", "cpu"]) == 0
    assert (out / "detections.png").stat().st_size > 10_000
    prototypes = sorted(out.glob("prototypes-*.safetensors"))[-1]
    assert main(["detector", "show", str(prototypes), f"coco:{data}"]) == 0
    assert prototypes.with_suffix(".stride8.png").is_file()

    capsys.readouterr()
    weights = tmp_path / "plain.safetensors"
    assert main(["detector", "export", str(out), "--out", str(weights)]) == 0
    assert load_file(weights).keys() == load_file(out / "student.safetensors").keys()
    printed = capsys.readouterr().out
    code = textwrap.dedent("\n".join(line for line in printed.splitlines() if line.startswith("    ") or not line))
    script = f"import sys\nsys.modules['distil'] = None\n{code}\nprint(classes, len(detector.state_dict()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    student, architecture, _ = load_detector(weights)
    assert done.stdout == f"['red', 'green'] {len(student.state_dict())}\n"
    assert architecture.classes == ("red", "green")

    again = tmp_path / "again.json"
    assert main(["detector", "evaluate", str(weights), f"coco:{data}", "--device", "cpu", "--json", str(again)]) == 0
    assert json.loads(again.read_text())["ap"] == json.loads(figures.read_text())["ap"]
    assert distil(weights, data, tmp_path / "taught", "--loss", "pkd", "--teacher-floor", "0", "--epochs", "1") == 0


def test_the_preflight_stops_a_teacher_that_sees_nothing(teacher, data, tmp_path, capsys):
    out = tmp_path / "student"
    assert distil(teacher, data, out, "--teacher-floor", "100") == 2
    captured = capsys.readouterr()
    assert "STOP  teacher's AP50" in captured.out
    assert "--no-preflight" in captured.err
    assert not out.exists()
    words = ["detector", "preflight", str(teacher), f"coco:{data}", *STUDENT.split(), *TAUGHT.split()]
    assert main([*words, "--teacher-floor", "100"]) == 2


def test_a_stopped_run_goes_on_and_a_finished_one_says_so(teacher, data, capsys):
    assert main(["detector", "train", "--resume", str(teacher)]) == 0
    assert capsys.readouterr().out == f"This run is finished: {teacher / 'student.safetensors'}\n"
    assert main(["detector", "train", f"coco:{data}", "--out", str(teacher)]) == 2
    assert f"distil detector train --resume {teacher}" in capsys.readouterr().err


def test_compare_writes_a_table(teacher, data, tmp_path, capsys):
    words = ["detector", "compare", str(teacher), f"coco:{data}", "--out", str(tmp_path), "--seeds", "2"]
    assert main([*words, *STUDENT.split(), *TAUGHT.split(), "--losses", "pkd"]) == 0
    text = capsys.readouterr().out
    assert "AP gain over plain" in text
    table = json.loads((tmp_path / "comparison.json").read_text())
    assert [each["name"] for each in table["variants"]] == ["plain", "pkd"]
    assert table["seeds"] == [0, 1]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Weights of the student's backbone as a classifier, and one tensor of them under its name in a detector."""
    path = tmp_path_factory.mktemp("backbone") / "weights.safetensors"
    network = timm.create_model("test_resnet", pretrained=False)
    save_file({name: x.contiguous() for name, x in network.state_dict().items()}, path)
    return path, network.conv1[0].weight.detach()  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]


class Seen(Exception):
    """Raised in the place of work, with what it was given."""


def test_pretrained_weights_reach_the_preflight_and_the_comparison(teacher, data, backbone, monkeypatch, tmp_path):
    def work(*values, **options):
        raise Seen(options)

    monkeypatch.setattr("distil.detector.preflight.preflight", work)
    monkeypatch.setattr("distil.detector.comparison.compare_detectors", work)
    monkeypatch.chdir(tmp_path)
    given = [f"coco:{data}", *STUDENT.split(), *RUN.split(), "--pretrained", str(backbone[0])]
    taught = {"preflight": [str(teacher)], "train": ["--teacher", str(teacher)], "compare": [str(teacher)]}
    for command, who in taught.items():
        more = ["--checkpoint-seconds", "7"] if command == "compare" else []
        with pytest.raises(Seen) as caught:
            main(["detector", command, *who, *given, *more])
        options = caught.value.args[0]
        weights = [options["weights"](seed) for seed in (0, 1)] if command == "compare" else [options["weights"]]
        assert all(any(torch.equal(x, backbone[1]) for x in each.values()) for each in weights)
        if command == "compare":
            assert any(not torch.equal(x, weights[1][name]) for name, x in weights[0].items())
        assert options.get("checkpoint_seconds", 7.0) == 7.0
    assert not list(tmp_path.iterdir())


def test_a_source_in_a_root_lasts_and_the_next_commands_are_whole(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, "root/squares")
    Path("squares").mkdir()  # another folder of this name, in the working folder
    where = ["coco:squares", "--root", "root", "--fix-boxes"]
    assert main(["detector", "train", *where, "--out", "my run", *STUDENT.split(), *RUN.split(), "--epochs", "1"]) == 0
    text = capsys.readouterr().out
    assert f"  distil detector evaluate 'my run' coco:squares --root {tmp_path}/root --fix-boxes\n" in text
    assert f"  distil detector show 'my run' coco:squares --root {tmp_path}/root --fix-boxes\n" in text
    manifest = json.loads(Path("my run/run.json").read_text())
    assert (manifest["source"], manifest["root"]) == ("coco:squares", str(tmp_path / "root"))
    Path("my run/student.safetensors").unlink()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert main(["detector", "train", "--resume", "../my run"]) == 0


def test_a_run_that_was_broken_off_at_once_goes_on_and_one_that_failed_leaves_nothing(
    data, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "my run"
    words = ["detector", "train", f"coco:{data}", "--out", str(out), *STUDENT.split(), *RUN.split(), "--epochs", "1"]

    def stopping(error):
        def train(*values, events, **options):
            events("start", step=0, steps=2)
            raise error

        return train

    with monkeypatch.context() as patched:
        patched.setattr("distil.detector.training.train.train_detector", stopping(RuntimeError("a defect")))
        with pytest.raises(RuntimeError, match="a defect"):
            main(words)
        assert not out.exists()
        patched.setattr("distil.detector.training.train.train_detector", stopping(KeyboardInterrupt()))
        assert main(words) == 130
        command = f"distil detector train --resume '{out}'"
        assert capsys.readouterr().err.endswith(f"distil: interrupted: continue with {command}\n")
    shutil.copytree(out, tmp_path / "resumed")
    assert main(words) == 0
    assert main(["detector", "train", "--resume", str(tmp_path / "resumed")]) == 0
    one, other = (folder / "last.safetensors" for folder in (out, tmp_path / "resumed"))
    assert one.read_bytes() == other.read_bytes()
    assert main(words) == 2
    assert f"Continue it with: {command};" in capsys.readouterr().err


def go_on(command):
    """Run a command line that distil has printed."""
    words = shlex.split(command)
    assert words[0] == "distil"
    return main(words[1:])


def printed_command(text):
    return text.strip().splitlines()[-1].partition("continue with ")[2]


def stop_after(monkeypatch, step, number=signal.SIGTERM):
    """Let the signal come in step `step` of every training."""
    from distil.detector.training.trainer import Run

    real = Run.update

    def update(self, batch, epoch):
        real(self, batch, epoch)
        if self.step + 1 == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "update", update)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_a_signal_prints_a_command_that_works(data, tmp_path, capsys, monkeypatch, name):
    out = tmp_path / "my run"
    words = ["detector", "train", f"coco:{data}", "--out", str(out), *STUDENT.split(), *RUN.split()]
    with monkeypatch.context() as patched:
        stop_after(patched, 1, getattr(signal, name))
        assert main(words) == 128 + getattr(signal, name)
    told = capsys.readouterr().err
    assert "stopped after step 1 of 4: continue with distil detector train --resume" in told
    assert main(words) == 2
    assert go_on(printed_command(told)) == 0
    assert (out / "student.safetensors").is_file()


def test_a_stopped_comparison_prints_a_command_that_works(teacher, data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "my comparison"
    words = ["detector", "compare", str(teacher), f"coco:{data}", "--out", str(out), "--seeds", "1"]
    words += [*STUDENT.split(), *TAUGHT.split(), "--losses", "pkd"]
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        assert main(words) == 128 + signal.SIGTERM
    told = capsys.readouterr().err
    assert "distil: plain, seed 0, stopped after step 3 of 4: continue with distil detector compare" in told
    assert go_on(printed_command(told)) == 0
    assert "AP gain over plain" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_told_and_the_log_follows_the_one_before(teacher, data, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(teacher, out)
    for name in ("student", "last"):
        (out / f"{name}.safetensors").unlink()
    lines = (out / "log.jsonl").read_text().splitlines()
    (out / "log.jsonl").write_bytes(("\n".join(lines) + "\n").encode() + b"\xff\n")
    path = out / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert main(["detector", "train", "--resume", str(out)]) == 0
    assert f"Note: {path} is not a whole safetensors file" in capsys.readouterr().out
    assert (out / "last.safetensors").read_bytes() == (teacher / "last.safetensors").read_bytes()
    assert steps_of(out) == [1, 2, 3, 4]


HOLD = """
import sys
from distil.locks import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("command", ["train", "resume", "student", "compare", "demo"])
def test_a_second_run_in_a_folder_is_refused_before_data_are_opened(teacher, tmp_path, capsys, command):
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(teacher / "run.json", out)
    words = {
        "train": ["detector", "train", "coco:nowhere", "--out", str(out)],
        "resume": ["detector", "train", "--resume", str(out)],
        "student": ["detector", "train", "coco:nowhere", "--teacher", "nowhere", "--out", str(out)],
        "compare": ["detector", "compare", "nowhere", "coco:nowhere", "--out", str(out)],
        "demo": ["demo", "detector", "--out", str(out)],
    }[command]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    try:
        assert main(words) == 2
        assert f"another run is writing to {out} (process {holder.pid} on " in capsys.readouterr().err
    finally:
        holder.communicate("")
    assert sorted(path.name for path in out.iterdir()) == ["run.json"]


def test_figures_and_pictures_among_data_are_refused(teacher, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "photos")
    before = sorted(tmp_path.rglob("*"))
    words = [str(teacher), f"coco:{tmp_path}/photos", "--device", "cpu"]
    assert main(["detector", "evaluate", *words, "--json", f"{tmp_path}/photos/test.json"]) == 2
    assert "lies among the data" in (told := capsys.readouterr().err)
    assert told.endswith("Choose another folder with --json.\n")
    assert main(["detector", "show", *words, "--out", f"{tmp_path}/photos/images/found.png"]) == 2
    assert "lies among the data" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("inside", [".", "train-run", "images/run", "annotations/run"])
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_run_among_its_data_is_refused(teacher, data, tmp_path, capsys, inside, command):
    shutil.copytree(data, tmp_path / "photos")
    before = sorted(tmp_path.rglob("*"))
    words = [*([str(teacher)] if command == "compare" else []), f"coco:{tmp_path}/photos"]
    assert main(["detector", command, *words, "--out", str(tmp_path / "photos" / inside)]) == 2
    assert f"lies among the data of coco:{tmp_path}/photos" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_started_in_its_data_folder_is_not_read_as_data(data, tmp_path, capsys, monkeypatch):
    shutil.copytree(data, tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "photos")
    words = [*STUDENT.split(), *RUN.split(), "--epochs", "1"]
    for seed in ("0", "1"):
        assert main(["detector", "train", "coco:.", *words, "--seed", seed]) == 0
    starts = []
    for folder in sorted(Path("runs").iterdir()):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        starts.append(next(line["images"] for line in lines if line["event"] == "start"))
    assert starts == [8, 8]
    read = json.loads((folder / "run.json").read_text())["read"]  # pyright: ignore[reportOperatorIssue]
    assert [(part["split"], part["images"]) for part in read["splits"]] == [("train", 8), ("val", 4), ("test", 4)]


def test_every_command_tells_how_far_it_is(teacher, data, tmp_path, capsys):
    words = [str(teacher), f"coco:{data}", "--device", "cpu"]
    assert main(["detector", "evaluate", *words]) == 0
    assert "evaluate teacher: image 4 of 4\n" in capsys.readouterr().err
    assert main(["detector", "show", *words, "--images", "3", "--out", str(tmp_path / "x.png")]) == 0
    assert "show teacher: image 3 of 3\n" in capsys.readouterr().err
    trained = [*words, *STUDENT.split(), *TAUGHT.split()]
    assert main(["detector", "preflight", *trained, "--teacher-floor", "0"]) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"coco:{data}: opening\nmemory: what a step will need\npreflight: ")
    assert "preflight: losses and gradients of a first step\n" in told
    out = ["--out", str(tmp_path / "compare"), "--seeds", "2", "--losses", "pkd"]
    assert main(["detector", "compare", *trained, *out]) == 0
    told = capsys.readouterr().err
    title = f"compare on {data.name} instances_train: step"
    for run, (name, seed) in enumerate((("plain", 0), ("pkd", 0), ("plain", 1), ("pkd", 1)), start=1):
        assert f"{title} {4 * (run - 1)} of 16, {name}, seed {seed} (run {run} of 4)\n" in told
        assert f"{title} {4 * run} of 16, {name}, seed {seed} (run {run} of 4), loss" in told


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["--loss", "gdk", "--teacher", "nowhere"]),
        ("preflight", ["--loss", "pkd,gdk=0.5", "nowhere"]),
        ("compare", ["--losses", "pkd", "gdk", "--seeds", "1", "nowhere"]),
    ],
)
def test_misspelt_losses_are_refused_before_data_and_teacher_are_opened(tmp_path, capsys, monkeypatch, command, words):
    monkeypatch.chdir(tmp_path)
    assert main(["detector", command, *words, "coco:nowhere"]) == 2
    assert "unknown loss 'gdk'. Did you mean gkd?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


PLAIN = ["--epochs", "1", "--device", "cpu"]


def recorded(folder):
    manifest = json.loads((folder / "run.json").read_text())
    return manifest["architecture"], manifest["settings"]["training"]


def test_own_data_without_pretrained_weights_get_settings_that_suit_them(data, tmp_path, capsys, backbone):
    out = tmp_path / "scratch"
    assert main(["detector", "train", f"coco:{data}", "--out", str(out), *PLAIN]) == 0
    told = capsys.readouterr().out
    assert (
        "Note: without --pretrained the defaults are those for random weights, here timm:resnet10t with group" in told
    )
    assert "from the data --min-size 64 --max-size 64 --anchor 28. --pretrained download starts" in told
    architecture, settings = recorded(out)
    assert (architecture["norm"], architecture["min_size"], architecture["anchor"]) == ("group", 64, 28.0)
    assert (settings["optimizer"], settings["lr"], settings["clip"], settings["batch"]) == ("adamw", 1e-3, 10.0, 8)

    out = tmp_path / "given"
    words = ["--backbone", "timm:test_resnet", "--min-size", "96", "--lr", "0.002", "--norm", "batch"]
    assert main(["detector", "train", f"coco:{data}", "--out", str(out), *PLAIN, *words]) == 0
    told = capsys.readouterr().out
    assert "here timm:test_resnet with batch norms, and from the data --max-size 96 --anchor 32." in told
    architecture, settings = recorded(out)
    assert (architecture["min_size"], architecture["max_size"], settings["lr"]) == (96, 96, 0.002)


def test_with_pretrained_weights_the_published_settings_stay(data, tmp_path, capsys, backbone, monkeypatch):
    def train(*values, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("distil.detector.training.train.train_detector", train)
    words = ["--pretrained", str(backbone[0]), "--backbone", "timm:test_resnet", "--device", "cpu"]
    out = tmp_path / "run"
    assert main(["detector", "train", f"coco:{data}", "--out", str(out), *words, "--no-memory-check"]) == 130
    assert "without --pretrained" not in capsys.readouterr().out
    architecture, settings = recorded(out)
    sizes = [architecture[name] for name in ("norm", "min_size", "max_size", "anchor", "channels")]
    assert sizes == ["frozen", 800, 1333, 32.0, 256]
    assert (settings["lr"], settings["batch"], settings["epochs"], settings["optimizer"]) == (0.02, 16, 24, "sgd")


def test_help_says_what_comes_from_the_data(capsys):
    for name in ("--min-size PIXELS", "--max-size PIXELS", "--anchor PIXELS"):
        assert name in shown(["train", "coco:x"], capsys)
    assert shown(["train", "coco:x"], capsys).count("(from the data)") == 3
    assert "(from the data)" not in shown(["train", "coco:x", "--pretrained", "download"], capsys)
    assert "(from the data)" not in shown(["train", "scenes"], capsys)


def test_a_step_that_does_not_fit_is_refused_before_anything_is_made(teacher, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("distil.memory.free_memory", lambda device: 120 * 2**20)
    out = tmp_path / "run"
    words = [f"coco:{data}", "--device", "cpu", *STUDENT.split(), "--min-size", "320", "--max-size", "320"]
    words += ["--batch", "64"]
    for command in (
        ["train"],
        ["train", "--teacher", str(teacher)],
        ["compare", str(teacher)],
        ["preflight", str(teacher)],
    ):
        where = [] if command[0] == "preflight" else ["--out", str(out)]
        assert main(["detector", *command, *words, *where]) == 2
        told = capsys.readouterr().err
        assert "distil: a step with 64 images of 320 x 320 pixels needs about " in told
        assert "GiB of memory, and 0.1 GiB can be used here: take --batch " in told
        assert told.strip().endswith("or a smaller --backbone. If you know better, give --no-memory-check.")
        assert not out.exists()
    fits = told.partition("--batch ")[2].split()[0]
    assert main(["detector", "train", *words, "--batch", fits, "--epochs", "1", "--out", str(out)]) == 0


def test_the_memory_check_can_be_left_out(data, tmp_path, monkeypatch):
    monkeypatch.setattr("distil.memory.free_memory", lambda device: 1)
    words = [f"coco:{data}", *STUDENT.split(), *RUN.split(), "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["detector", "train", *words]) == 2
    assert main(["detector", "train", *words, "--no-memory-check"]) == 0


def test_a_checkpoint_without_its_manifest_is_left_alone(teacher, data, tmp_path, capsys):
    shutil.copy(teacher / "checkpoint.safetensors", tmp_path)
    assert main(["detector", "train", f"coco:{data}", "--out", str(tmp_path), *STUDENT.split(), *RUN.split()]) == 2
    assert "holds checkpoint.safetensors of another run, without its run.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


ARCHITECTURE = {"detector": "retinanet", "backbone": "timm:test_resnet", "classes": ["red", "green"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": 3}, "run.json is damaged, 'architecture' is missing or wrong: start the run again"),
        ({"fix_boxes": ...}, "run.json is damaged, 'fix_boxes' is missing or wrong"),
        ({"pretrained": ...}, "run.json is damaged, 'pretrained' is missing or wrong"),
        ({"settings": []}, "run.json is damaged, 'settings' is missing or wrong"),
        ({"settings": {"lr": "fast"}}, "run.json is damaged, 'settings' cannot be used ("),
        ({"settings": {"lr": "fast"}}, "lr is 'fast': give a "),
        ({"settings": {"milestones": [1e400]}}, "run.json cannot be read as JSON (Infinity is not a JSON number)"),
        ({"architecture": {}}, "run.json is damaged, 'architecture' cannot be used (an architecture without"),
        ({"architecture": {**ARCHITECTURE, "detector": 3}}, "'architecture' cannot be used (unknown detector 3."),
        ({"architecture": {**ARCHITECTURE, "channels": "64"}}, "'architecture' cannot be used (channels is '64'"),
        ({"architecture": {**ARCHITECTURE, "min_size": "wide"}}, "'architecture' cannot be used (min_size is"),
        ({"architecture": {**ARCHITECTURE, "backbone": None}}, "'architecture' cannot be used (backbone is None"),
        ({"format_version": "1"}, "run.json is damaged, 'format_version' is '1'"),
        ({"format_version": 0}, "run.json is damaged, 'format_version' is 0"),
        ({"root": 1}, "run.json is damaged, 'root' is missing or wrong"),
        ({"command": "dataset"}, "run.json does not describe a run of a detector"),
        ({"format_version": 3, "source": ...}, "was made by a newer distil"),
    ],
)
def test_a_damaged_manifest_is_told(teacher, tmp_path, capsys, changes, message):
    manifest = json.loads((teacher / "run.json").read_text()) | changes
    (tmp_path / "run.json").write_text(json.dumps({name: x for name, x in manifest.items() if x is not ...}))
    assert main(["detector", "train", "--resume", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_picture_lies_beside_its_file(teacher, data, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    shutil.copy(teacher / "student.safetensors", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert main(["detector", "show", "runs/student.safetensors", f"coco:{data}", "--images", "1"]) == 0
    assert Path("runs/student.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["detector", "show", "x", "scenes:4", "--images", "0"], "--images is 0: it must be at least 1."),
        (["detector", "show", "x", "scenes:4", "--images", "-1"], "--images is -1: it must be at least 1."),
        (["detector", "compare", "x", "scenes:4", "--seeds", "0"], "--seeds is 0: it must be at least 1."),
        (
            ["detector", "train", "scenes:4", "--teacher", "x", "--method", "plain"],
            "--method plain learns nothing from",
        ),
        (["detector", "train", "scenes:4", "--teacher", "x", "--loss", "none"], "--loss none learns nothing from the"),
        (
            ["detector", "preflight", "x", "scenes:4", "--loss", "none"],
            "train without one: distil detector train SOURCE",
        ),
        (
            ["detector", "distil", "my teacher", "scenes:4", "--knowledge", "gkd,pkd=0.05", "--lr=0.1"],
            "distil detector distil is called train now: distil detector train scenes:4 --teacher 'my teacher' --loss "
            "gkd,pkd=0.05 --lr=0.1\n",
        ),
        (["detector", "distil", "--resume", "run"], "is called train now: distil detector train --resume run\n"),
        (["detector", "distil"], "is called train now: distil detector train SOURCE --teacher TEACHER\n"),
        (["detector", "train", "scenes:4", "--knowledge=gkd"], "--knowledge is called --loss now."),
        (["detector", "train", "scenes:4", "--optimiser", "sgd"], "--optimiser is called --optimizer now."),
        (["detector", "train", "scenes:4", "--prototypes", "3"], "--prototypes is called --prototype-count now."),
        (["detector", "compare", "x", "scenes:4", "--arms", "gkd"], "--arms is called --losses now."),
        (
            ["detector", "export", "torchvision:fcos_resnet50_fpn", "--out", "x.safetensors"],
            "torchvision:fcos_resnet50_fpn is torchvision's own already: give a run folder",
        ),
        (
            ["detector", "export", "nowhere", "--out", "x.safetensors"],
            "no such file or folder: nowhere. Give a run folder or a .safetensors file of distil.",
        ),
        (["detector", "trian"], "unknown command 'detector trian'. Did you mean 'train'?"),
        (["detector", "evaluate", "nowhere", "scenes:4"], "no such file or folder: nowhere. Give a run folder"),
        (["detector", "evaluate", "torchvision:fcos_resnet50_fpn", "scenes:4"], "allow it with --download"),
        (["detector", "train", "scnes"], "Did you mean scenes?"),
        (["detector", "train", "--resume", "."], "run.json is missing"),
        (
            ["detector", "train", "scenes", "--teacher", "x", "--method", "gdk"],
            "unknown method 'gdk'. Did you mean gkd?",
        ),
        (["detector", "train", "scenes:4", "--lr", "nan"], "--lr is nan: give a finite number."),
    ],
)
def test_mistakes_are_told(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_names_every_command(capsys):
    assert main(["detector", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"distil detector {name}" in text for name in COMMANDS)
    for name in COMMANDS:
        assert main(["detector", name, "--help"]) == 0
        assert "Examples:" in capsys.readouterr().out


def shown(words, capsys):
    assert main(["detector", words[0], "--help", *words[1:]]) == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_shows_the_flags_that_do_something(capsys):
    alone = shown(["train"], capsys)
    assert not [
        word for word in ("gkd:", "--prototype", "--teacher-floor", "--loss LOSSES", "--download") if word in alone
    ]
    assert "--teacher MODEL" in alone
    assert "--evaluate-every" in alone
    assert "--resume DIR" in alone
    assert main(["detector", "train", "scenes:4", "--prototype-count", "3"]) == 2
    assert "--prototype-count" in capsys.readouterr().err
    look = shown(["preflight"], capsys)
    assert not [word for word in ("--out", "--checkpoint-seconds", "--resume") if word in look]
    assert "--loss LOSSES" not in shown(["compare"], capsys)
    taught = shown(["train", "scenes:8", "--teacher", "runs/a"], capsys)
    assert all(word in taught for word in ("--loss LOSSES", "--prototype-alpha", "--teacher-floor", "--preflight"))


def test_flags_of_several_values_do_not_hide_the_source(capsys):
    own = {f"--{leaf.name}" for leaf in leaves(DetectorSettings()) if isinstance(leaf.value, tuple)}
    assert {*own, "--losses"} == SEVERAL.keys()
    for_scenes = "Passes over the training images. (default: 12)"
    for words in (
        ["train", "--scale", "0.8", "1.2", "scenes:8"],
        ["train", "--milestones", "0.5", "0.9", "scenes:8"],
        ["compare", "--losses", "gkd", "pkd", "runs/a", "scenes:8"],
        ["compare", "--losses", "gkd", "pkd", "--lr", "1", "runs/a", "scenes:8"],
    ):
        assert for_scenes in shown(words, capsys)


def torchrun(*words):
    """Run `distil detector WORDS` in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "distil", "detector", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def steps_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "validation" for line in lines) == 2
    return [line["step"] for line in lines if line["event"] == "step"]


@pytest.mark.slow
def test_two_processes_train_one_run_and_continue_it(data, tmp_path):
    out = tmp_path / "run"
    done = torchrun("train", f"coco:{data}", "--out", out, *STUDENT.split(), *RUN.split())
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("Next:") == 1
    assert done.stderr.count("step 0 of 4") == 1
    assert [path.name for path in tmp_path.rglob("run.json")] == ["run.json"]
    assert steps_of(out) == [1, 2, 3, 4]
    assert (out / "student.safetensors").is_file()

    for name in ("student", "checkpoint"):
        (out / f"{name}.safetensors").unlink()
    done = torchrun("train", "--resume", out)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("Next:") == 1
    assert steps_of(out) == [1, 2, 3, 4]
    assert (out / "student.safetensors").is_file()


def test_two_processes_distil_after_one_preflight(teacher, data, tmp_path):
    words = ["train", f"coco:{data}", "--teacher", str(teacher), "--out", str(tmp_path / "run"), *STUDENT.split()]
    words, told = [*words, *TAUGHT.split(), "--teacher-floor", "0"], tmp_path / "told.txt"
    assert in_two_processes(run_command, ["detector", *words], told=told) == [0, 0], told.read_text()
    assert told.read_text().count("teacher's AP50") == 1
    assert steps_of(tmp_path / "run") == [1, 2, 3, 4]


def test_a_refusal_ends_both_processes(teacher, data, tmp_path):
    words, told = [f"coco:{data}", *STUDENT.split(), *RUN.split()], tmp_path / "told.txt"
    assert in_two_processes(run_command, ["detector", "train", *words, "--out", str(teacher)], told=told) == [2, 2]
    assert told.read_text().count(f"distil: {teacher} already holds a run. Continue it with") == 1
    words += ["--prototype-side", "4", "--teacher-floor", "100", "--teacher", str(teacher)]
    words += ["--out", str(tmp_path / "run")]
    assert in_two_processes(run_command, ["detector", "train", *words], told=told) == [2, 2]
    assert told.read_text().count("the preflight found what makes distilling pointless") == 1
    assert told.read_text().count("STOP  teacher's AP50") == 1
    assert not (tmp_path / "run").exists()


def test_misspelt_losses_are_refused_before_anything_is_opened(tmp_path, capsys):
    missing = [f"coco:{tmp_path / 'no-data'}", "--teacher", str(tmp_path / "no-teacher")]
    assert main(["detector", "train", *missing, "--loss", "gdk"]) == 2
    assert "unknown loss 'gdk'. Did you mean gkd?" in capsys.readouterr().err


def test_presets_are_usable_and_named_sources_are_settings():
    def values_of(method):
        return {leaf.name: leaf.value for leaf in leaves(detector_preset(method, "custom"))}

    for method in DETECTOR_METHODS:
        for key in ("scenes", "custom", "scratch"):
            assert detector_preset(method, key).taught == (method != "plain")
    ours, published, released = (values_of(method) for method in ("gkd", "gkd-published", "gkd-released"))
    assert ours["use_global"]
    assert (ours["local_scale"], published["local_scale"]) == ("teacher", "teacher")
    assert [published[name] for name in ("global_weight", "global_levels", "decay")] == [5.0, "all", True]
    assert {name: ours[name] for name in OURS} == OURS
    assert ours | {name: published[name] for name in (*OURS, "method")} == published
    assert [released[name] for name in ("use_global", "local_scale", "epochs", "batch")] == [False, "raw", 24, 16]
    assert OURS.keys() == OURS_SOURCES.keys()
    assert DETECTOR_SOURCES.keys() | OURS.keys() <= ours.keys()


@pytest.mark.parametrize(
    ("method", "sources"), [("gkd", DETECTOR_SOURCES | OURS_SOURCES), ("gkd-published", DETECTOR_SOURCES)]
)
def test_methods_of_detectors_tell_every_setting_and_its_source(capsys, monkeypatch, method, sources):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["methods", method]) == 0
    text = capsys.readouterr().out
    for name, source in sources.items():
        (line,) = (line for line in text.splitlines() if f" --{name.replace('_', '-')} " in line)
        assert source[:40] in line
    assert student_preset("fcos", "scenes", teacher=False)["channels"] % 32 == 0
    with pytest.raises(DistilError, match="Did you mean plain"):
        detector_preset("plian", "custom")


def test_a_comparison_under_torchrun_is_refused(teacher, data, capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["detector", "compare", str(teacher), f"coco:{data}", *STUDENT.split()]) == 2
    assert "a comparison runs in one process: start it without torchrun" in capsys.readouterr().err
