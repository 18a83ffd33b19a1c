"""Distil a dataset into a few images a class, and judge the result fairly.

The public names below are loaded when they are first used, so that `import distil` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil.dataset.artifact import DistilledSet
    from distil.dataset.distilling import distil_dataset
    from distil.dataset.export import export
    from distil.errors import DistilError
    from distil.evaluate.judge import Scores, evaluate_distilled, evaluate_real
    from distil.evaluate.protocols import PROTOCOLS, Protocol, protocol_for
    from distil.functional.regions import crop_resize, grid_regions
    from distil.models import build_network
    from distil.presets import METHODS, preset
    from distil.report.pictures import draw_set
    from distil.rng import stream
    from distil.settings import CoresetSettings, MatchingSettings
    from distil.sources import ImageSet, Source, open_source
    from distil.types import Batch

    __version__: str

__all__ = [
    "METHODS",
    "PROTOCOLS",
    "Batch",
    "CoresetSettings",
    "DistilError",
    "DistilledSet",
    "ImageSet",
    "MatchingSettings",
    "Protocol",
    "Scores",
    "Source",
    "build_network",
    "crop_resize",
    "distil_dataset",
    "draw_set",
    "evaluate_distilled",
    "evaluate_real",
    "export",
    "grid_regions",
    "open_source",
    "preset",
    "protocol_for",
    "stream",
]

_MODULES = {
    "METHODS": "distil.presets",
    "PROTOCOLS": "distil.evaluate.protocols",
    "Batch": "distil.types",
    "CoresetSettings": "distil.settings",
    "DistilError": "distil.errors",
    "DistilledSet": "distil.dataset.artifact",
    "ImageSet": "distil.sources",
    "MatchingSettings": "distil.settings",
    "Protocol": "distil.evaluate.protocols",
    "Scores": "distil.evaluate.judge",
    "Source": "distil.sources",
    "build_network": "distil.models",
    "crop_resize": "distil.functional.regions",
    "distil_dataset": "distil.dataset.distilling",
    "draw_set": "distil.report.pictures",
    "evaluate_distilled": "distil.evaluate.judge",
    "evaluate_real": "distil.evaluate.judge",
    "export": "distil.dataset.export",
    "grid_regions": "distil.functional.regions",
    "open_source": "distil.sources",
    "preset": "distil.presets",
    "protocol_for": "distil.evaluate.protocols",
    "stream": "distil.rng",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("distil")
        except PackageNotFoundError:
            return "0 (not installed)"
    if name not in _MODULES:
        raise AttributeError(f"module 'distil' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
