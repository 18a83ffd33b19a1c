"""Class responses of the two detectors on the same instances."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax

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
            "responses cannot be compared. Use a teacher of the student's kind, or knowledge of features alone "
            "(gkd with soft_label 0, pkd, fgd)"
        )
    if student.logits.shape != teacher.logits.shape:
        raise DistilError(
            f"the student gives class logits of shape {tuple(student.logits.shape)} (instances, columns) and the "
            f"teacher of shape {tuple(teacher.logits.shape)}: give both the columns of the same classes, or use "
            "knowledge of features alone (gkd with soft_label 0, pkd, fgd)"
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
        aim = teacher.sigmoid()
        rows = binary_cross_entropy_with_logits(student, aim, reduction="none")
        rows = rows - binary_cross_entropy_with_logits(teacher, aim, reduction="none")
    return temperature**2 * rows.sum(1)


class ResponseKL(nn.Module):
    """Divergence of class responses: mean over the student's instances of T^2 KL(teacher || student).

    See `soft_label_distance`; the teacher's logits are those that it gives to the student's instances.
    Source: Hinton et al. 2015, on detectors' instances; T and the weight are ours.
    """

    def __init__(self, *, weight: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        comparable(student, teacher)
        with full_precision(student.logits):
            rows = soft_label_distance(student.logits, teacher.logits, student.activation, self.temperature)
            value = rows.sum() / shared(rows.new_full((), float(len(rows))))
        return {"response": self.weight * value}
