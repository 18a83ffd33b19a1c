import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distil.cli import dataset
from distil.cli import main as cli
from distil.cli.main import main
from distil.dataset import distil as distilling
from distil.dataset import run as running
from distil.dataset.methods import METHODS, preset
from distil.distilled_set.record import DistilledSet
from distil.evaluation.protocols import PROTOCOLS
from distil.fields import leaves
from distil.runs import read_log
from distil.stopping import StopRequest

TINY = ["--width", "8", "--outer", "2", "--inner", "2", "--network-samples", "8", "--batch", "4"]
TINY += ["--validations", "1"]

INVENTORY = re.compile(r"\ARead .*\n(?:  .*\n)+")
"""What a command prints of the images that it has read."""


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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of an IDC run of the digits."""
    folder = tmp_path_factory.mktemp("made") / "run"
    assert main(["dataset", "idc", "digits", *TINY, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def artifact(made, capsys):
    """An IDC set of the digits, as the command made it, in the folder run."""
    shutil.copytree(made, "run")
    capsys.readouterr()
    return Path("run/distilled.safetensors")


def write_npz(path, *, side=16, classes=10, seed=0, test=True):
    draws = np.random.default_rng(seed)
    arrays = {}
    for split in ("train", "test") if test else ("train",):
        arrays[f"x_{split}"] = draws.integers(0, 256, (classes * 12, side, side), dtype=np.uint8)
        arrays[f"y_{split}"] = np.repeat(np.arange(classes), 12)
    np.savez(path, **arrays)


def fails(capsys, words, status=2):
    """The one line that a failing command leaves on standard error."""
    assert main(words) == status
    output = capsys.readouterr()
    assert INVENTORY.sub("", output.out) == ""
    assert "Traceback" not in output.err
    lines = [line for line in output.err.splitlines() if line.startswith("distil: ")]
    assert len(lines) == 1, output.err
    return lines[0]


# ----------------------------------------------------------------------------------------------------- help, version


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


LIGHT_WORDS = [[], ["--help"], ["--version"], ["methods"], ["methods", "idc"]]
LIGHT_WORDS += [[name, "--help"] for name in cli.COMMANDS] + [["dataset", "idc", "cifar10", "--ipc", "10", "--help"]]


def test_help_texts_import_nothing_heavy():
    code = f"""
import sys
from distil.cli.main import main
for words in {LIGHT_WORDS!r}:
    assert main(words) == 0, words
