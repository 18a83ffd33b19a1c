"""Characteristic functions of embeddings, and how far two of them are apart."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

LEAST_PHASE = 1e-12
"""The difference of the phases is held above this: a square root has no slope at zero."""


def characteristic_function(
    rows: Float[Tensor, "n d"], frequencies: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """(real part, imaginary part) of mean_n exp(i <t, row_n>) at every frequency t."""
    angles = frequencies @ rows.T
    return angles.cos().mean(1), angles.sin().mean(1)


def characteristic_distance(
    real: Float[Tensor, "n d"],
    synthetic: Float[Tensor, "m d"],
    frequencies: Float[Tensor, "f d"],
    amplitude: float = 0.5,
    phase: float = 0.5,
) -> Float[Tensor, ""]:
    """How far the characteristic functions P, Q of two sets of embeddings, each of length 1, are apart.

    mean over t of sqrt(amplitude (|P| - |Q|)^2 + phase 2 (|P| |Q| - Re P Re Q - Im P Im Q)); with both weights 1 the
    root is |P - Q|. 0 up to sqrt(phase LEAST_PHASE) for equal sets.
    Source: NCFM (Wang et al. 2025), equations 7 to 9, and its released code.
    """
    return distance_to(*characteristic_function(normalize(real), frequencies), synthetic, frequencies, amplitude, phase)


def distance_to(
    real_part: Float[Tensor, " f"],
    imaginary_part: Float[Tensor, " f"],
    synthetic: Float[Tensor, "m d"],
    frequencies: Float[Tensor, "f d"],
    amplitude: float = 0.5,
    phase: float = 0.5,
) -> Float[Tensor, ""]:
    """The same, of a characteristic function that is known; its embeddings had length 1."""
    cosine, sine = characteristic_function(normalize(synthetic), frequencies)
    size, other = torch.hypot(cosine, sine), torch.hypot(real_part, imaginary_part)
    turned = 2 * (size * other - cosine * real_part - sine * imaginary_part)
    return (amplitude * (size - other).square() + phase * turned.clamp_min(LEAST_PHASE)).sqrt().mean()
