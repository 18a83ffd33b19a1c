"""The memory of a training step, reckoned before it and measured."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distil.detector.adapters import adapt
from distil.detector.memory import Footprint, HeldBytes, footprint
from distil.detector.presets import detector_preset
from distil.fields import with_values
from distil.networks.detectors import Architecture, build_detector

from .tiny import CLASSES, squares

SMALL = Architecture(
    "retinanet", "timm:test_resnet", CLASSES, channels=32, norm="group", head_convs=1, min_size=64, max_size=64
)


def test_bytes_that_are_held_at_once_are_counted():
    with HeldBytes() as held:
        first = torch.ones(1000)
        second = first + 1
        del first
        third = second * second
        second.add_(1)  # in place: nothing new
        view = third[:10]
    assert held.most == 8000
    assert held.now == 8000
    del second, view
    assert held.now == 4000


def test_what_fits():
    needed = Footprint(fixed=100, per_image=30, view=(64, 64))
    assert needed.of(3) == 190
    assert [needed.largest_batch(free) for free in (50, 100, 130, 199)] == [0, 0, 1, 3]


def test_memory_grows_with_the_image_and_with_a_teacher_and_falls_with_precision():
    settings = detector_preset("plain", "scratch")
    data = squares(6)
    one = footprint(SMALL, data, settings)
    assert one.view == (64, 64)
    large = footprint(replace(SMALL, min_size=640, max_size=640), data, settings)
    assert large.view == (640, 640)
    assert 50 < large.per_image / one.per_image < 110  # a hundred times the pixels
    teacher = adapt(build_detector(replace(SMALL, channels=64), seed=1))
    taught = footprint(SMALL, data, detector_preset("gkd", "scratch"), teacher=teacher)
    assert taught.fixed > one.fixed + sum(4 * p.numel() for p in teacher.model.parameters())
    assert taught.per_image > one.per_image
    half = footprint(replace(SMALL, min_size=640, max_size=640), data, with_values(settings, precision="bf16-mixed"))
    assert half.per_image < 0.95 * large.per_image
    assert footprint(SMALL, data, with_values(settings, optimizer="sgd")).fixed < one.fixed


def test_the_optimisers_state_and_gradients_are_counted():
    settings = detector_preset("plain", "scratch")
    weights = sum(p.numel() * 4 for p in build_detector(SMALL, seed=0).parameters())
    # weights, gradients, two of AdamW's state; a checkpoint's copy of three; what a step holds once
    assert 1.2 * 7 * weights < footprint(SMALL, squares(6), settings).fixed < 1.2 * 8.5 * weights


MEASURED = """
import gc, sys, tempfile
from dataclasses import replace
import torch
torch.set_num_threads(1)
from distil.detector.memory import footprint
from distil.detector.training.train import train_detector
from distil.detector.presets import detector_preset
from distil.fields import with_values
from tests.detector.test_footprint import SMALL
from tests.detector.tiny import squares
settings = with_values(detector_preset("plain", "scratch"), epochs=1, batch=8)
large = replace(SMALL, detector=sys.argv[1], channels=64, min_size=320, max_size=320)
needed = footprint(large, squares(16), settings).of(8)
train_detector(SMALL, squares(4), with_values(settings, batch=2), out=tempfile.mkdtemp())  # libraries are loaded
gc.collect()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is forgotten
def told(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
before = told("VmRSS")
train_detector(large, squares(16), settings, out=tempfile.mkdtemp())
print(needed, told("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process cannot be reset")
@pytest.mark.slow
@pytest.mark.parametrize("detector", ["retinanet", "faster-rcnn"])
def test_the_estimate_is_near_what_a_step_takes(detector):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURED, detector]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    needed, taken = map(int, done.stdout.split())
    assert taken > 100 * 2**20
    print(needed, taken)
    assert 1 / 1.5 < needed / taken < 1.5
