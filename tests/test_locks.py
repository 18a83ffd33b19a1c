"""One writer a folder."""

import os
import subprocess
import sys
import threading

import pytest

from distil.errors import DistilError
from distil.locks import LOCK, one_at_a_time, only_writer

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
    with only_writer(tmp_path / "very" / "new"):
        assert (tmp_path / "very" / "new" / LOCK).exists()
    assert not list(tmp_path.iterdir())
    with only_writer(tmp_path / "new"):
        (tmp_path / "new" / "file").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DistilError, match=r"cannot write .*file/x: .*choose another place"),
        only_writer(tmp_path / "file/x"),
    ):
        pass


ADD = """
import sys
from pathlib import Path
from distil.locks import one_at_a_time
path = Path(sys.argv[1])
for _ in range(50):
    with one_at_a_time(path):
        path.write_text(str(int(path.read_text()) + 1))
"""


def test_processes_change_a_file_one_at_a_time(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", ADD, str(path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert path.read_text() == "100"
    assert os.listdir(tmp_path) == ["count"]


def test_a_file_that_others_keep_is_given_up_by_name(tmp_path):
    waited = []

    def enter():
        try:
            with one_at_a_time(tmp_path / "file", seconds=0.1):
                pass
        except DistilError as error:
            waited.append(str(error))

    with one_at_a_time(tmp_path / "file"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert waited[0].startswith(f"cannot write {tmp_path / 'file'}: another process (process {os.getpid()} on ")


def test_the_lock_goes_though_the_working_folder_has_gone(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with only_writer("../run"):
        os.rmdir(tmp_path / "here")
        monkeypatch.chdir(tmp_path)
    assert not list((tmp_path / "run").iterdir())
