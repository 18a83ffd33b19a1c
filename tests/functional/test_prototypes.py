"""The fast selection against the objective evaluated for every candidate; projections against their definitions."""

import inspect
import math

import pytest
import torch
from torch.nn.functional import normalize

from distil.functional import prototypes
from distil.functional.prototypes import dense_enough, nearest_cosine, projection, reliability, select_prototypes

F64 = torch.float64


def draws(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def clustered(count, width, seed):
    """Samples around four directions, of very different lengths."""
    centers = draws(4, width, seed=seed)
    rows = centers[torch.arange(count) % 4] + 0.4 * draws(count, width, seed=seed + 1)
    return rows * (1 + 5 * torch.rand(count, 1, dtype=F64, generator=torch.Generator().manual_seed(seed + 2)))


def slow_densities(features, bandwidth):
    unit = normalize(features)
    return [
        sum(math.exp(-(((1 - float(unit[i] @ unit[j])) / bandwidth) ** 2)) for j in range(len(unit)))
        for i in range(len(unit))
    ]


def percentile(values, share):
    """Linear between the two order statistics nearest to `share`."""
    ranked = sorted(values)
    position = share * (len(ranked) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (position - low) * (ranked[high] - ranked[low])


@pytest.mark.parametrize("bandwidth", [0.1, 0.5])
@pytest.mark.parametrize("quantile", [0.2, 0.4])
def test_density_by_the_definition(bandwidth, quantile, monkeypatch):
    student, teacher = clustered(23, 5, 0), clustered(23, 7, 10)
    kept = dense_enough(student, teacher, quantile=quantile, bandwidth=bandwidth)
    expected = torch.ones(23, dtype=torch.bool)
    for features in (student, teacher):
        densities = slow_densities(features, bandwidth)
        limit = percentile(densities, quantile)
        expected &= torch.tensor([density >= limit - 1e-12 for density in densities])
    assert torch.equal(kept, expected)
    assert 0 < kept.sum() < 23
    monkeypatch.setattr(prototypes, "ROWS_AT_ONCE", 4)
    assert torch.equal(dense_enough(student, teacher, quantile=quantile, bandwidth=bandwidth), expected)


def test_an_outlier_is_dropped_in_either_space():
    close = draws(1, 6) + 0.05 * draws(10, 6, seed=1)
    odd = close.clone()
    odd[3] = -close[3]
    assert not dense_enough(odd, close)[3]
    assert not dense_enough(close, odd)[3]


def test_samples_that_cannot_be_told_apart_all_stay():
    for dtype in (torch.float32, F64):
        same = draws(1, 6, dtype=dtype).expand(7, 6).contiguous()
        assert dense_enough(same, same).all()
    assert dense_enough(draws(1, 6), draws(1, 3)).tolist() == [True]
    assert dense_enough(draws(0, 6), draws(0, 3)).tolist() == []


def test_spaces_that_agree_on_no_sample_keep_all():
    a = torch.tensor([[1.0, 0], [1, 0], [0, 1], [-1, 0]], dtype=F64)
    b = a.flip(0)
    assert dense_enough(a, a, quantile=0.9).tolist() == [True, True, False, False]
    assert dense_enough(a, b, quantile=0.9).all()


def slow_selection(student, teacher, count, alpha, allowed, unique, orthogonal):
    """Evaluate the objective for every candidate, with coefficients from the normal equations; subtract; repeat."""
    rest_a, rest_b = normalize(student), normalize(teacher)
    atoms_a, atoms_b = rest_a.clone(), rest_b.clone()
    system = torch.tensor([[1 + alpha, -alpha], [-alpha, 1 + alpha]], dtype=F64)
    chosen = []
    for _ in range(count):
        values = {}
        for k in allowed:
            if unique and k in chosen:
                continue
            g_a, g_b = atoms_a[k], atoms_b[k]
            w_a, w_b = torch.linalg.solve(system, torch.stack([rest_a @ g_a, rest_b @ g_b]))
            left_a, left_b = rest_a - torch.outer(w_a, g_a), rest_b - torch.outer(w_b, g_b)
            values[k] = left_a.square().sum() + left_b.square().sum() + alpha * (w_a - w_b).square().sum(), w_a, w_b
        best = min(values, key=lambda k: float(values[k][0]))
        chosen.append(best)
        _, w_a, w_b = values[best]
        g_a, g_b = atoms_a[best], atoms_b[best]
        rest_a, rest_b = rest_a - torch.outer(w_a, g_a), rest_b - torch.outer(w_b, g_b)
        if orthogonal:
            basis_a = torch.linalg.qr(normalize(student)[chosen].T).Q
            basis_b = torch.linalg.qr(normalize(teacher)[chosen].T).Q
            atoms_a = normalize(normalize(student) - normalize(student) @ basis_a @ basis_a.T)
            atoms_b = normalize(normalize(teacher) - normalize(teacher) @ basis_b @ basis_b.T)
    return chosen


@pytest.mark.parametrize(("unique", "orthogonal"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 10.0])
@pytest.mark.parametrize(("count", "size", "widths"), [(6, 40, (5, 7)), (10, 25, (16, 12)), (5, 12, (30, 20))])
def test_the_fast_selection_equals_the_naive_one(count, size, widths, alpha, unique, orthogonal):
    if orthogonal and count > min(widths):
        count = min(widths) - 1
    for seed in range(3):
        student, teacher = clustered(size, widths[0], 100 * seed), clustered(size, widths[1], 100 * seed + 50)
        candidates = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.7
        for mask in (None, candidates):
            allowed = range(size) if mask is None else mask.nonzero().flatten().tolist()
            rows = select_prototypes(
                student, teacher, count, alpha=alpha, candidates=mask, unique=unique, orthogonal=orthogonal
            )
            wanted = min(count, len(allowed)) if unique else count
            assert rows.tolist() == slow_selection(student, teacher, wanted, alpha, allowed, unique, orthogonal)


def test_the_best_single_prototype_by_hand():
    student = torch.tensor([[1.0, 0], [1, 1], [0, 1], [1, 1]], dtype=F64)
    assert select_prototypes(student, student, 1).tolist() == [1]
    assert select_prototypes(student, student, 2).tolist()[1] in (0, 2)


def test_equal_candidates_give_the_lowest_index():
    for dtype in (torch.float32, F64):
        student = draws(1, 8, dtype=dtype).expand(9, 8) * torch.arange(1, 10)[:, None].to(dtype)
        assert select_prototypes(student, student, 3).tolist() == [0, 0, 0]
        assert select_prototypes(student, student, 3, unique=True).tolist() == [0, 1, 2]
        later = torch.arange(9) >= 4
        assert select_prototypes(student, student, 2, candidates=later, unique=True).tolist() == [4, 5]


def test_lengths_do_not_matter():
    student, teacher = clustered(30, 6, 1), clustered(30, 9, 2)
    scale = torch.rand(30, 1, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.1
    assert torch.equal(select_prototypes(student, teacher, 5), select_prototypes(student * scale, teacher * 3, 5))


def test_how_many_are_chosen():
    student, teacher = draws(4, 6), draws(4, 5, seed=1)
    three = torch.tensor([True, False, True, True])
    assert len(select_prototypes(student, teacher, 9)) == 9
    assert select_prototypes(student, teacher, 9, unique=True).sort().values.tolist() == [0, 1, 2, 3]
    assert select_prototypes(student, teacher, 9, unique=True, candidates=three).sort().values.tolist() == [0, 2, 3]
    assert select_prototypes(student, teacher, 9, orthogonal=True, candidates=three).sort().values.tolist() == [0, 2, 3]
    assert len(select_prototypes(student, teacher, 3, candidates=torch.zeros(4, dtype=torch.bool))) == 0
    assert len(select_prototypes(draws(0, 6), draws(0, 5), 3)) == 0


def test_the_orthogonal_choice_skips_what_is_already_spanned():
    """Rows 0, 1 and 2 lie in a plane; row 3 does not. Two from the plane exhaust it."""
    rows = torch.tensor([[1.0, 0, 0], [0.99, 0.1, 0], [0.9, 0.3, 0], [0.5, 0, 0.2]], dtype=F64)
    assert 3 in select_prototypes(rows, rows, 3, orthogonal=True).tolist()


def test_features_without_direction_are_never_preferred():
    student, teacher = clustered(12, 6, 1), clustered(12, 6, 2)
    student[2], teacher[2] = 0, 0
    rows = select_prototypes(student, teacher, 11, unique=True)
    assert 2 not in rows.tolist()
    assert len(rows) == 11


def test_half_precision_is_not_computed_in_half_precision():
    student, teacher = clustered(40, 16, 1).half(), clustered(40, 16, 2).half()
    assert torch.equal(select_prototypes(student, teacher, 6), select_prototypes(student.double(), teacher.double(), 6))
    assert torch.equal(dense_enough(student, teacher), dense_enough(student.double(), teacher.double()))


def slow_pursuit(features, basis, penalty):
    coefficients = torch.zeros(len(features), len(basis), dtype=F64)
    for i, feature in enumerate(normalize(features)):
        rest = feature
        for k, atom in enumerate(normalize(basis)):
            coefficients[i, k] = rest @ atom / (atom @ atom + penalty)
            rest = rest - coefficients[i, k] * atom
    return coefficients


def test_cosine_projection():
    features, basis = draws(5, 8), draws(3, 8, seed=1)
    expected = torch.cosine_similarity(features[:, None], basis[None], dim=2)
    torch.testing.assert_close(projection(features, basis, "cosine"), expected)


@pytest.mark.parametrize("penalty", [0.1, 10.0])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_pursuit_is_the_loop_over_prototypes(penalty, count):
    features, basis = draws(5, 8), draws(count, 8, seed=1)
    result = projection(features, basis, "pursuit", penalty=penalty)
    torch.testing.assert_close(result, slow_pursuit(features, basis, penalty))
    if count > 1:
        backwards = projection(features, basis.flip(0), "pursuit", penalty=penalty).flip(1)
        assert (backwards - result).abs().max() > 1e-4


@pytest.mark.parametrize("penalty", [0.1, 10.0])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_ridge_minimizes_its_objective(penalty, count):
    features, basis = draws(5, 8), draws(count, 8, seed=1)
    result = projection(features, basis, "ridge", penalty=penalty).requires_grad_()
    unit = normalize(basis)
    objective = (normalize(features) - result @ unit).square().sum() + penalty * result.square().sum()
    assert torch.autograd.grad(objective, result)[0].abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["cosine", "pursuit", "ridge"])
def test_projections_of_orthogonal_prototypes_are_shrunk_cosines(kind):
    features, basis = draws(4, 6), torch.linalg.qr(draws(6, 3, seed=1)).Q.T * 7
    shrink = 1 if kind == "cosine" else 11
    expected = torch.cosine_similarity(features[:, None], basis[None], dim=2) / shrink
    torch.testing.assert_close(projection(features, basis, kind), expected)


@pytest.mark.parametrize("kind", ["cosine", "pursuit", "ridge"])
def test_projections_have_gradients_and_ignore_lengths(kind):
    features, basis = draws(3, 5).requires_grad_(), draws(4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: projection(x, basis, kind, penalty=0.5), (features,))
    torch.testing.assert_close(projection(features * 3, basis * 0.2, kind), projection(features, basis, kind))


@pytest.mark.parametrize("kind", ["cosine", "pursuit", "ridge"])
def test_projections_of_and_on_nothing(kind):
    assert projection(draws(0, 5), draws(4, 5), kind).shape == (0, 4)
    assert projection(draws(3, 5), draws(0, 5), kind).shape == (3, 0)
    dead = torch.zeros(2, 5, dtype=F64, requires_grad=True)
    result = projection(dead, torch.zeros(3, 5, dtype=F64), kind)
    assert not result.any()
    result.sum().backward()
    assert dead.grad is not None
    assert dead.grad.isfinite().all()


def test_unknown_projections_and_penalties():
    with pytest.raises(ValueError, match="no projection is called 'sine': choose cosine, pursuit or ridge"):
        inspect.unwrap(projection)(draws(1, 2), draws(1, 2), "sine")
    with pytest.raises(ValueError, match="a penalty of 0 was given to the projection 'ridge': it must be above 0"):
        inspect.unwrap(projection)(draws(1, 2), draws(1, 2), "ridge", penalty=0)
    with pytest.raises(ValueError, match="a penalty of nan was given to the projection 'pursuit': it must be above 0"):
        projection(draws(1, 2), draws(1, 2), "pursuit", penalty=math.nan)


def test_nearest_cosine_by_the_definition():
    features, basis = draws(7, 6), draws(5, 6, seed=1)
    labels, basis_labels = torch.tensor([1, 2, 2, 3, 1, 3, 4]), torch.tensor([1, 2, 1, 2, 4])
    nearest = nearest_cosine(features, labels, basis, basis_labels)
    for i in range(7):
        same = [
            float(torch.cosine_similarity(features[i], basis[k], dim=0))
            for k in range(5)
            if basis_labels[k] == labels[i]
        ]
        assert float(nearest[i]) == pytest.approx(max(same) if same else 0.0, abs=1e-12)
    assert nearest[3] == nearest[5] == 0


def test_nearest_cosine_without_prototypes_or_instances():
    none = torch.zeros(0, dtype=torch.int64)
    assert nearest_cosine(draws(2, 4), torch.tensor([1, 2]), draws(0, 4), none).tolist() == [0, 0]
    assert nearest_cosine(draws(0, 4), none, draws(3, 4), torch.tensor([1, 2, 3])).tolist() == []


def test_gradient_of_the_nearest_cosine_is_finite_where_a_class_has_no_prototype():
    features = draws(3, 4).requires_grad_()
    labels, basis, basis_labels = torch.tensor([1, 2, 9]), draws(4, 4, seed=1), torch.tensor([1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda x: nearest_cosine(x, labels, basis, basis_labels), (features,))


def test_reliability_by_hand():
    student = torch.tensor([0.9, -0.8, 0.3, 0.0], requires_grad=True)
    teacher = torch.tensor([0.7, 0.9, 0.3, 0.0])
    result = reliability(student, teacher)
    torch.testing.assert_close(result, torch.tensor([0.8, 0.0, 1.0, 1.0]))
    assert not result.requires_grad
    assert torch.equal(result, reliability(teacher, student))
