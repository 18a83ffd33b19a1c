"""The equal-budget runner: its arithmetic by hand, its refusals, and that it resumes."""

import json
import math
import os
import signal
import threading
from pathlib import Path

import pytest

from distil.detector import comparison
from distil.detector.comparison import Comparison, Variant, compare_detectors
from distil.detector.training.trainer import LAST
from distil.errors import DistilError
from distil.locks import only_writer
from distil.networks.detectors import Architecture, build_detector, load_detector
from distil.rng import seed_at
from distil.runs import Interrupted

from .tiny import CLASSES, Cells, CellsAdapter, Recorder, cells, from_classes, squares, tiny_settings


def made(seeds=(0, 1, 2)):
    plain = [{"ap": x, "ap50": 2 * x, "small": None} for x in (10.0, 12.0, 14.0)]
    taught = [{"ap": x, "ap50": 2 * x, "small": None} for x in (12.0, 13.0, 17.0)]
    count = len(seeds)
    return Comparison(
        variants=(
            Variant("plain", "none", tuple(plain[:count]), (10.0,) * count),
            Variant("gkd", "gkd", tuple(taught[:count]), (15.0,) * count),
        ),
        seeds=tuple(seeds),
        data="squares",
        test="more squares",
        test_images=7,
        budget={"epochs": 3, "batch": 4, "lr": 0.01},
        teacher={"ap": 30.0, "ap50": 60.0},
    )


def test_gains_are_taken_seed_by_seed():
    gain, error = made().delta("gkd", "ap")
    # differences 2, 1, 3: mean 2, standard deviation 1
    assert gain == pytest.approx(2)
    assert error == pytest.approx(1 / math.sqrt(3))
    assert made().delta("plain", "ap") == (0, 0)
    assert all(math.isnan(x) for x in made().delta("gkd", "small"))


def test_the_table_in_markdown():
    assert made().to_markdown().splitlines() == [
        "| training | losses of the teacher | AP | AP50 | AP gain over plain | time |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| plain | none | 12.0 ± 1.2 | 24.0 ± 2.3 |  | 1.00 x |",
        "| gkd | gkd | 14.0 ± 1.5 | 28.0 ± 3.1 | +2.0 ± 0.6 | 1.50 x |",
        "| (the teacher) |  | 30.0 | 60.0 |  |  |",
        "",
        "In % on 7 images of more squares: mean ± standard error over seeds 0, 1, 2; gains are differences seed by "
        "seed. Equal for all: first weights, images of squares, 3 epochs, batch 4, learning rate 0.01. Time: of the "
        "trainings, against plain.",
    ]


def test_one_seed_has_no_spread_and_says_so():
    lines = made(seeds=(4,)).to_markdown().splitlines()
    assert lines[3] == "| gkd | gkd | 12.0 | 24.0 | +2.0 | 1.50 x |"
    assert lines[-1].startswith("In % on 7 images of more squares: one run, so without spread, with seed 4. Equal for")


def test_it_is_saved_as_json_and_markdown(tmp_path):
    made().save(tmp_path)
    values = json.loads((tmp_path / "comparison.json").read_text())
    assert values["table"]["gkd"]["ap"] == pytest.approx(
        {"mean": 14.0, "error": 1.5275252, "gain": 2.0, "gain_error": 0.5773503}
    )
    assert values["table"]["gkd"]["small"] == {"mean": None, "error": None, "gain": None, "gain_error": None}
    assert values["variants"][1]["scores"][2]["ap"] == 17.0
    assert (tmp_path / "comparison.md").read_text() == made().to_markdown()


@pytest.fixture
def tiny_world(monkeypatch):
    """Architectures stand for the tiny detector of the tests."""

    def build(architecture, *, seed):
        return cells(seed_at(seed, "student")).model

    for module in ("distil.detector.training.setup", "distil.networks.detectors"):
        monkeypatch.setattr(f"{module}.build_detector", build)
    for module in ("distil.detector.training.setup", "distil.detector.comparison"):
        monkeypatch.setattr(f"{module}.adapt", CellsAdapter)
    assert isinstance(build(None, seed=0), Cells)
    return Architecture("retinanet", "resnet18", CLASSES)


def compare(out, student, settings=None, **options):
    settings = settings or {"gkd": tiny_settings(loss="gkd", epochs=1)}
    options = {"measure": from_classes, "seeds": (0, 1), "out": out, **options}
    return compare_detectors(student, cells(5), squares(), squares(6, 7, "others"), settings, **options)


