"""DD-Ranking: its arithmetic by hand and against the package, and which networks it trains."""

import ast
from importlib.util import find_spec
from math import e, exp
from pathlib import Path

import numpy as np
import pytest

from distil.evaluation.labels import HARD, Labels
from distil.evaluation.ranking import Ranking, parts, rank, ranking_of, ranking_table, score_of

from .conftest import PLAIN, distilled_set, image_set

GIVEN = Ranking(
    real_hard=(0.84, 0.80),
    hard=(0.44, 0.40),
    own=(0.64, 0.60),
    random=(0.44, 0.50),
    own_plain=(0.3,) * 2,
    random_plain=(0.4,) * 2,
)


def test_the_scores_worked_by_hand():
    assert GIVEN.hlr == pytest.approx((0.4, 0.4))
    assert GIVEN.ior == pytest.approx((0.2, 0.1))
    assert GIVEN.lrs == pytest.approx([(exp(-0.1) - 1 / e) / (e - 1 / e), (exp(-0.15) - 1 / e) / (e - 1 / e)])
    assert GIVEN.lrs == pytest.approx((0.228454, 0.209678), abs=1e-6)
    assert GIVEN.ars == pytest.approx((score_of(0.05), score_of(0.0)))
    assert (score_of(-1), score_of(1), score_of(0)) == pytest.approx((0, 1, 1 / (1 + e)))
    told = GIVEN.to_dict()
    assert told["ior"]["mean"] == pytest.approx(0.15)
    assert told["ior"]["runs"] == pytest.approx([0.2, 0.1])


def assigned(folder, file, name):
    """What `compute_metrics` in a file of the package gives a name, as a compiled expression."""
    tree = ast.parse((folder / file).read_text())
    found = [
        node.value
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "compute_metrics"
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return compile(ast.Expression(found[0]), name, "eval")


def test_the_arithmetic_is_that_of_the_package():
    if (spec := find_spec("ddranking")) is None or spec.origin is None:
        pytest.skip("ddranking is not installed")
    metrics = Path(spec.origin).parent / "metrics"  # its lines alone: importing it needs more than torch
    for run in (0, 1):
        names: dict = {
            "np": np,
            "full_data_hard_label_acc": GIVEN.real_hard[run],
            "syn_data_hard_label_acc": GIVEN.hard[run],
            "syn_data_soft_label_acc": GIVEN.own[run],
            "random_data_soft_label_acc": GIVEN.random[run],
            "syn_data_with_aug_acc": GIVEN.own[run],
            "random_data_with_aug_acc": GIVEN.random[run],
            "syn_data_without_aug_acc": GIVEN.own_plain[run],
            "random_data_without_aug_acc": GIVEN.random_plain[run],
            "lrs_lambda": 0.5,
            "ars_lambda": 0.5,
        }
        for file, wanted in (
            ("soft_label.py", ("hlr", "ior", "alpha", "lrs")),
            ("aug_robust.py", ("with_aug_score", "without_aug_score", "beta", "ars")),
        ):
            for name in wanted:
                names[name] = eval(assigned(metrics, file, name), names)
        for name in ("hlr", "ior", "lrs", "ars"):
            assert getattr(GIVEN, name)[run] == pytest.approx(names[name])


def test_evaluations_that_are_the_same_are_done_once(monkeypatch):
    from distil.evaluation import evaluator

    trained = []
    train = evaluator.train_together
    monkeypatch.setattr(evaluator, "train_together", lambda *a, **k: trained.append(a[3].name) or train(*a, **k))
    options = {"networks": ("convnet1",), "width": 4, "runs": 2}
    ranked = rank(distilled_set(), image_set(30), image_set(30, seed=1), PLAIN, own=HARD, random=HARD, **options)
    assert trained == ["plain"] * 6 + ["plain without augmentation"] * 4
    (one,) = ranked.values()
    assert one.own == one.hard
    assert all(0 <= x <= 1 for x in (*one.lrs, *one.ars))
    soft = parts(PLAIN, Labels("stored"), Labels("stored"))
    assert len({part.key() for part in soft.values()}) == 6
    assert (soft["own_plain"].protocol.strategy, soft["own_plain"].protocol.cutmix) == ("none", 0.0)


def test_the_table_has_percent_and_points():
    from rich.console import Console

    percent = {name: {"vit": [100 * x for x in getattr(GIVEN, name)]} for name in parts(PLAIN, HARD, HARD)}
    console = Console(width=120)
    with console.capture() as capture:
        console.print(ranking_table(ranking_of(percent)))
    text = capture.get()
    for line in (
        "HLR, hard label recovery: what is missing (points; less is better) │ 40.0 ± 0.0",
        "(points) │ 15.0 ± 7.1",
    ):
        assert " ".join(line.split()) in " ".join(text.split())
