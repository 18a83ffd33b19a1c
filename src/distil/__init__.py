"""Distil a dataset into a few images a class, or a detector into a smaller one, and evaluate the result fairly.

The public names below are loaded when they are first used, so that `import distil` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil.data.detection.detection_set import DetectionSet
    from distil.data.detection.opener import open_detection
    from distil.data.images.opener import ImageSet, Source, open_source
    from distil.dataset.config import Matching, Selection
    from distil.dataset.distil import distil_dataset
    from distil.dataset.methods import METHODS, preset
    from distil.detector.adapters import adapt
    from distil.detector.comparison import compare_detectors
    from distil.detector.gkd.generation import generate_prototypes
    from distil.detector.gkd.prototypes import PrototypeSet
    from distil.detector.losses.base import DistillationLoss
    from distil.detector.preflight import preflight
    from distil.detector.presets import detector_preset
    from distil.detector.settings import DetectorSettings, DetectorTraining, Distillation
    from distil.detector.training.train import train_detector
    from distil.distilled_set.export import export
    from distil.distilled_set.record import DistilledSet
    from distil.errors import DistilError
    from distil.evaluation.evaluating import evaluate
    from distil.evaluation.evaluator import Scores, evaluate_distilled, evaluate_real
    from distil.evaluation.precision import average_precision
    from distil.evaluation.protocols import PROTOCOLS, Protocol, protocol_for
    from distil.functional.regions import crop_resize, grid_regions
    from distil.networks import build_network
    from distil.networks.detectors import Architecture, build_detector, load_detector, save_detector
    from distil.parameterizations.crops import Crops
    from distil.parameterizations.dct import Dct
    from distil.report.pictures import draw_set
    from distil.rng import stream
    from distil.types import Batch

    __version__: str

__all__ = [
    "METHODS",
    "PROTOCOLS",
    "Architecture",
    "Batch",
    "Crops",
    "Dct",
    "DetectionSet",
    "DetectorSettings",
    "DetectorTraining",
    "DistilError",
    "Distillation",
    "DistillationLoss",
    "DistilledSet",
    "ImageSet",
    "Matching",
    "Protocol",
    "PrototypeSet",
    "Scores",
    "Selection",
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
    "evaluate",
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
    "METHODS": "distil.dataset.methods",
    "PROTOCOLS": "distil.evaluation.protocols",
    "Architecture": "distil.networks.detectors",
    "Batch": "distil.types",
    "Crops": "distil.parameterizations.crops",
    "Dct": "distil.parameterizations.dct",
    "DetectionSet": "distil.data.detection.detection_set",
    "DetectorSettings": "distil.detector.settings",
    "DetectorTraining": "distil.detector.settings",
    "Distillation": "distil.detector.settings",
    "DistillationLoss": "distil.detector.losses.base",
    "DistilError": "distil.errors",
    "DistilledSet": "distil.distilled_set.record",
    "ImageSet": "distil.data.images.opener",
    "Matching": "distil.dataset.config",
    "Protocol": "distil.evaluation.protocols",
    "PrototypeSet": "distil.detector.gkd.prototypes",
    "Scores": "distil.evaluation.evaluator",
    "Selection": "distil.dataset.config",
    "Source": "distil.data.images.opener",
    "adapt": "distil.detector.adapters",
    "average_precision": "distil.evaluation.precision",
    "build_detector": "distil.networks.detectors",
    "build_network": "distil.networks",
    "compare_detectors": "distil.detector.comparison",
    "crop_resize": "distil.functional.regions",
    "detector_preset": "distil.detector.presets",
    "distil_dataset": "distil.dataset.distil",
    "draw_set": "distil.report.pictures",
    "evaluate": "distil.evaluation.evaluating",
    "evaluate_distilled": "distil.evaluation.evaluator",
    "evaluate_real": "distil.evaluation.evaluator",
    "export": "distil.distilled_set.export",
    "generate_prototypes": "distil.detector.gkd.generation",
    "grid_regions": "distil.functional.regions",
    "load_detector": "distil.networks.detectors",
    "open_detection": "distil.data.detection.opener",
    "open_source": "distil.data.images.opener",
    "preflight": "distil.detector.preflight",
    "preset": "distil.dataset.methods",
    "protocol_for": "distil.evaluation.protocols",
    "save_detector": "distil.networks.detectors",
    "stream": "distil.rng",
    "train_detector": "distil.detector.training.train",
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