def test_a_plain_training_is_added_and_every_run_starts_from_the_same_weights(tmp_path, tiny_world, monkeypatch):
    starts = {}
    real = comparison.train_detector

    def train(student, data, settings, **options):
        starts[settings.method, settings.training.seed] = build_detector_of(settings.training.seed)
        return real(student, data, settings, **options)

    def build_detector_of(seed):
        return float(cells(seed_at(seed, "student")).model.head.weight.detach().sum())

    monkeypatch.setattr(comparison, "train_detector", train)
    result = compare(tmp_path, tiny_world)
    assert [(each.name, each.losses) for each in result.variants] == [("plain", "none"), ("gkd", "gkd")]
    assert list(starts) == [("plain", 0), ("gkd", 0), ("plain", 1), ("gkd", 1)]
    assert starts["plain", 0] == starts["gkd", 0] != starts["gkd", 1]
    assert result.budget["epochs"] == 1
    assert result.teacher is not None
    model, _, extra = load_detector(tmp_path / "gkd" / "seed-1" / LAST)
    assert extra["settings"]["training"]["seed"] == 1
    found = comparison.predict(CellsAdapter(model), squares(6, 7))
    assert result.values("gkd", "ap")[1] == pytest.approx(from_classes(found, [], ()).ap)
    assert result.values("gkd", "ap") != result.values("plain", "ap")
    assert (tmp_path / "comparison.md").exists()


def test_what_is_done_is_not_done_again(tmp_path, tiny_world):
    log = Recorder()
    first = compare(tmp_path, tiny_world, events=log)
    runs = [("plain", 0), ("gkd", 0), ("plain", 1), ("gkd", 1)]
    assert [(x["variant"], x["run_seed"]) for x in log.of("done")] == runs
    (tmp_path / "gkd" / "seed-1" / "result.json").unlink()
    again = Recorder()
    second = compare(tmp_path, tiny_world, events=again)
    assert again.of("step") == []
    assert [(x["variant"], x["run_seed"]) for x in again.of("done")] == [("gkd", 1)]
    assert second.to_dict() == first.to_dict()
    more = compare(tmp_path, tiny_world, seeds=(0, 1, 2))
    assert more.values("gkd", "ap")[:2] == first.values("gkd", "ap")
    with pytest.raises(DistilError, match=r"result\.json was made with other settings: choose another folder"):
        compare(tmp_path, tiny_world, {"gkd": tiny_settings(loss="gkd", epochs=2)})


