"""Class responses of the two detectors on the same instances."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax

from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.distributed import shared
from distil.detector.losses.maps import full_precision
from distil.errors import DistilError
from distil.types import Trace, View


def comparable(student: Trace, teacher: Trace) -> None:
    """See that both traces hold class logits of the same instances over the same classes.

    Raises: DistilError when their activations or shapes differ.
    """
    if student.activation != teacher.activation:
        raise DistilError(
            f"the student's classes end in a {student.activation} and the teacher's in a {teacher.activation}: their "
            "responses cannot be compared. Use a teacher of the student's kind, or losses on features alone "
            "(gkd with soft_weight 0, pkd, fgd)"
        )
    if student.logits.shape != teacher.logits.shape:
        raise DistilError(
            f"the student gives class logits of shape {tuple(student.logits.shape)} (instances, columns) and the "
            f"teacher of shape {tuple(teacher.logits.shape)}: give both the columns of the same classes, or use "
            "losses on features alone (gkd with soft_weight 0, pkd, fgd)"
        )


def see_activations(
    name: str, remedy: str, student: DetectorAdapter, teacher: DetectorAdapter, *, field: str = ""
) -> None:
    """See that two detectors' class logits mean the same.

    Raises: DistilError with the name of the loss, and the setting that the remedy names.
    """
    if student.activation != teacher.activation:
        raise DistilError(
            f"{name} compares class responses, but the student's end in a {student.activation} and the teacher's in a "
            f"{teacher.activation}: {remedy}, or use a teacher of the student's kind",
            field=field or (),
        )


def soft_label_distance(
    student: Float[Tensor, "i c"], teacher: Float[Tensor, "i c"], activation: str, temperature: float
) -> Float[Tensor, " i"]:
    """T^2 KL(teacher || student) of every instance's class probabilities at temperature T.

    softmax: one distribution over the columns. sigmoid: the sum over columns of the divergence of two probabilities,
    q log(q/p) + (1-q) log((1-q)/(1-p)). No gradient reaches the teacher.
    """
    student, teacher = student.float() / temperature, teacher.detach().float() / temperature
    if activation == "softmax":
        rows = kl_div(log_softmax(student, 1), log_softmax(teacher, 1), reduction="none", log_target=True)
    else:
        wanted = teacher.sigmoid()
        rows = binary_cross_entropy_with_logits(student, wanted, reduction="none")
        rows = rows - binary_cross_entropy_with_logits(teacher, wanted, reduction="none")
    return temperature**2 * rows.sum(1)


class ResponseKL(DistillationLoss):
    """Divergence of class responses: mean over the student's instances of T^2 KL(teacher || student).

    See `soft_label_distance`; the teacher's logits are those that it gives to the student's instances.
    Source: Hinton et al. 2015, on detectors' instances; T and the weight are ours.
    """

    name = "response"

    def __init__(self, weight: float = 1.0, *, temperature: float = 2.0) -> None:
        super().__init__(weight)
        self.temperature = temperature

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "temperature": self.temperature}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        see_activations(self.name, "leave it out", student, teacher)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        comparable(student, teacher)
        with full_precision(student.logits):
            rows = soft_label_distance(student.logits, teacher.logits, student.activation, self.temperature)
            value = rows.sum() / shared(rows.new_full((), float(len(rows))))
        return {"response": value}
