"""A run that tests kill."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from distil import distil_dataset, open_source, preset
from distil.dataset.config import Response, Uniform


def distil_until_killed(folder: Path) -> None:
    """Windows that are mined anew from time to time; the run is continued where it was killed before."""
    settings: Any = preset("udd-windows", "custom", 1, "published")
    windows = replace(settings.parameterization, refresh=2, windows_start=0.2, policy=Response(3))
    parts = {"sampler": Uniform(8), "networks": replace(settings.networks, samples=16), "parameterization": windows}
    settings = replace(settings, network="convnet2", width=4, outer=12, inner=4, **parts)
    distil_dataset(open_source("digits").train, settings, folder=folder, resume=True, checkpoint_seconds=0.0)
