"""Signals that ask a run to stop."""

import os
import signal

import pytest

from distil.stopping import STOPPING, number_of, signals_interrupt, stop_requests


@pytest.mark.parametrize("number", STOPPING)
def test_a_stop_request_is_remembered(number):
    before = signal.getsignal(number)
    with stop_requests() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        if number != signal.SIGINT:
            os.kill(os.getpid(), number)  # schedulers repeat theirs
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_interrupts(first):
    with stop_requests() as asked:
        os.kill(os.getpid(), first)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_hang_up_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_signal_is_told():
    with stop_requests() as asked:
        assert asked.number is None
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert asked.number == signal.SIGTERM


OTHERS = [number for number in STOPPING if number != signal.SIGINT]


@pytest.mark.parametrize("number", OTHERS)
def test_a_signal_interrupts_once_and_repeats_do_not_disturb_the_cleaning_up(number):
    before = signal.getsignal(number)
    cleaned = False
    with signals_interrupt():
        with pytest.raises(KeyboardInterrupt) as stop:
            os.kill(os.getpid(), number)
        for again in OTHERS:
            os.kill(os.getpid(), again)
        cleaned = True
    assert cleaned
    assert number_of(stop.value) == number
    assert number_of(KeyboardInterrupt()) == signal.SIGINT
    assert signal.getsignal(number) is before
