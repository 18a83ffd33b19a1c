import io

import pytest
from rich.console import Console

from distil.report import progress
from distil.report.progress import Pace, both, clock, show_progress


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets."""
    value = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: value[0])
    return value


def test_plain_lines_now_and_then(now):
    text = io.StringIO()
    with show_progress("idc on digits", console=Console(file=text), every_seconds=10) as events:
        events("start", step=0, steps=100)
        for step in range(1, 41):
            now[0] = float(step)
            events("step", step=step, steps=100, loss=1 / step, mined=0.5)
        events("checkpoint", step=40)
        events("validation", step=40, accuracy=51.26)
        events("done", step=100)
        events("done", step=100)
    assert text.getvalue().splitlines() == [
        "idc on digits: step 0 of 100",
        "idc on digits: step 10 of 100, loss 0.1, 1:30 left",
        "idc on digits: step 20 of 100, loss 0.05, 1:20 left",
        "idc on digits: step 30 of 100, loss 0.03333, 1:10 left",
        "idc on digits: step 40 of 100, loss 0.025, 1:00 left",
        "idc on digits: step 40 of 100, loss 0.025, validation 51.3%, 1:00 left",
        "idc on digits: step 100 of 100, loss 0.025, validation 51.3%",
    ]


def test_the_time_left_of_a_resumed_run_counts_its_own_steps(now):
    text = io.StringIO()
    with show_progress("idc", console=Console(file=text), every_seconds=10) as events:
        events("start", step=900, steps=1000)
        now[0] = 20
        events("step", step=910, steps=1000)
    assert text.getvalue().splitlines()[-1] == "idc: step 910 of 1000, 3:00 left"


def test_each_network_of_the_judge_is_a_step(now):
    text = io.StringIO()
    with show_progress("idc on digits", unit="network", console=Console(file=text)) as events:
        events("start", steps=2)
        events("evaluate", network="vit", run=0, accuracy=12.34)
        events("evaluate", network="vit", run=1, accuracy=56.78)
    assert text.getvalue().splitlines() == [
        "idc on digits: network 0 of 2",
        "idc on digits: network 1 of 2, vit 12.3%, 0:00 left",
        "idc on digits: network 2 of 2, vit 56.8%",
    ]


def test_a_run_without_steps():
    text = io.StringIO()
    with show_progress("random on digits", console=Console(file=text)) as events:
        events("start", steps=0)
        events("done", step=0)
    assert text.getvalue() == "random on digits\n"


def test_a_bar_on_a_terminal():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    with show_progress("idc on digits", console=console) as events:
        events("start", step=0, steps=4)
        events("windows", step=1)
        events("step", step=3, steps=4, loss=0.5)
        events("validation", step=3, accuracy=50.0)
    assert "idc on digits" in text.getvalue()
    assert "3/4" in text.getvalue()
    assert "loss 0.5, validation 50.0%" in text.getvalue()


def test_both_passes_every_event_on_in_order():
    seen = []

    events = both(
        lambda name, **fields: seen.append(("a", name, fields)), lambda name, **fields: seen.append(("b", name, fields))
    )

    events("step", step=1)
    assert seen == [("a", "step", {"step": 1}), ("b", "step", {"step": 1})]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36061, "10:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_average_precision_is_shown_where_there_is_one(now):
    text = io.StringIO()
    with show_progress("gkd on cells", console=Console(file=text)) as events:
        events("validation", step=3, steps=9, ap=41.25, ap50=80.0)
        events("validation", step=6, steps=9, ap=None, ap50=None)
    assert text.getvalue() == "gkd on cells: step 3 of 9, AP 41.2%\ngkd on cells: step 6 of 9, AP 41.2%, 0:00 left\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_of_several_runs_the_present_one_is_shown(now, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200)
    with show_progress("students", console=console) as events:
        events("start", step=0, steps=100)
        now[0] = 1000.0
        events("step", step=100, steps=100, loss=2.0)
        events("validation", step=100, ap=41.0)
        events("start", step=0, steps=100)
        now[0] = 1030.0
        events("step", step=10, steps=100, loss=3.0)
    last = [line for line in text.getvalue().splitlines() if "loss 3" in line][-1]
    assert ("10/100" if terminal else "10 of 100") in last
    assert "AP" not in last
    assert "16:40" not in last
    assert terminal or "4:30 left" in last


def test_what_is_prepared_is_shown_and_does_not_count_as_steps(now):
    """A recipe whose every 10 steps of 1 s wait for networks that take 30 s: 4 times 40 s in all."""
    text = io.StringIO()
    with show_progress("idc", console=Console(file=text), every_seconds=10) as events:
        events("preparing", what="opening photos")
        events("start", step=0, steps=40)
        for second in range(5, 25, 5):
            now[0] = second
            events("preparing", what="training the proxy network", unit="update", done=second, of=20)
        for step in range(40):
            if step % 10 == 0:
                for network in range(1, 4):
                    now[0] += 10
                    events("preparing", what="preparing networks", unit="network", done=network, of=3, every=10)
            now[0] += 1
            events("step", step=step + 1, steps=40, loss=1.0)
    lines = text.getvalue().splitlines()
    assert lines[:6] == [
        "idc: opening photos",
        "idc: step 0 of 40",
        "idc: training the proxy network: update 5 of 20",
        "idc: training the proxy network: update 15 of 20",
        "idc: preparing networks: network 1 of 3",
        "idc: preparing networks: network 2 of 3",
    ]
    assert "idc: step 10 of 40, loss 1, 2:00 left" in lines
    assert "idc: step 30 of 40, loss 1, 0:40 left" in lines
    assert not [line for line in lines if line.startswith("idc: step 0") and "left" in line]


def pace_of(*events):
    pace, at = Pace(), 0.0
    for name, step, took in events:
        at += took
        pace.read(name, {}, step, at)
    return pace


def test_the_first_step_does_not_tell_how_long_the_others_take():
    first = [("start", 0, 0.0), ("step", 1, 300.0)]
    assert pace_of(*first).left(2000) is None
    assert pace_of(*first, ("step", 2, 1.0)).left(2000) == pytest.approx(1998)
    assert pace_of(*first).left(5) == pytest.approx(1200)  # of so few steps the first is much


def test_recent_steps_tell():
    slow = [("start", 0, 0.0)] + [("step", step, 10.0) for step in range(1, 21)]
    fast = [("step", step, 1.0) for step in range(21, 91)]
    assert pace_of(*slow).left(100) == pytest.approx(800)
    assert pace_of(*slow, *fast).left(100) == pytest.approx(10)


def test_validations_are_spread_over_the_steps():
    run = [("start", 0, 0.0)]
    for step in range(1, 51):
        run.append(("step", step, 1.0))
        if step % 25 == 0:
            run.append(("validation", step, 20.0))
    assert pace_of(*run).left(100) == pytest.approx(50 + 2 * 20)


def test_nothing_is_told_of_what_is_done_or_unknown():
    assert pace_of(("start", 0, 0.0)).left(100) is None
    assert pace_of(("start", 0, 0.0), ("step", 5, 1.0)).left(None) is None
    assert pace_of(("start", 0, 0.0), ("step", 5, 1.0)).left(5) is None


def test_the_bar_shows_what_is_prepared_and_waits_for_the_first_event():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    with show_progress("idc", console=console):
        pass
    assert "idc" not in text.getvalue()
    with show_progress("idc", console=console) as events:
        events("preparing", what="opening photos")
        events("start", step=0, steps=40)
        events("preparing", what="training the proxy network", unit="update", done=300, of=1000)
    assert "idc: training the proxy network" in text.getvalue()
    assert "300/1000" in text.getvalue()
