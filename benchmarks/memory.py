"""What a detector's training step takes of memory, beside what `distil detector train` reckons before it.

    python benchmarks/memory.py coco:data/bccd

Each case runs in a process of its own, after a step on small images so that libraries are loaded. Taken: the growth of
the resident memory's peak over a few steps on one thread (Linux). Writes benchmarks/results/memory.json and prints a
Markdown table.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

from distil.networks.backbones import Norm
from distil.networks.detectors import Kind

RESULT = Path(__file__).parent / "results" / "memory.json"
CASES: dict[str, tuple[Literal["scratch", "custom"], Kind, Norm, int, int]] = {
    "resnet10t, Faster R-CNN, 8 images": ("scratch", "faster-rcnn", "group", 8, 3),
    "resnet10t, RetinaNet, 8 images": ("scratch", "retinanet", "group", 8, 3),
    "resnet10t, FCOS, 4 images": ("scratch", "fcos", "group", 4, 3),
    "ResNet-50, frozen norms, RetinaNet, 1 image": ("custom", "retinanet", "frozen", 1, 1),
    "ResNet-50, group norms, Faster R-CNN, 1 image": ("custom", "faster-rcnn", "group", 1, 1),
}
"""Preset (scratch: random weights, sizes from the data; custom: the published sizes), detector, norm, batch, steps."""


def measured(source: str, case: str) -> dict[str, float]:
    """MiB reckoned and taken, and height and width of the padded images."""
    import torch

    from distil.data.detection.opener import open_detection
    from distil.detector.memory import footprint
    from distil.detector.presets import detector_preset, student_preset
    from distil.detector.sizes import sizes_for
    from distil.detector.training.train import train_detector
    from distil.fields import with_values
    from distil.networks.detectors import Architecture

    torch.set_num_threads(1)
    preset, detector, norm, batch, steps = CASES[case]
    data = open_detection(source).train
    settings = with_values(detector_preset("plain", preset), epochs=1, batch=batch, lr=1e-6)
    if preset == "scratch":
        values = student_preset(detector, "scratch", teacher=True) | sizes_for(data, detector)
        architecture = Architecture(classes=data.classes, **values)
    else:
        architecture = Architecture(detector=detector, backbone="resnet50", classes=data.classes, norm=norm)
    reckoned = footprint(architecture, data, settings)
    small = replace(architecture, min_size=64, max_size=64)
    train_detector(small, data.subset(range(2)), with_values(settings, batch=1), out=tempfile.mkdtemp())
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _of_process("VmRSS")
    train_detector(architecture, data.subset(range(steps * batch)), settings, out=tempfile.mkdtemp())
    return {
        "height": reckoned.view[0],
        "width": reckoned.view[1],
        "reckoned": round(reckoned.of(batch) / 2**20),
        "taken": round((_of_process("VmHWM") - before) / 2**20),
    }


def _of_process(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def table(rows: dict[str, dict[str, float]]) -> str:
    lines = ["| | pixels | reckoned | taken | |", "|---|---|---:|---:|---:|"]
    for case, row in rows.items():
        ratio = row["reckoned"] / row["taken"]
        lines.append(
            f"| {case} | {row['height']} x {row['width']} | {row['reckoned']} | {row['taken']} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="data with boxes, as coco:FOLDER")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measured(options.source, options.case)))
        return
    rows = {}
    for case in CASES:
        words = [sys.executable, __file__, options.source, "--case", case]
        rows[case] = json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        print(case, rows[case], flush=True)
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
