"""`distil detector ...` from the command line, on a small COCO folder."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from distil.cli import main
from distil.cli_detector import COMMANDS
from distil.detector_presets import DETECTOR_METHODS, DETECTOR_SOURCES, detector_preset, student_preset
from distil.errors import DistilError
from distil.settings import DetectorSettings, check_settings

STUDENT = "--detector retinanet --backbone timm:test_resnet --norm group --channels 16 --min-size 64 --max-size 64"
STUDENT += " --anchor 16 --head-convs 1"
RUN = "--epochs 2 --batch 4 --lr 0.001 --optimiser adamw --prototype-side 4 --device cpu"


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
    words = ["detector", "distil", str(teacher), f"coco:{data}", "--out", str(out), *STUDENT.split(), *RUN.split()]
    return main([*words, *more])


def test_a_student_is_distilled_evaluated_drawn_and_exported(teacher, data, tmp_path, capsys):
    out = tmp_path / "student"
    assert distil(teacher, data, out, "--knowledge", "gkd,pkd=0.5", "--teacher-floor", "0") == 0
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

    weights = tmp_path / "plain.safetensors"
    assert main(["detector", "export", str(out), "--out", str(weights)]) == 0
    assert load_file(weights).keys() == load_file(out / "student.safetensors").keys()


def test_the_preflight_stops_a_teacher_that_sees_nothing(teacher, data, tmp_path, capsys):
    out = tmp_path / "student"
    assert distil(teacher, data, out, "--teacher-floor", "100") == 2
    captured = capsys.readouterr()
    assert "STOP  teacher's AP50" in captured.out
    assert "--no-preflight" in captured.err
    assert not out.exists()
    words = ["detector", "preflight", str(teacher), f"coco:{data}", *STUDENT.split(), *RUN.split()]
    assert main([*words, "--teacher-floor", "100"]) == 2


def test_a_stopped_run_goes_on_and_a_finished_one_says_so(teacher, data, capsys):
    assert main(["detector", "train", "--resume", str(teacher)]) == 0
    assert capsys.readouterr().out == f"This run is finished: {teacher / 'student.safetensors'}\n"
    assert main(["detector", "train", f"coco:{data}", "--out", str(teacher)]) == 2
    assert f"distil detector train --resume {teacher}" in capsys.readouterr().err


def test_compare_writes_a_table(teacher, data, tmp_path, capsys):
    words = ["detector", "compare", str(teacher), f"coco:{data}", "--out", str(tmp_path), "--seeds", "2"]
    assert main([*words, *STUDENT.split(), *RUN.split(), "--arms", "pkd"]) == 0
    text = capsys.readouterr().out
    assert "AP gain over plain" in text
    table = json.loads((tmp_path / "comparison.json").read_text())
    assert [each["name"] for each in table["contenders"]] == ["plain", "pkd"]
    assert table["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["detector", "trian"], "unknown command 'detector trian'. Did you mean 'train'?"),
        (["detector", "evaluate", "nowhere", "scenes:4"], "no such file or folder: nowhere. Give a run folder"),
        (["detector", "evaluate", "torchvision:fcos_resnet50_fpn", "scenes:4"], "allow it with --download"),
        (["detector", "train", "scnes"], "Did you mean scenes?"),
        (["detector", "train", "--resume", "."], "run.json is missing"),
        (["detector", "distil", "x", "scenes", "--method", "gdk"], "unknown method 'gdk'. Did you mean 'gkd'?"),
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


def test_presets_are_usable_and_named_sources_are_settings():
    for method in DETECTOR_METHODS:
        for key in ("scenes", "custom"):
            check_settings(detector_preset(method, key))
    assert detector_preset("plain", "custom").knowledge == "none"
    assert detector_preset("gkd", "custom").use_global
    assert detector_preset("gkd", "custom").local_scale == "teacher"
    released = detector_preset("gkd-released", "custom")
    assert (released.use_global, released.local_scale, released.epochs, released.batch) == (False, "raw", 24, 16)
    assert DETECTOR_SOURCES.keys() <= DetectorSettings.__dataclass_fields__.keys()
    assert student_preset("fcos", "scenes", teacher=False)["channels"] % 32 == 0
    with pytest.raises(DistilError, match="Did you mean 'plain'"):
        detector_preset("plian", "custom")
