"""`distil label`, and the label regimes of `distil evaluate`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distil.cli.main import main
from distil.data.images.opener import open_source
from distil.distilled_set.record import DistilledSet
from distil.evaluation.protocols import PROTOCOLS
from distil.networks import build_network
from distil.networks.classifier_files import read_classifier, save_classifier
from distil.networks.classifiers import Classifier
from distil.parameterizations.crops import Crops

JUDGE = ["digits", "--protocol", "quick", "--networks", "convnet1", "--width", "4", "--runs", "2"]
SET, SOFT = "set.safetensors", "soft.safetensors"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A set of digits, two classifiers, and a protocol of three updates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], max_updates=3, whole_updates=3))
    real = open_source("digits").train
    images = torch.cat([real.images[members[:1]] for members in real.by_class])
    DistilledSet(
        params=images,
        labels=torch.arange(10),
        parameterization=Crops.grid(2, real.size),
        classes=real.classes,
        mean=real.mean,
        std=real.std,
        method="random",
        settings={},
        seed=0,
        source=real.name,
        source_fingerprint=real.fingerprint(),
    ).save(SET)
    for seed in (0, 1):
        network = build_network("convnet1", channels=1, size=real.size, classes=10, width=4, seed=seed)
        fields = {"classes": real.classes, "mean": real.mean, "std": real.std, "size": real.size, "width": 4}
        save_classifier(f"teacher{seed}.safetensors", Classifier(network, architecture="convnet1", **fields))


def fails(capsys, words):
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err


def rows(file):
    return json.loads(Path(f"{file}.scores.json").read_text())["scores"]


def label(*more, out=SOFT):
    return main(["label", SET, "--teacher", "teacher0.safetensors", "--out", out, *more])


def test_label_stores_the_mean_of_the_teachers_for_every_decoded_image(capsys):
    assert label("--teacher", "teacher1.safetensors", "--temperature", "2") == 0
    text = capsys.readouterr().out
    assert "Labels: 810 bytes (10 before)" in text
    assert "of the 40 decoded images their class." in text
    made, soft = DistilledSet.load(SET), DistilledSet.load(SOFT)
    assert (soft.labels.dtype, tuple(soft.labels.shape)) == (torch.float16, (10, 4, 10))
    assert soft.header()["format_version"] == 4
    teachers = [read_classifier(f"teacher{seed}.safetensors") for seed in (0, 1)]
    logits = torch.stack([teacher.logits(made.decoded().images) for teacher in teachers]).mean(0) / 2
    torch.testing.assert_close(soft.decoded().labels, logits.softmax(1), rtol=1e-3, atol=1e-4)
    assert torch.equal(soft.class_of, made.class_of)
    assert soft.label_source["words"] == ["teacher0.safetensors", "teacher1.safetensors"]
    assert soft.label_source["temperature"] == 2.0
    assert Path(SOFT).read_bytes() != Path(SET).read_bytes()


def test_random_images_beside_a_set_get_the_help_that_it_has(capsys):
    assert label() == 0
    assert main(["evaluate", SOFT, *JUDGE, "--with-random"]) == 0
    assert main(["evaluate", SET, *JUDGE, "--labels", "teacher:teacher0.safetensors", "--with-random"]) == 0
    for file, regime, temperature, label_bytes in ((SOFT, "stored", 1.0, [800, 200]), (SET, "teacher", 20.0, [0, 0])):
        own, beside = rows(file)
        assert [row["labels"] for row in (own, beside)] == [regime] * 2
        assert [row["label_bytes"] for row in (own, beside)] == label_bytes
        assert own["temperature"] == beside["temperature"] == temperature
        assert own["teacher"] == beside["teacher"]
        assert own["teacher"]["words"] == ["teacher0.safetensors"]
        assert (beside["method"], beside["images_per_class"], beside["beside"]) == ("random", 1, own["file_sha256"])
    capsys.readouterr()
    assert main(["compare", SOFT, SET, "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "stored, 800 bytes by teacher0.safetensors, T 1 |" in text
    assert "| teacher teacher0.safetensors, T 20, " in text
    assert "label regimes or test images are not comparable" in text


def test_a_ranking_has_every_control_and_stands_in_the_score_file(capsys):
    assert label() == 0
    assert main(["evaluate", SOFT, *JUDGE, "--ranking"]) == 0
    text = capsys.readouterr().out
    for words in ("HLR, hard label recovery", "IOR, improvement over random", "LRS, label robust", "ARS, augmentation"):
        assert words in text
    found = rows(SOFT)
    assert [(row["method"], row["labels"], row["protocol"]) for row in found] == [
        ("whole set", "hard", "quick"),
        ("random", "hard", "quick"),
        ("random", "stored", "quick"),
        ("random", "stored", "quick"),
        ("random", "stored", "quick without augmentation"),
        ("random", "stored", "quick without augmentation"),
    ]
    own = next(row for row in found if "ranking" in row)
    accuracies = [x / 100 for x in own["networks"]["convnet1"]["accuracies"]]
    assert own["ranking"]["convnet1"]["own"]["runs"] == pytest.approx(accuracies)
    assert main(["evaluate", SOFT, *JUDGE]) == 0  # the ranking is kept
    assert any("ranking" in row for row in rows(SOFT))


def test_kept_networks_are_teachers(capsys):
    assert main(["evaluate", "whole", *JUDGE, "--keep-networks", "kept"]) == 0
    assert "Networks: kept" in capsys.readouterr().out
    words = ["--teacher", "kept/convnet1-run0.safetensors", "--teacher", "kept/convnet1-run1.safetensors"]
    assert main(["label", SET, *words, "--out", SOFT]) == 0
    assert main(["evaluate", "random:1", *JUDGE, "--labels", "stored", *words]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", SET, *JUDGE, "--labels", "soft"], "--labels is 'soft': use hard, stored or teacher:MODEL."),
        (["evaluate", SET, *JUDGE, "--labels", "teacher"], "--labels teacher:MODEL needs a teacher"),
        (["evaluate", SET, *JUDGE, "--labels", "teacher:none.safetensors"], "no such file: none.safetensors"),
        (["evaluate", SET, *JUDGE, "--labels", "teacher:test_resnet"], "may have to be fetched: --download allows it"),
        (
            ["evaluate", SET, *JUDGE, "--labels", "stored"],
            "has hard labels alone: use --labels hard, or store soft ones",
        ),
        (["evaluate", SET, *JUDGE, "--temperature", "4"], "--temperature 4 is not used: hard labels have none."),
        (["evaluate", SOFT, *JUDGE, "--temperature", "4"], "that of the stored labels is in the file."),
        (["evaluate", SET, *JUDGE, "--teacher", "teacher0.safetensors"], "--teacher is not used with hard labels: add"),
        (["evaluate", "random:1", *JUDGE, "--labels", "stored"], "until a teacher gives them: name it with --teacher"),
        (["evaluate", "whole", *JUDGE, "--ranking"], "compare a distilled set with real images, and whole is real"),
        (
            ["evaluate", SOFT, *JUDGE, "--with-random", "--teacher", "teacher1.safetensors"],
            "the teacher teacher1.safetensors is not the one that gave the stored labels",
        ),
        (
            ["evaluate", "learned.safetensors", *JUDGE, "--ranking"],
            "come from no teacher that its file names, so random",
        ),
        (["label", SET, "--teacher", "teacher0.safetensors", "--out", SET], "the set itself: give the labeled set"),
        (
            ["label", SET, "--teacher", "teacher0.safetensors", "--out", "x.pt"],
            "a distilled set is a .safetensors file",
        ),
        (
            ["label", SET, "--teacher", "teacher0.safetensors", "--out", SOFT, "--temperature", "0"],
            "--temperature is 0.0: it must be above 0",
        ),
    ],
)
def test_labels_that_cannot_be_had(capsys, words, message):
    if SOFT in words:
        assert label() == 0
    if "learned.safetensors" in words:
        made = DistilledSet.load(SET)
        replace(made, labels=torch.full((10, 10), 0.1)).save("learned.safetensors")
    assert message in fails(capsys, words)


def test_a_teacher_that_is_gone(capsys):
    assert label() == 0
    Path("teacher0.safetensors").rename("moved.safetensors")
    message = fails(capsys, ["evaluate", SOFT, *JUDGE, "--with-random"])
    assert "random real images need the teacher of the stored labels (teacher0.safetensors): no such file" in message
    assert "Where it lies now is told with --teacher." in message
    assert main(["evaluate", SOFT, *JUDGE, "--with-random", "--teacher", "moved.safetensors"]) == 0
    assert main(["evaluate", SOFT, *JUDGE, "--labels", "hard", "--with-random"]) == 0
