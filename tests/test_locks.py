"""One writer a folder."""

import os
import subprocess
import sys
import threading

import pytest

from distil.errors import DistilError
from distil.locks import LOCK, only_writer

HOLD = """
import sys
from distil.locks import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_name_until_the_first_has_died(tmp_path):
    process = hold(tmp_path)
    message = rf"another run is writing to {tmp_path} \(process {process.pid} on .*\): wait until it ends, stop it, or"
    with pytest.raises(DistilError, match=message), only_writer(tmp_path):
        pass
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK).exists()
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())


def test_the_holder_may_enter_again_and_another_thread_may_not(tmp_path):
    refused = []

    def enter():
        try:
            with only_writer(tmp_path):
                pass
        except DistilError as error:
            refused.append(error)

    with only_writer(tmp_path):
        with only_writer(tmp_path / "."):
            pass
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(refused) == 1
    enter()
    assert len(refused) == 1


def test_a_folder_is_made_and_one_that_cannot_be_is_named(tmp_path):
    with only_writer(tmp_path / "new"):
        assert (tmp_path / "new" / LOCK).exists()
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DistilError, match=r"cannot write .*file/x: .*Choose another folder"),
        only_writer(tmp_path / "file/x"),
    ):
        pass