def test_ctrl_c_says_where_it_stopped_and_the_same_call_continues(tmp_path, tiny_world):
    whole = compare(tmp_path / "whole", tiny_world)

    def interrupt(name, **fields):
        if name == "step" and fields["variant"] == "gkd" and fields["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "stopped"
    with pytest.raises(
        Interrupted, match=r"^gkd, seed 0, stopped after step 3 of 4: the same comparison in .* continues"
    ):
        compare(folder, tiny_world, events=interrupt)
    again = compare(folder, tiny_world, events=(log := Recorder()))
    assert log.of("start")[0]["step"] == 3
    for name in ("plain", "gkd"):
        assert again.values(name, "ap") == whole.values(name, "ap")


def test_a_plain_training_of_ones_own_is_the_baseline(tmp_path, tiny_world):
    ways = {"pkd": tiny_settings(loss="pkd", epochs=1), "alone": tiny_settings(epochs=1)}
    assert [each.name for each in compare(tmp_path, tiny_world, ways, seeds=(0,)).variants] == ["alone", "pkd"]


@pytest.mark.parametrize(
    ("ways", "options", "message"),
    [
        ({}, {}, r"nothing to compare: name at least one loss\."),
        (
            {"one": tiny_settings(), "two": tiny_settings(epochs=4)},
            {},
            r"one and two do not have the same budget: epochs is 3 for the first and 4 for the second\. Only",
        ),
        ({"one": tiny_settings()}, {"seeds": ()}, r"seeds is empty: give each seed once, and at least one\."),
        ({"one": tiny_settings()}, {"seeds": (1, 1)}, r"seeds is 1 1: give each seed once"),
    ],
)
def test_unequal_or_empty_comparisons_are_refused(tmp_path, ways, options, message):
    with pytest.raises(DistilError, match=message):
        compare_detectors(
            Architecture("retinanet", "resnet18", CLASSES),
            cells(5),
            squares(),
            squares(6, 7),
            ways,
            measure=from_classes,
            out=tmp_path,
            **options,
        )
    assert not list(Path(tmp_path).iterdir())


def test_a_loss_that_two_detectors_cannot_share_is_refused_before_anything_is_trained(tmp_path, tiny_world):
    ways = {"crosskd": tiny_settings(loss="crosskd", epochs=1)}
    with pytest.raises(DistilError):
        compare(tmp_path, cells(0), ways)
    assert not list(tmp_path.iterdir())


def test_the_architectures_seed_decides_the_first_weights():
    architecture = Architecture("retinanet", "resnet18", CLASSES, channels=32, norm="group", head_convs=1)
    one, same, other = (build_detector(architecture, seed=seed) for seed in (0, 0, 1))
    pairs = zip(one.parameters(), same.parameters(), strict=True)
    assert all(bool((a == b).all()) for a, b in pairs)
    assert any(bool((a != b).any()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("teacher", "test", "named"),
    [(6, squares(6, 7, "others"), "teacher"), (5, squares(6, 8, "others"), "data set")],
)
def test_results_of_another_teacher_or_other_data_are_refused(tmp_path, tiny_world, teacher, test, named):
    ways = {"pkd": tiny_settings(loss="pkd", epochs=1)}
    options = {"measure": from_classes, "seeds": (0,), "out": tmp_path}
    compare_detectors(tiny_world, cells(5), squares(), squares(6, 7, "others"), ways, **options)
    with pytest.raises(DistilError, match=rf"was made with another {named}: choose another folder \(out\)"):
        compare_detectors(tiny_world, cells(teacher), squares(), test, ways, **options)


def test_first_weights_of_every_seed(tmp_path, tiny_world, monkeypatch):
    given = {}
    real = comparison.train_detector

    def train(student, data, settings, *, weights, **options):
        given[settings.method, settings.training.seed] = float(weights["head.weight"].sum())
        return real(student, data, settings, weights=weights, **options)

    monkeypatch.setattr(comparison, "train_detector", train)
    compare(tmp_path, tiny_world, weights=lambda seed: cells(seed + 20).model.state_dict())
    assert given["plain", 0] == given["gkd", 0] != given["gkd", 1]
    with pytest.raises(DistilError, match="was made with another set of first weights"):
        compare(tmp_path, tiny_world, weights=cells(1).model.state_dict())


def changed(result, **fields):
    return json.dumps({**result, **fields})


@pytest.mark.parametrize(
    "damage",
    [
        lambda result: "{",
        lambda result: "[1]",
        lambda result: "[" * 100_000,
        lambda result: changed(result, settings=3),
        lambda result: changed(result, made_for=[]),
        lambda result: changed(result, scores={"ap": "high", "ap50": 1.0}),
        lambda result: changed(result, scores={"ap50": 1.0}),
        lambda result: changed(result, scores={"ap": 1e9, "ap50": 1.0}),
        lambda result: changed(result, seconds=None),
        lambda result: changed(result, seconds=-1),
    ],
)
def test_a_damaged_result_is_told_and_made_again(tmp_path, tiny_world, damage):
    first = compare(tmp_path, tiny_world, seeds=(0,))
    path = tmp_path / "gkd" / "seed-0" / "result.json"
    path.write_text(damage(json.loads(path.read_text())))
    again = compare(tmp_path, tiny_world, seeds=(0,), events=(log := Recorder()))
    assert log.of("step") == []
    (note,) = log.of("note")
    assert str(path) in note["text"]
    assert note["text"].endswith("It is made again from the run beside it.")
    assert again.values("gkd", "ap") == first.values("gkd", "ap")
    assert "scores" in json.loads(path.read_text())


def test_a_result_that_is_no_text_is_told_and_made_again(tmp_path, tiny_world):
    first = compare(tmp_path, tiny_world, seeds=(0,))
    (tmp_path / "plain" / "seed-0" / "result.json").write_bytes(b'{"settings": "\xff"}')
    assert compare(tmp_path, tiny_world, seeds=(0,)).values("plain", "ap") == first.values("plain", "ap")


def test_a_folder_has_one_comparison_at_a_time(tmp_path, tiny_world):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with only_writer(tmp_path):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(60)
    try:
        with pytest.raises(DistilError, match=f"another run is writing to {tmp_path}"):
            compare(tmp_path, tiny_world)
    finally:
        leave.set()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == []


def test_events_tell_which_run_of_how_many(tmp_path, tiny_world):
    compare(tmp_path, tiny_world, events=(log := Recorder()))
    started = [(x["variant"], x["run_seed"], x["run"], x["runs"]) for x in log.of("start")]
    assert started == [("plain", 0, 1, 4), ("gkd", 0, 2, 4), ("plain", 1, 3, 4), ("gkd", 1, 4, 4)]
    judged = [x["what"].removesuffix(" on 6 test images") for x in log.of("preparing") if "test" in x["what"]]
    assert judged == ["plain, seed 0,", "gkd, seed 0,", "plain, seed 1,", "gkd, seed 1,", "the teacher"]
