"""Distil a dataset into a few images a class, or a detector into a smaller one, and evaluate the result fairly.

The public names below are loaded when they are first used, so that `import distil` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil.data.detection.detection_set import DetectionSet
    from distil.data.detection.opener import open_detection
    from distil.data.images.opener import ImageSet, Source, open_source
    from distil.dataset.config import Matching, Selection, Trajectory
    from distil.dataset.distil import distil_dataset
    from distil.dataset.experts import train_experts
    from distil.dataset.methods import METHODS, preset
    from distil.detector.adapters import adapt
    from distil.detector.comparison import compare_detectors
    from distil.detector.gkd.generation import generate_prototypes
    from distil.detector.gkd.loss import GlobalKnowledge
    from distil.detector.gkd.prototypes import PrototypeSet
    from distil.detector.losses.base import DistillationLoss
    from distil.detector.losses.crosskd import CrossKD
    from distil.detector.losses.defeat import DeFeat
    from distil.detector.losses.fgd import FGD
    from distil.detector.losses.mgd import MGD
    from distil.detector.losses.mse import FeatureMSE
    from distil.detector.losses.pkd import PKD
    from distil.detector.losses.response import ResponseKL
    from distil.detector.preflight import preflight
    from distil.detector.presets import detector_preset
    from distil.detector.settings import (
        DetectorSettings,
        DetectorTraining,
        Distillation,
        GlobalSettings,
        PrototypeSettings,
    )
    from distil.detector.training.train import train_detector
    from distil.distilled_set.export import export
    from distil.distilled_set.labeling import labeled_by
    from distil.distilled_set.record import DistilledSet
    from distil.errors import DistilError
    from distil.evaluation.evaluating import evaluate
    from distil.evaluation.evaluator import Scores, evaluate_distilled, evaluate_real
    from distil.evaluation.labels import Labels
    from distil.evaluation.precision import average_precision
    from distil.evaluation.protocols import PROTOCOLS, Protocol, protocol_for
    from distil.evaluation.ranking import rank
    from distil.functional.regions import crop_resize, grid_regions
    from distil.networks import build_network
    from distil.networks.classifier_files import open_classifier, open_ensemble, save_classifier
    from distil.networks.classifiers import Classifier, Ensemble
    from distil.networks.detectors import Architecture, build_detector, load_detector, save_detector
    from distil.parameterizations.crops import Crops
    from distil.parameterizations.dct import Dct
    from distil.report.pictures import draw_set
    from distil.rng import stream
    from distil.types import Batch

    __version__: str

__all__ = [
    "FGD",
    "METHODS",
    "MGD",
    "PKD",
    "PROTOCOLS",
    "Architecture",
    "Batch",
    "Classifier",
    "Crops",
    "CrossKD",
    "Dct",
    "DeFeat",
    "DetectionSet",
    "DetectorSettings",
    "DetectorTraining",
    "DistilError",
    "Distillation",
    "DistillationLoss",
    "DistilledSet",
    "Ensemble",
    "FeatureMSE",
    "GlobalKnowledge",
    "GlobalSettings",
    "ImageSet",
    "Labels",
    "Matching",
    "Protocol",
    "PrototypeSet",
    "PrototypeSettings",
    "ResponseKL",
    "Scores",
    "Selection",
    "Source",
    "Trajectory",
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
    "labeled_by",
    "load_detector",
    "open_classifier",
    "open_detection",
    "open_ensemble",
    "open_source",
    "preflight",
    "preset",
    "protocol_for",
    "rank",
    "save_classifier",
    "save_detector",
    "stream",
    "train_detector",
    "train_experts",
]

_MODULES = {
    "Architecture": "distil.networks.detectors",
    "Batch": "distil.types",
    "Classifier": "distil.networks.classifiers",
    "Crops": "distil.parameterizations.crops",
    "CrossKD": "distil.detector.losses.crosskd",
    "Dct": "distil.parameterizations.dct",
    "DeFeat": "distil.detector.losses.defeat",
    "DetectionSet": "distil.data.detection.detection_set",
    "DetectorSettings": "distil.detector.settings",
    "DetectorTraining": "distil.detector.settings",
    "DistilError": "distil.errors",
    "Distillation": "distil.detector.settings",
    "DistillationLoss": "distil.detector.losses.base",
    "DistilledSet": "distil.distilled_set.record",
    "Ensemble": "distil.networks.classifiers",
    "FGD": "distil.detector.losses.fgd",
    "FeatureMSE": "distil.detector.losses.mse",
    "GlobalKnowledge": "distil.detector.gkd.loss",
    "GlobalSettings": "distil.detector.settings",
    "ImageSet": "distil.data.images.opener",
    "Labels": "distil.evaluation.labels",
    "METHODS": "distil.dataset.methods",
    "MGD": "distil.detector.losses.mgd",
    "Matching": "distil.dataset.config",
    "PKD": "distil.detector.losses.pkd",
    "PROTOCOLS": "distil.evaluation.protocols",
    "Protocol": "distil.evaluation.protocols",
    "PrototypeSet": "distil.detector.gkd.prototypes",
    "PrototypeSettings": "distil.detector.settings",
    "ResponseKL": "distil.detector.losses.response",
    "Scores": "distil.evaluation.evaluator",
    "Selection": "distil.dataset.config",
    "Source": "distil.data.images.opener",
    "Trajectory": "distil.dataset.config",
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
    "labeled_by": "distil.distilled_set.labeling",
    "load_detector": "distil.networks.detectors",
    "open_classifier": "distil.networks.classifier_files",
    "open_detection": "distil.data.detection.opener",
    "open_ensemble": "distil.networks.classifier_files",
    "open_source": "distil.data.images.opener",
    "preflight": "distil.detector.preflight",
    "preset": "distil.dataset.methods",
    "protocol_for": "distil.evaluation.protocols",
    "rank": "distil.evaluation.ranking",
    "save_classifier": "distil.networks.classifier_files",
    "save_detector": "distil.networks.detectors",
    "stream": "distil.rng",
    "train_detector": "distil.detector.training.train",
    "train_experts": "distil.dataset.experts",
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
