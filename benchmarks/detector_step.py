"""Processor seconds of a detector's training, with freed memory kept and without: 48 steps of a RetinaNet on 64 scenes.

    python benchmarks/detector_step.py kept
    python benchmarks/detector_step.py plain

One number each; run them in turns. What is compared with version 0.1, whose library kept freed memory by itself, is in
results/step-parts.json.
"""

import sys
import tempfile
import time
from contextlib import nullcontext

import torch

from distil import Architecture, adapt, build_detector, detector_preset, open_detection, train_detector
from distil.detector.presets import student_preset
from distil.fields import with_values
from distil.memory import freed_memory_kept


def main(how: str) -> None:
    torch.set_num_threads(1)
    data = open_detection("scenes:64").train
    large, small = (
        Architecture(classes=data.classes, **student_preset("retinanet", "scenes", teacher=teacher))
        for teacher in (True, False)
    )
    settings = with_values(detector_preset("gkd", "scenes"), epochs=12, loss="gkd,pkd=0.05", validation=0.0)
    teacher = adapt(build_detector(large, seed=1))
    with tempfile.TemporaryDirectory() as folder, freed_memory_kept() if how == "kept" else nullcontext():
        began = time.process_time()
        train_detector(small, data, settings, out=folder, teacher=teacher)
        print(f"{time.process_time() - began:.2f}")


if __name__ == "__main__":
    if sys.argv[1:] not in (["kept"], ["plain"]):
        raise SystemExit(__doc__)
    main(sys.argv[1])
