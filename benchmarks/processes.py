"""The time of two processes against one, and whether their sets have the same bytes: IDC and UDD by the fast recipe.

    python benchmarks/processes.py --out benchmarks/results/processes.json

Ten classes of made-up images of 32 x 32 pixels: the time does not depend on what they show. Every process has one
thread; starting torch is not counted. Of several rounds the shortest counts. processor_seconds: of the process that
needed most; where others use the cores, its ratio says what the seconds' could be without them.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distil import distil_dataset, preset
from distil.data.images.image_set import ImageSet
from distil.memory import freed_memory_kept
from distil.processes import is_first, joined

SETTINGS = {"outer": 2, "inner": 4, "width": 32}


def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        images=torch.randint(0, 256, (2000, 3, 32, 32), generator=generator, dtype=torch.uint8),
        labels=torch.arange(10).repeat_interleave(200),
        classes=tuple("0123456789"),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        name="made up",
    )


def timed(method: str, reuse: int) -> None:
    """Make a set in the processes there are; the first prints seconds and the hash of the stored numbers."""
    torch.set_num_threads(1)
    settings: Any = preset(method, "cifar10", 1, "fast")
    settings = replace(settings, bfloat16="none", target_reuse=reuse, validation=0.0, **SETTINGS)
    if method == "udd":
        policy = replace(settings.parameterization.policy, proxy_steps=2)
        settings = replace(settings, parameterization=replace(settings.parameterization, policy=policy, bits=32))
    real, processes = images(), joined("cpu")
    began, used = time.monotonic(), time.process_time()
    with freed_memory_kept():  # as the command line does
        made = distil_dataset(real, settings)
    seconds, used = time.monotonic() - began, max(processes.every(time.process_time() - used))
    if is_first():
        stored = hashlib.sha256(made.params.contiguous().numpy().tobytes()).hexdigest()
        print(json.dumps({"seconds": round(seconds, 2), "processor_seconds": round(used, 2), "stored": stored}))


def measured(method: str, reuse: int, count: int) -> dict[str, Any]:
    """What `timed` prints in so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__).absolute()), "--method", method, "--reuse", str(reuse)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="The time of two processes against one.")
    parser.add_argument("--method", help="measure this one in the processes there are")
    parser.add_argument("--reuse", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.method:
        timed(args.method, args.reuse)
        return
    rows = []
    for method, reuse in (("idc", 5), ("idc", 1), ("udd", 5)):
        runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
        for _ in range(args.rounds):  # in turns, since the machine's load changes
            for count, found in runs.items():
                found.append(measured(method, reuse, count))
        stored = {run["stored"] for found in runs.values() for run in found}
        least = {count: min(run["seconds"] for run in found) for count, found in runs.items()}
        used = {count: min(run["processor_seconds"] for run in found) for count, found in runs.items()}
        row = {"method": method, "target_reuse": reuse, **SETTINGS, "bytes_equal": len(stored) == 1}
        row |= {"seconds": least, "ratio": round(least[1] / least[2], 2)}
        row |= {"processor_seconds": used, "processor_ratio": round(used[1] / used[2], 2)}
        row |= {"load": [round(x, 1) for x in os.getloadavg()]}
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.out:
        machine = {"cores": os.cpu_count(), "system": platform.machine(), "torch": torch.__version__}
        args.out.write_text(json.dumps({"machine": machine, "rounds": args.rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