heavy = {{"torch", "torchvision", "numpy", "matplotlib", "sklearn", "PIL", "safetensors"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


LIGHT = [
    "cli.main",
    "cli.dataset",
    "cli.evaluate",
    "cli.sets",
    "cli.detector",
    "cli.flags",
    "dataset.methods",
    "detector.presets",
    "detector.settings",
    "detector.presets",
    "dataset.config",
    "dataset.upgrade",
    "errors",
    "runs",
    "evaluation.protocols",
    "data.catalog",
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_torch(module):
    done = run_python(f"import sys, distil.{module}; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_the_help_answers_within_a_second():
    """Of processor time, which what else the machine does hardly changes."""
    took = []
    for _ in range(3):
        began = os.times()
        done = run_python("from distil.cli.main import main; main(['dataset', 'idc', 'cifar10', '--help'])")
        ended = os.times()
        took.append(ended.children_user + ended.children_system - began.children_user - began.children_system)
        assert done.returncode == 0
    assert min(took) < 1


def test_top_help_names_every_command_and_method(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"distil {name}" in text for name in cli.COMMANDS)
    assert ", ".join(METHODS) in " ".join(text.split())
    assert all(len(line) <= 100 for line in text.splitlines())


def test_version(capsys):
    import distil

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"distil {distil.__version__}\n"


def test_dataset_help_shows_the_published_values(capsys):
    def flag(words, name):
        assert main(["dataset", *words, "--help"]) == 0
        text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
        return re.search(rf"{name} .*?\(default: (.*?)\)", text).group(1)

    assert flag(["idc", "cifar10", "--ipc", "10"], "--lr FLOAT") == "0.005"
    assert flag(["--ipc=1", "idc", "cifar10"], "--lr FLOAT") == "0.0005"
    assert flag(["idc", "mnist", "--ipc", "10"], "--distance {cosine,squared,l1}") == "l1"
    assert flag(["--augment-one", "dm", "--out", "here", "cifar10"], "--outer INT") == "20000"
    assert flag(["k-means", "cifar10", "--ipc", "7"], "--ipc INT") == "7"
    assert flag(["idc", "cifar10", "--recipe", "fast"], "--lr-schedule {constant,cosine}") == "cosine"
    assert flag(["udd", "--recipe=fast", "mnist"], "--bfloat16 STR") == "real_network_synthetic"


def test_a_processor_without_bfloat16_is_told(monkeypatch, capsys, tmp_path):
    words = ["dataset", "idc", "digits", "--outer", "1", "--inner", "1", "--width", "4", "--validations", "0"]
    for supported in (True, False):
        monkeypatch.setattr(dataset, "computes_bfloat16", lambda device, answer=supported: answer)
        for bfloat16 in ("real", "none"):
            out = str(tmp_path / f"{supported}-{bfloat16}")
            assert main([*words, "--device", "cpu", "--bfloat16", bfloat16, "--out", out]) == 0
            told = "no bfloat16 arithmetic" in capsys.readouterr().out
            assert told == (bfloat16 == "real" and not supported)


def test_a_recipe_in_bfloat16_computes_in_float32_where_the_processor_has_none(monkeypatch, capsys):
    words = ["dataset", "idc", "digits", "--recipe", "fast", *TINY, "--device", "cpu"]
    for supported, stages in ((True, "real_network_synthetic"), (False, "none")):
        monkeypatch.setattr(dataset, "computes_bfloat16", lambda device, answer=supported: answer)
        assert main([*words, "--out", stages]) == 0
        assert capsys.readouterr().out.count("the run computes in float32") == (not supported)
        assert json.loads(Path(stages, "run.json").read_text())["settings"]["bfloat16"] == stages


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["idc", "--lr-image", "1"], "--lr-image is called --lr now."),
        (["udd", "--spectral-views=8"], "--spectral-views is called --images now."),
        (["idc", "--no-windows-mask"], "--no-windows-mask is a setting of --parameterization windows, which was not"),
        (["idc", "--bits", "4"], "--bits is a setting of --parameterization dct, which was not chosen: add"),
        (["idc", "--parameterization", "dtc"], "--parameterization is 'dtc'. Did you mean 'dct'?"),
        (["udd", "--storage", "uint4"], "--storage is a setting of --parameterization grid, which was not chosen"),
    ],
)
def test_flags_of_before_and_of_other_parts_are_answered(capsys, words, said):
    assert said in fails(capsys, ["dataset", words[0], "digits", *words[1:]])


def test_parts_are_exchanged_from_the_command_line(capsys):
    words = ["--parameterization", "dct", "--policy", "fixed", "--objective", "feature", "--networks", "fresh"]
    words += ["--contrastive", "cfc", "--images", "4", "--bits", "8", "--cfc-share", "0.3"]
    tiny = [*TINY[:6], *TINY[8:]]  # without --network-samples
    assert main(["dataset", "idc", "digits", *tiny, *words, "--out", "mixed"]) == 0
    made: Any = DistilledSet.load("mixed/distilled.safetensors")
    assert (made.images_per_item, made.parameterization.bits) == (4, 8)
    assert made.settings["objective"] == {"kind": "feature"}
    assert made.settings["contrastive"] == {"kind": "cfc", "share": 0.3, "temperature": 0.1}


def test_a_run_of_days_is_asked_for_in_so_many_words(monkeypatch, capsys):
    from distil.dataset import estimate

    monkeypatch.setattr(estimate, "seconds_of_run", lambda images, settings: settings.outer * 60.0)
    monkeypatch.setattr(dataset, "LONG", 4)
    write_npz("photos.npz")
    words = ["dataset", "idc", "photos.npz", "--device", "cpu"]
    said = fails(capsys, [*words, "--outer", "2000"])
    assert "idc by the recipe published takes about 33 hours here; --recipe fast takes about 20 minutes. Give" in said
    assert not Path("runs").exists()
    assert main([*words, *TINY, "--recipe", "published", "--out", "asked"]) == 0
    assert "idc by the recipe published takes about 2 minutes here" in capsys.readouterr().out


def test_the_method_is_no_flag(capsys):
    assert main(["dataset", "idc", "digits", "--method", "udd"]) == 2
    assert "Unrecognized options: --method" in capsys.readouterr().err
    main(["dataset", "idc", "digits", "--help"])
    assert "--method" not in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------- misspelling


def test_misspelt_flag(capsys):
    assert main(["dataset", "idc", "digits", "--lr-shcedule", "cosine"]) == 2
    error = capsys.readouterr().err
    assert "--lr-shcedule" in error
    assert re.search(r"Perhaps you meant:\s+│?\n?.*--lr-schedule", error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["datset"], "unknown command 'datset'. Did you mean dataset? Choose from dataset, experts, evaluate,"),
        (["dataset", "icd", "digits"], "unknown method 'icd'. Did you mean idc?"),
        (["dataset", "idc", "cifr10"], "unknown source 'cifr10'. Did you mean cifar10?"),
        (["dataset", "digits", "idc"], "METHOD comes before SOURCE: distil dataset idc digits"),
        (["dataset"], "give a METHOD and a SOURCE: distil dataset idc digits."),
        (["dataset", "idc"], "give a SOURCE after idc: digits, mnist,"),
        (["dataset", "idc", "digits", "--recipe", "quick"], "unknown recipe 'quick'. Choose from published, fast."),
        (
            ["dataset", "random", "digits", "--recipe", "fast"],
            "random has no recipe 'fast': dc, dsa, dm, idm, idc, dream, ncfm, mtt, datm, fred, udd, udd-jitter, "
            "udd-windows have one.",
        ),
        (["dataset", "idc", "digits", "--ipc", "0"], "--ipc is 0: ask for at least 1"),
        (["dataset", "idc", "digits", "--ipc", "-3"], "--ipc is -3: ask for at least 1"),
        (["dataset", "idc", "digits", "--lr", "nan"], "--lr is nan: give a finite number"),
        (["dataset", "random", "digits", "--ipc", "4000"], "--ipc 4000 asks for more images than class"),
        (
            ["dataset", "idc", "digits", "--factor", "17", "--init", "real"],
            "--factor 17 is larger than the images' side",
        ),
        (["dataset", "idc", "digits", "--size", "0"], "--size is 0: give the side of the images in pixels"),
        (["dataset", "idc", "digits", "--device", "abacus"], "--device abacus is none that distil computes on"),
        (["dataset", "--resume", "nowhere"], "nowhere holds no run: run.json is missing"),
        (["dataset", "idc", "--resume", "nowhere"], "leave 'idc' out"),
        (["evaluate", "nowhere.safetensors", "digits"], "nowhere.safetensors: no such file"),
        (["evaluate", "random:x", "digits"], "'random:x' should be random:N with N real images per class"),
        (["evaluate", "random:0", "digits"], "'random:0' should be random:N"),
        (["evaluate", "random:4000", "digits", "--protocol", "quick"], "4000 were asked for: ask for at most"),
        (["evaluate", "whole", "digits", "--protocol", "icd"], "unknown protocol 'icd'. Did you mean idc?"),
        (["evaluate", "whole", "digits", "--networks", "resnet81"], "unknown network 'resnet81'. Did you mean"),
        (["evaluate", "whole", "digits", "--networks", ","], "--networks is empty"),
        (["evaluate", "whole", "digits", "--runs", "0"], "--runs is 0: at least 1"),
        (["evaluate", "whole", "digits", "--at-once", "0"], "--at-once is 0: at least 1"),
        (["evaluate", "whole", "digits", "--width", "0"], "--width is 0: it must be at least 1"),
        (["compare"], "give the files to compare"),
        (["compare", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["compare", "nowhere.json"], "nowhere.json: no such file"),
        (["show", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["show", "."], ".: this is a folder"),
        (["export", "nowhere.safetensors", "--to", "npz", "--out", "x.npz"], "nowhere.safetensors: no such file"),
        (["methods", "herdin"], "unknown method 'herdin'. Did you mean herding?"),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, words, message):
    assert message in fails(capsys, words)
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    def broken(name: str = "") -> None:
        raise ValueError("a defect of ours")

    monkeypatch.setitem(cli.COMMANDS, "methods", broken)
    with pytest.raises(ValueError, match="a defect of ours"):
        main(["methods"])


def test_system_errors_of_a_path_are_one_line(capsys, monkeypatch):
    def broken(name: str = "") -> None:
        Path("nowhere/file").read_text()

    monkeypatch.setitem(cli.COMMANDS, "methods", broken)
    assert "nowhere/file: No such file or directory" in fails(capsys, ["methods"])


# ----------------------------------------------------------------------------------------------------------- dataset


def test_dataset_makes_a_run_folder_and_says_what_comes_next(capsys):
    assert main(["dataset", "udd-windows", "digits", *TINY, "--proxy-steps", "2", "--windows-start", "0"]) == 0
    folder = Path("runs/digits-udd-windows-ipc1-seed0")
    output = capsys.readouterr()
    assert output.out.startswith("Read digits (scikit-learn): 10 classes\n  train: 1,297 images of 8 x 8 pixels, ")
    assert INVENTORY.sub("", output.out).splitlines()[0] == f"{folder}/distilled.safetensors"
    assert "10 images, 1 per class" in output.out
    assert f"  distil evaluate {folder}/distilled.safetensors digits --protocol quick\n" in output.out
    assert "udd-windows on digits: step 4 of 4, loss" in output.err
    assert "validation" in output.err

    distilled = DistilledSet.load(folder / "distilled.safetensors")
    manifest = json.loads((folder / "run.json").read_text())
    assert (distilled.method, len(distilled.params)) == ("udd-windows", 10)
    assert distilled.images_per_item == 5
    assert manifest["settings"] == distilled.settings
    assert manifest["source_fingerprint"] == distilled.source_fingerprint
    assert {"distil", "torch"} <= manifest["versions"].keys()
    names = [line["event"] for line in read_log(folder / "log.jsonl")]
    assert names[0] == "start"
    assert names[-1] == "done"
    assert {"step", "validation"} <= set(names)


def test_every_method_runs_from_the_command_line(capsys):
    shared = {"--width": "8", "--network-epochs": "1"}
    matching = {"--outer": "1", "--inner": "1", "--network-samples": "4", "--batch": "4", "--proxy-steps": "1"}
    matching |= {"--steps": "1", "--student-steps": "2", "--expert-runs": "1", "--expert-epochs": "5"}
    for method, entry in METHODS.items():
        names = {leaf.name for leaf in leaves(preset(method, "digits", 1))}
        flags = shared | ({"--validations": "0"} | matching if entry.kind == "matching" else {})
        flags = {flag: value for flag, value in flags.items() if flag[2:].replace("-", "_") in names}
        words = [word for pair in flags.items() for word in pair]
        assert main(["dataset", method, "digits", *words, "--out", method]) == 0, capsys.readouterr().err
        assert DistilledSet.load(Path(method) / "distilled.safetensors").method == method


def test_a_taken_folder_is_refused_and_a_finished_run_says_so(capsys, artifact):
    message = fails(capsys, ["dataset", "idc", "digits", *TINY, "--out", "run"])
    assert "run already holds a finished run: choose another folder with --out" in message
    before = artifact.read_bytes()
    assert main(["dataset", "--resume", "run"]) == 0
    assert capsys.readouterr().out == "This run is finished: run/distilled.safetensors\n"
    assert artifact.read_bytes() == before


@pytest.fixture
def stop_after(monkeypatch):
    """Ask every run to stop when it has looked so many times, as Ctrl-C does."""

    def set_looks(looks):
        class Asked(StopRequest):
            left = looks

            @property
            def number(self):  # pyright: ignore[reportIncompatibleVariableOverride]
                self.left -= 1
                return signal.SIGINT if self.left < 0 else None

        @contextmanager
        def requests():
            yield Asked()

        monkeypatch.setattr(running, "stop_requests", requests)

    return set_looks


def test_an_interrupted_run_goes_on_to_the_same_bytes(capsys, stop_after, artifact):
    stop_after(2)

    message = fails(capsys, ["dataset", "idc", "digits", *TINY, "--out", "other"], status=130)
    assert re.search(r"stopped after step [123] of 4: continue with distil dataset --resume other", message)
    assert "other already holds a run. Continue it with: distil dataset --resume other" in fails(
        capsys, ["dataset", "idc", "digits", *TINY, "--out", "other"]
    )
    stop_after(10**9)
    assert main(["dataset", "--resume", "other"]) == 0
    assert Path("other/distilled.safetensors").read_bytes() == artifact.read_bytes()

    steps = [line["step"] for line in read_log(Path("other/log.jsonl")) if line["event"] == "step"]
    assert steps == [1, 2, 3, 4]


def test_resume_refuses_other_images(capsys, stop_after):
    write_npz("images.npz")
    stop_after(1)
    fails(capsys, ["dataset", "idc", "images.npz", *TINY, "--out", "run"], status=130)
    write_npz("images.npz", seed=1)
    message = fails(capsys, ["dataset", "--resume", "run"])
    assert "the training images of images.npz are not those that the run in run began with" in message


def test_resume_from_another_working_folder(capsys, stop_after, monkeypatch, tmp_path):
    write_npz("images.npz")
    stop_after(1)
    fails(capsys, ["dataset", "idc", "images.npz", *TINY, "--out", "run"], status=130)
    stop_after(10**9)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["dataset", "--resume", "../run"]) == 0
    assert "  distil evaluate ../run/distilled.safetensors ../images.npz --protocol quick\n" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{}", "[]", '{"command": "dataset"}'])
def test_resume_refuses_another_manifest(capsys, text):
    Path("run.json").write_text(text)
    assert "run.json does not describe a run" in fails(capsys, ["dataset", "--resume", "."])


def test_a_run_that_failed_before_its_first_step_leaves_no_folder(capsys):
    fails(capsys, ["dataset", "idc", "digits", "--factor", "17", "--out", "run"])
    assert not Path("run").exists()
    assert main(["dataset", "idc", "digits", *TINY, "--out", "run"]) == 0


@pytest.mark.parametrize("out", ["file/run", "file"])
def test_a_run_folder_that_cannot_be(capsys, out):
    Path("file").write_text("taken")
    message = fails(capsys, ["dataset", "idc", "digits", *TINY, "--out", out])
    assert f"cannot write {out}: " in message
    assert "--out" in message


def test_ctrl_c_saves_and_tells_how_to_go_on():
    flags = [*TINY, "--outer", "10000", "--validations", "0", "--device", "cpu"]
    words = [sys.executable, "-m", "distil", "dataset", "idc", "digits", *flags, "--out", "run"]
    log = Path("run/log.jsonl")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (log.is_file() and '"step"' in log.read_text()):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with distil dataset --resume run" in error
    assert "Traceback" not in error
    assert Path("run/checkpoint.safetensors").is_file()


# ------------------------------------------------------------------------------------------------ evaluate, compare


def test_evaluate_and_compare(capsys, artifact):
    judge = ["digits", "--protocol", "quick", "--width", "8", "--runs", "2"]
    assert main(["evaluate", str(artifact), *judge]) == 0
    text = capsys.readouterr().out
    assert "Protocol quick v2" in text
    assert "500 images of digits test" in text
    assert "Scores: run/distilled.safetensors.scores.json" in text
    assert main(["evaluate", "random:1", *judge, "--json", "random.json"]) == 0
    assert main(["evaluate", "whole", *judge, "--json", "whole.json"]) == 0
    capsys.readouterr()

    assert main(["compare", str(artifact), "random.json", "whole.json", "--markdown"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[1:3] for row in rows[2:]] == [["idc", "1"], ["random", "1"], ["whole set", "all"]]
    assert all(re.fullmatch(r"\d+\.\d ± \d+\.\d \|", row[-1]) for row in rows[2:])
    assert main(["compare", str(artifact), "random.json"]) == 0
    assert "idc" in capsys.readouterr().out


def test_evaluate_trains_as_many_networks_at_once_as_it_is_told(capsys, monkeypatch):
    import distil.evaluation.evaluator

    groups = []
    monkeypatch.setattr(
        distil.evaluation.evaluator, "train_together", lambda nets, *args, **options: groups.append(len(nets))
    )
    judge = ["digits", "--protocol", "quick", "--width", "8", "--runs", "3"]
    assert main(["evaluate", "random:1", *judge, "--at-once", "2"]) == 0
    assert main(["evaluate", "random:1", *judge, "--device", "cpu"]) == 0
    assert groups == [2, 1, 1, 1, 1]


def test_networks_judged_alike_share_a_row_and_protocols_get_a_table_each(capsys, artifact, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "dc", replace(PROTOCOLS["dc"], max_updates=2))
    for flags in (["quick", "--networks", "convnet1"], ["quick", "--networks", "convnet2,convnet1"], ["dc"]):
        assert main(["evaluate", str(artifact), "digits", "--width", "8", "--runs", "1", "--protocol", *flags]) == 0
    scores = json.loads(Path(f"{artifact}.scores.json").read_text())["scores"]
    assert [(row["protocol"], sorted(row["networks"])) for row in scores] == [
        ("quick", ["convnet1", "convnet2"]),
        ("dc", ["convnet3"]),
    ]
    capsys.readouterr()
    assert main(["compare", str(artifact)]) == 0
    text = capsys.readouterr().out
    assert "Protocol quick v2" in text
    assert "Protocol dc" in text
    assert "Scores of different protocols, label regimes or test images are not comparable" in text


def test_compare_without_scores_says_which_command_makes_them(capsys, artifact):
    message = fails(capsys, ["compare", str(artifact)])
    assert f"{artifact} has no scores yet. Run: distil evaluate {artifact} SOURCE" in message


def test_compare_refuses_scores_of_an_older_file(capsys, artifact):
    assert main(["evaluate", str(artifact), "digits", "--protocol", "quick", "--width", "8", "--runs", "1"]) == 0
    capsys.readouterr()
    replace(DistilledSet.load(artifact), seed=7).save(artifact)
    assert "has changed since it was evaluated" in fails(capsys, ["compare", str(artifact)])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1, "scores": [{}]}', '{"scores": []}'])
def test_a_file_that_holds_no_scores(capsys, text):
    Path("x.json").write_text(text)
    assert "x.json: not a score file" in fails(capsys, ["compare", "x.json"])
    assert "x.json: not a score file" in fails(capsys, ["evaluate", "whole", "digits", "--json", "x.json"])
    assert Path("x.json").read_text() == text


def test_scores_of_a_newer_distil(capsys):
    Path("x.json").write_text('{"format_version": 99, "scores": []}')
    assert "made by a newer distil (format 99" in fails(capsys, ["compare", "x.json"])


def test_scores_that_cannot_be_written_are_still_printed(capsys, artifact):
    Path("file").write_text("taken")
    words = ["evaluate", str(artifact), "digits", "--protocol", "quick", "--width", "8", "--runs", "1"]
    assert main([*words, "--json", "file/x.json"]) == 2
    output = capsys.readouterr()
    assert "Protocol quick v2" in output.out
    assert re.search(r"cannot write .*file/x\.json: .* Another place is given with --json\.\n$", output.err)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"classes": 3}, "different classes: 3 against 10"), ({"side": 12}, "has images of 12 x 12 pixels")],
)
def test_an_artifact_of_other_classes_or_sizes_than_the_source(capsys, artifact, options, message):
    write_npz("other.npz", **options)
    assert message in fails(capsys, ["evaluate", str(artifact), "other.npz", "--protocol", "quick"])


