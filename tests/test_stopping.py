"""Signals that ask a run to stop."""

import os
import signal

import pytest

from distil.stopping import STOPPING, stop_requests


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
