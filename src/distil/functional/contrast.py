"""The category-wise feature contrastive (CFC) loss."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax, normalize


def contrastive_loss(
    synthetic: Float[Tensor, "k d"], real: Float[Tensor, "k d"], temperature: float
) -> Float[Tensor, ""]:
    """Pull each class's synthetic mean embedding to its real one and away from those of the other classes.

    L_c = -(1/k) sum_c log( exp(z_c . z'_c / t) / sum_j exp(z_c . z'_j / t) ), with z and z' the L2-normalized rows.
    synthetic, real: one mean embedding a class, in the same order; gradients reach `synthetic` alone.
    Source: UDD (mining underutilized regions), the loss's name and role. Differs: the formula is our reconstruction.
    """
    z, target = normalize(synthetic, dim=1), normalize(real.detach(), dim=1)
    return -log_softmax(z @ target.T / temperature, dim=1).diagonal().mean()