def test_an_artifact_of_other_images_is_judged_with_a_note(capsys, artifact):
    write_npz("other.npz")
    words = ["evaluate", str(artifact), "other.npz", "--protocol", "quick", "--width", "8", "--runs", "1"]
    assert main(words) == 0
    assert "Note: this set was made from other images than the training images" in capsys.readouterr().out


def test_a_source_whose_test_split_was_held_out_is_told(capsys):
    write_npz("photos.npz", test=False)
    words = ["evaluate", "random:1", "photos.npz", "--protocol", "quick", "--width", "8", "--runs", "1"]
    assert main(words) == 0
    assert "Note: " in capsys.readouterr().out


def test_a_source_without_test_images(capsys, monkeypatch):
    import distil.data.images.opener

    digits = distil.data.images.opener.open_source("digits")
    monkeypatch.setattr(distil.data.images.opener, "open_source", lambda word, **options: replace(digits, test=None))
    assert "has no test images to evaluate on" in fails(capsys, ["evaluate", "whole", "digits"])


# ---------------------------------------------------------------------------------------------- show, export, methods


def test_show(capsys, artifact):
    assert main(["show", str(artifact)]) == 0
    assert "Picture: run/distilled.png" in capsys.readouterr().out
    assert Path("run/distilled.png").read_bytes().startswith(b"\x89PNG")
    assert main(["show", str(artifact), "--out", "other/x.png"]) == 0
    assert Path("other/x.png").is_file()
    capsys.readouterr()
    assert "ends in .png" in fails(capsys, ["show", str(artifact), "--out", "x.bmp"])


