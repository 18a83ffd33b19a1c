"""A distillation loss of your own: the student learns where the teacher's features are strong.

Run it with `python examples/own_detector_loss.py FOLDER`; it takes about half a minute on a CPU.
"""

import sys
from pathlib import Path

from torch import Tensor

from distil import (
    Architecture,
    DetectorSettings,
    DetectorTraining,
    adapt,
    build_detector,
    open_detection,
    train_detector,
)
from distil.detector.adapters import DetectorAdapter, common_levels
from distil.detector.losses.base import DistillationLoss, TrainingContext
from distil.types import Trace, View


class AttentionTransfer(DistillationLoss):
    """Mean over levels of mean (q^s - q^t)^2, q a level's mean square over channels, divided by its mean over cells.

    Source: Zagoruyko and Komodakis 2017, on the levels that both pyramids have.
    """

    name = "attention"

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        self.levels = common_levels(student.strides, teacher.strides)

    def before_epoch(self, context: TrainingContext) -> None:
        self.last_epoch = context.epoch

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        gaps = [
            (strength(student.pyramid[own]) - strength(teacher.pyramid[other])).square().mean()
            for own, other in self.levels
        ]
        return {"attention": sum(gaps[1:], gaps[0]) / len(gaps)}


def strength(maps: Tensor) -> Tensor:
    squares = maps.float().square().mean(1)
    return squares / squares.mean((1, 2), keepdim=True).clamp_min(1e-12)


def small(classes: tuple[str, ...], backbone: str) -> Architecture:
    sizes = {"min_size": 64, "max_size": 64, "anchor": 12.0}
    return Architecture("retinanet", backbone, classes, channels=32, norm="group", head_convs=1, **sizes)


def main(folder: Path) -> Path:
    data = open_detection("scenes").train.subset(range(8))
    settings = DetectorSettings(training=DetectorTraining(epochs=1, batch=4, lr=0.002, clip=1.0, validation=0.0))
    teacher = adapt(build_detector(small(data.classes, "timm:test_resnet"), seed=1))
    student = small(data.classes, "timm:test_resnet")
    return train_detector(student, data, settings, out=folder, teacher=teacher, losses=[AttentionTransfer(weight=0.5)])


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
