"""Prototypes common to two feature spaces: which samples are chosen, and how features look from them."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROWS_AT_ONCE = 1024
"""The density of so many samples is computed in one piece, so that memory grows with samples and not their square."""

TIE = 1e-12
"""Gains that differ by less than this share of the first step's best count as equal, and the lowest index wins."""

SLACK = 64
"""Densities that differ by less than so many roundings count as equal."""

NEGLIGIBLE = -80.0
"""Exponents end here: what lies below is nothing beside a sample's own 1, and would be denormal numbers."""

GONE = 1e-6
"""A vector shorter than this is taken as no direction at all."""


def dense_enough(
    student: Float[Tensor, "n s"], teacher: Float[Tensor, "n t"], *, quantile: float = 0.4, bandwidth: float = 0.1
) -> Bool[Tensor, " n"]:
    """Which samples lie where samples are dense, in both spaces.

    Density of sample i in one space: sum_j exp(-((1 - cos_ij) / bandwidth)^2), itself included. A sample stays when its
    density is at or above the `quantile` of the densities in the student's space and in the teacher's. If the spaces
    agree on no sample, all stay.
    Source: the released code of Distilling Object Detectors with Global Knowledge (2022). Differs: "at or above", so
    that a lone sample and equal samples stay; the rule for no agreement is ours.
    """
    kept = torch.ones(len(student), dtype=torch.bool, device=student.device)
    for features in (student, teacher) if len(student) else ():
        density = _density(features, bandwidth)
        slack = SLACK * torch.finfo(density.dtype).eps
        kept = kept & (density >= density.quantile(quantile) * (1 - slack))
    return kept | ~kept.any()


def _density(features: Float[Tensor, "n d"], bandwidth: float) -> Float[Tensor, " n"]:
    rows = _unit(features if features.dtype == torch.float64 else features.float())
    parts = [
        (((1 - part @ rows.T) / bandwidth).square().neg().clamp_min(NEGLIGIBLE)).exp().sum(1)
        for part in rows.split(ROWS_AT_ONCE)
    ]
    return torch.cat(parts)


def select_prototypes(
    student: Float[Tensor, "n s"],
    teacher: Float[Tensor, "n t"],
    count: int,
    *,
    alpha: float = 10.0,
    candidates: Bool[Tensor, " n"] | None = None,
    unique: bool = False,
    orthogonal: bool = False,
) -> Int[Tensor, " p"]:
    """Greedily the samples from which all samples are best rebuilt, in both spaces and with like coefficients.

    Row i of `student` and of `teacher` is the same object in two spaces; rows are normalized here. With residuals R_a
    and R_b, at first all samples, a candidate g = (g_a, g_b) has inner products i_a = R_a g_a and i_b = R_b g_b with
    every sample. Minimizing

        ||R_a - w_a g_a^T||^2 + ||R_b - w_b g_b^T||^2 + alpha ||w_a - w_b||^2

    over its coefficients gives w_a = (alpha (i_a + i_b) + i_a) / (1 + 2 alpha), likewise w_b, and lowers the objective
    by [(1 + alpha)(||i_a||^2 + ||i_b||^2) + 2 alpha <i_a, i_b>] / (1 + 2 alpha). Each step takes the candidate that
    lowers it most, the lowest index among equals, and subtracts its part from the residuals.

    ||i_a||^2 is g_a^T (R_a^T R_a) g_a, and <i_a, i_b> is g_a^T (R_a^T R_b) g_b: three small Gram matrices a step, and
    never a tensor of more than samples times features. Computed in float64 (on the CPU for a device without it).

    candidates: the samples that may be chosen (all); every sample is to be rebuilt in any case.
    unique: a sample is chosen once at most. Without it a sample may come again, as in the source.
    orthogonal: in each space a candidate counts for the part of it that is orthogonal to those chosen; implies unique.
    Returns rows in the order of choice: `count` of them, or min(count, candidates) if unique; none without candidates.
    Source: section 3.1 of Distilling Object Detectors with Global Knowledge (2022), by its released code. Differs: this
    form, equal to the naive one by test, and both options are ours.
    """
    rows = torch.arange(len(student), device=student.device)
    rows = rows if candidates is None else rows[candidates]
    unique = unique or orthogonal
    total = min(count, len(rows)) if unique or len(rows) == 0 else count
    rest_a, rest_b = (_fewer_columns(_unit(_precise(features))) for features in (student, teacher))
    place = rows.to(rest_a.device)
    atoms_a, atoms_b = rest_a[place], rest_b[place]
    free = torch.ones(len(place), dtype=torch.bool, device=place.device)
    tie = None
    chosen = [place[:0]]
    for _ in range(total):
        gain = (1 + alpha) * (_form(atoms_a, rest_a.T @ rest_a, atoms_a) + _form(atoms_b, rest_b.T @ rest_b, atoms_b))
        gain = gain + 2 * alpha * _form(atoms_a, rest_a.T @ rest_b, atoms_b)
        gain = gain.masked_fill(~free, -torch.inf)
        best = gain.amax()
        tie = TIE * best if tie is None else tie
        pick = (gain >= best - tie).int().argmax(0, keepdim=True)
        g_a, g_b = atoms_a[pick], atoms_b[pick]
        i_a, i_b = rest_a @ g_a.T, rest_b @ g_b.T
        common = alpha * (i_a + i_b)
        rest_a = rest_a - (common + i_a) / (1 + 2 * alpha) * g_a
        rest_b = rest_b - (common + i_b) / (1 + 2 * alpha) * g_b
        if orthogonal:
            atoms_a, atoms_b = _without(atoms_a, g_a), _without(atoms_b, g_b)
        if unique:
            free = free.scatter(0, pick, False)
        chosen.append(place[pick])
    return torch.cat(chosen).to(student.device)