def test_show_tells_how_evenly_the_pixels_are_used(capsys):
    assert main(["dataset", "udd-windows", "digits", *TINY, "--proxy-steps", "2", "--out", "udd"]) == 0
    capsys.readouterr()
    assert main(["show", "udd/distilled.safetensors"]) == 0
    used = re.search(r"mUE (\d\.\d+)", capsys.readouterr().out)
    assert used is not None
    assert 0.5 < float(used.group(1)) <= 1


def test_a_set_of_cosines_is_made_shown_judged_and_exported(capsys):
    words = ["--proxy-steps", "2", "--bits", "4", "--out", "udd"]
    assert main(["dataset", "udd", "digits", *TINY, *words]) == 0
    file = "udd/distilled.safetensors"
    made: Any = DistilledSet.load(file)
    assert (made.images_per_item, made.parameterization.bits, made.bytes["images"]) == (8, 4, 10 * 16 * 16)
    assert main(["show", file]) == 0
    assert main(["evaluate", file, "digits", "--protocol", "quick", "--width", "4", "--runs", "1"]) == 0
    assert main(["export", file, "--to", "npz", "--out", "views.npz"]) == 0
    assert np.load("views.npz")["x_train"].shape == (80, 16, 16)
    log = [json.loads(line) for line in Path("udd/log.jsonl").read_text().splitlines()]
    assert [len(line["kept"]) for line in log if line["event"] == "cosines"] == [64]


