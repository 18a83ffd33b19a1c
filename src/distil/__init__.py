"""Distil a dataset into a few images a class, or a detector into a smaller one, and judge the result fairly.

The public names below are loaded when they are first used, so that `import distil` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil.dataset.artifact import DistilledSet
    from distil.dataset.distilling import distil_dataset
    from distil.dataset.export import export
    from distil.detector.adapters import adapt
    from distil.detector.comparing import compare_detectors
    from distil.detector.preflight import preflight
    from distil.detector.prototypes import PrototypeSet, generate_prototypes
    from distil.detector.training import train_detector
    from distil.detector_presets import detector_preset
    from distil.errors import DistilError
    from distil.evaluate.judge import Scores, evaluate_distilled, evaluate_real
    from distil.evaluate.precision import average_precision
    from distil.evaluate.protocols import PROTOCOLS, Protocol, protocol_for
    from distil.functional.regions import crop_resize, grid_regions
    from distil.models import build_network
    from distil.models.detectors import Architecture, build_detector, load_detector, save_detector
    from distil.presets import METHODS, preset
    from distil.report.pictures import draw_set
    from distil.rng import stream
    from distil.settings import CoresetSettings, DetectorSettings, MatchingSettings
    from distil.sources import ImageSet, Source, open_source
    from distil.sources.detection import DetectionSet, open_detection
    from distil.types import Batch

    __version__: str

__all__ = [
    "METHODS",
    "PROTOCOLS",
    "Architecture",
    "Batch",
    "CoresetSettings",
    "DetectionSet",
    "DetectorSettings",
    "DistilError",
    "DistilledSet",
    "ImageSet",
    "MatchingSettings",
    "Protocol",
    "PrototypeSet",
    "Scores",
    "Source",
    "adapt",
    "average_precision",
    "build_detector",
    "build_network",
    "compare_detectors",
    "crop_resize",
    "detector_preset",
    "distil_dataset",
    "draw_set",
    "evaluate_distilled",
    "evaluate_real",
    "export",
    "generate_prototypes",
    "grid_regions",
    "load_detector",
    "open_detection",
    "open_source",
    "preflight",
    "preset",
    "protocol_for",
    "save_detector",
    "stream",
    "train_detector",
]

_MODULES = {
    "METHODS": "distil.presets",
    "PROTOCOLS": "distil.evaluate.protocols",
    "Architecture": "distil.models.detectors",
    "Batch": "distil.types",
    "CoresetSettings": "distil.settings",
    "DetectionSet": "distil.sources.detection",
    "DetectorSettings": "distil.settings",
    "DistilError": "distil.errors",
    "DistilledSet": "distil.dataset.artifact",
    "ImageSet": "distil.sources",
    "MatchingSettings": "distil.settings",
    "Protocol": "distil.evaluate.protocols",
    "PrototypeSet": "distil.detector.prototypes",
    "Scores": "distil.evaluate.judge",
    "Source": "distil.sources",
    "adapt": "distil.detector.adapters",
    "average_precision": "distil.evaluate.precision",
    "build_detector": "distil.models.detectors",
    "build_network": "distil.models",
    "compare_detectors": "distil.detector.comparing",
    "crop_resize": "distil.functional.regions",
    "detector_preset": "distil.detector_presets",
    "distil_dataset": "distil.dataset.distilling",
    "draw_set": "distil.report.pictures",
    "evaluate_distilled": "distil.evaluate.judge",
    "evaluate_real": "distil.evaluate.judge",
    "export": "distil.dataset.export",
    "generate_prototypes": "distil.detector.prototypes",
    "grid_regions": "distil.functional.regions",
    "load_detector": "distil.models.detectors",
    "open_detection": "distil.sources.detection",
    "open_source": "distil.sources",
    "preflight": "distil.detector.preflight",
    "preset": "distil.presets",
    "protocol_for": "distil.evaluate.protocols",
    "save_detector": "distil.models.detectors",
    "stream": "distil.rng",
    "train_detector": "distil.detector.training",
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
