"""Class probabilities at a temperature, and how far two are apart."""

from jaxtyping import Float
from torch import Tensor


def divergence_at(
    student: Float[Tensor, "*n k"], teacher: Float[Tensor, "*n k"], temperature: float
) -> Float[Tensor, " *n"]:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of every row of logits; the teacher gets no gradient.

    With T^2 the gradient keeps its size at any T: for a large T it is that of |student - teacher|^2 / (2 k) on logits
    whose mean is 0.
    Source: Hinton et al. 2015, section 2.
    """
    wanted = (teacher.detach() / temperature).log_softmax(-1)
    given = (student / temperature).log_softmax(-1)
    return temperature**2 * (wanted.exp() * (wanted - given)).sum(-1)