@pytest.mark.parametrize(("to", "out"), [("folder", "views"), ("npz", "views.npz"), ("parquet", "views.parquet")])
def test_export(capsys, artifact, to, out):
    words = ["export", str(artifact), "--to", to, "--out", out]
    assert main(words) == 0
    assert capsys.readouterr().out == f"Written: {out}\n"
    assert Path(out).exists()
    assert "--overwrite" in fails(capsys, words)
    assert main([*words, "--overwrite"]) == 0


def test_methods_lists_each_with_its_paper_and_score(capsys):
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    text = " ".join(printed.split())
    assert "│ 49.6 / - / - │" in text
    assert all(f"│ {name} │" in text for name in METHODS)
    assert "50.6 / 67.5 / 74.5" in text
    assert "ICML 2022" in text


@pytest.mark.parametrize("name", METHODS)
def test_methods_with_a_name_shows_every_setting(capsys, name):
    assert main(["methods", name]) == 0
    text = capsys.readouterr().out
    names = [leaf.name for leaf in leaves(preset(name, "cifar10", 1))]
    assert all(f"--{name.replace('_', '-')} " in text for name in names if name not in ("method", "ipc"))
    assert " ".join(METHODS[name].title.split()) in " ".join(text.split())
    described = text.partition("Settings that")[0]
    assert max(map(len, described.splitlines())) <= 100
    assert all(word in described for word in ("Paper: ", "Cost, ", "Parts, on CIFAR-10", "easured here"))