def projection(
    features: Float[Tensor, "i d"],
    prototypes: Float[Tensor, "p d"],
    kind: Literal["cosine", "pursuit", "ridge"],
    *,
    penalty: float = 10.0,
) -> Float[Tensor, "i p"]:
    """Coordinates of features with respect to prototypes, both normalized first. Differentiable in features.

    With unit rows f and p_1, p_2 ...:
    - "cosine": <f, p_k>, each prototype on its own.
    - "pursuit": the prototypes in their order; r_0 = f, c_k = <r_(k-1), p_k> / (|p_k|^2 + penalty), the coefficient
      that minimizes |r_(k-1) - c p_k|^2 + penalty c^2, and r_k = r_(k-1) - c_k p_k. Solved at once: the c of all k
      satisfy a triangular system whose matrix is the lower part of P P^T plus penalty on the diagonal.
    - "ridge": (P P^T + penalty I)^-1 P f, all prototypes together.
    penalty: above 0; unused by "cosine".
    Raises: ValueError for another kind, or for a penalty that is not above 0 where it is used.
    Source: "cosine" is what the released code of Distilling Object Detectors with Global Knowledge (2022) compares.
    Summaries of the paper speak of a sequential pursuit with lambda = 10; "pursuit" is our reading, "ridge" is ours.
    """
    if kind not in ("cosine", "pursuit", "ridge"):
        raise ValueError(f"no projection is called {kind!r}: choose cosine, pursuit or ridge")
    basis = _unit(prototypes)
    inner = _unit(features) @ basis.T
    if kind == "cosine":
        return inner
    if not penalty > 0:
        raise ValueError(f"a penalty of {penalty} was given to the projection {kind!r}: it must be above 0")
    gram = basis @ basis.T + penalty * torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    if kind == "pursuit":
        return torch.linalg.solve_triangular(gram.tril(), inner.T, upper=False).T
    factor, _ = torch.linalg.cholesky_ex(gram)
    return torch.cholesky_solve(inner.T, factor).T


def nearest_cosine(
    features: Float[Tensor, "i d"],
    labels: Int[Tensor, " i"],
    prototypes: Float[Tensor, "p d"],
    prototype_labels: Int[Tensor, " p"],
) -> Float[Tensor, " i"]:
    """Largest cosine between each feature and the prototypes of its own class; 0 for a class without prototypes.

    Source: q_i of the robust distilling module, Distilling Object Detectors with Global Knowledge (2022).
    """
    if len(prototypes) == 0:
        return features.new_zeros(len(features))
    cosines = _unit(features) @ _unit(prototypes).T
    same = labels[:, None] == prototype_labels
    nearest = cosines.masked_fill(~same, -torch.inf).amax(1)
    return torch.where(same.any(1), nearest, 0)


def reliability(student_cosine: Float[Tensor, " i"], teacher_cosine: Float[Tensor, " i"]) -> Float[Tensor, " i"]:
    """How far two spaces agree on an instance: 1 - |student_cosine - teacher_cosine|, in [0, 1], without gradient.

    Source: omega_i of the robust distilling module, Distilling Object Detectors with Global Knowledge (2022).
    Differs: clamped to [0, 1] (ours); cosines of opposite sign would make it negative.
    """
    return (1 - (student_cosine - teacher_cosine).abs()).clamp(0, 1).detach()


def _unit(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows of length 1; a row without direction stays as it is, with a finite gradient."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > GONE, length, 1)


def _without(rows: Float[Tensor, "n d"], direction: Float[Tensor, "1 d"]) -> Float[Tensor, "n d"]:
    """Unit rows less their part along a unit direction, of length 1 again; rows that lay along it become zero."""
    rest = rows - rows @ direction.T * direction
    length = torch.linalg.vector_norm(rest, dim=1, keepdim=True)
    return torch.where(length > GONE, rest / length.clamp_min(GONE), 0)


def _form(left: Float[Tensor, "n a"], matrix: Float[Tensor, "a b"], right: Float[Tensor, "n b"]) -> Float[Tensor, " n"]:
    """left_i^T matrix right_i for every i."""
    return ((left @ matrix) * right).sum(1)


def _precise(features: Tensor) -> Tensor:
    """In float64, on the CPU where a device has none."""
    return (features.cpu() if features.device.type == "mps" else features).double()


def _fewer_columns(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    """Rows with the same inner products and at most n columns."""
    if len(rows) >= rows.shape[1]:
        return rows
    return torch.linalg.qr(rows.T, mode="r").R.T