def test_methods_gives_values_by_data_set_and_images_per_class(capsys):
    assert main(["methods", "idc"]) == 0
    lines = [line.split("│")[1:-2] for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert next(row for row in cells if row[0] == "--lr")[1:] == ["digits", "0.02", "0.2", "1"]
    assert ["", "mnist", "1e-05", "0.0001", "0.0005"] in cells
    assert ["cifar10", "50.6", "67.5"] in [row[:3] for row in cells]


def test_demo_prints_its_rows_and_where_the_report_is(capsys, monkeypatch):
    import distil.cli.tour

    def run_demo(out, *, device, stage):
        with stage("IDC") as events:
            events("start", steps=1)
        row = {"name": f"IDC on {device}", "images_per_class": 1, "bytes": 2634, "mean": 95.53, "std": 0.31}
        return [row, {**row, "name": "whole", "images_per_class": None}]

    monkeypatch.setattr(distil.cli.tour, "run_demo", run_demo)
    assert main(["demo", "--out", "here", "--device", "cpu"]) == 0
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["IDC on cpu", "1", "2,634", "95.5 ± 0.3"] in lines
    assert ["whole", "all", "2,634", "95.5 ± 0.3"] in lines


def test_a_folder_with_the_leavings_of_another_run_is_refused(capsys, artifact):
    artifact.with_name("run.json").unlink()
    said = fails(capsys, ["dataset", "idc", "digits", *TINY, "--out", "run"])
    assert "run holds distilled.safetensors of another run, without its run.json" in said


def test_a_file_named_like_a_data_set_that_it_is_not(capsys):
    write_npz(Path("mnist.npz"))
    said = fails(capsys, ["dataset", "idc", "mnist.npz", *TINY])
    assert "mnist.npz is named like mnist, whose settings were taken, but holds other images" in said
    write_npz(Path("digits.npz"))
    assert main(["dataset", "random", "digits.npz"]) == 0
    assert json.loads(Path("runs/digits-random-ipc1-seed0/run.json").read_text())["settings"]["ipc"] == 1


@pytest.mark.parametrize("method", ["idc", "dm", "udd"])
def test_a_long_run_is_announced_with_its_measured_time(capsys, monkeypatch, method):
    monkeypatch.setattr(dataset, "LONG", 1)
    tiny = [*TINY[:6], *TINY[8:]] if method == "dm" else TINY
    recipe = [] if method == "dm" else ["--recipe", "fast", "--bfloat16", "none"]
    assert main(["dataset", method, "digits", *tiny, *recipe]) == 0
    took = r"takes about \d+ (seconds|minutes)"
    told = f"{method} by the recipe {recipe[1] if recipe else 'published'} {took} here"
    told += rf"; --recipe fast {took}\." if method == "dm" else r"\."
    assert re.search(rf"{told}\n", capsys.readouterr().out)


def test_out_of_memory_is_one_line_and_leaves_no_folder(capsys, monkeypatch):
    def full(*args, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(distilling, "distil_dataset", full)
    assert "out of memory: lower --width" in fails(capsys, ["dataset", "idc", "digits", *TINY, "--out", "run"])
    assert not Path("run").exists()


def test_sets_of_one_name_from_two_folders_share_a_score_file(capsys):
    judge = ["digits", "--protocol", "quick", "--width", "8", "--runs", "1", "--json", "all.json"]
    for root, seed in (("a", "0"), ("b", "1")):
        assert main(["dataset", "random", "digits", "--seed", seed, "--out", f"{root}/run"]) == 0
        assert main(["evaluate", f"{root}/run/distilled.safetensors", *judge]) == 0
    paths = [Path(row["path"]).parts[-3] for row in json.loads(Path("all.json").read_text())["scores"]]
    assert paths == ["a", "b"]
