"""Global knowledge: every term against loops over its equation in float64, closed forms, and what must never happen."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.gkd.pooling import pool_instances
from distil.detector.losses.maps import paired_maps
from distil.detector.settings import GlobalSettings
from distil.errors import DistilError
from distil.types import Trace
from tests.detector.traces import LEVELS, STRIDES, make_prototypes, make_trace, make_view, ready, slow_mask

OWN_LEVELS = [0, 0, 0, 0, 1]
"""Of the five instances: the last has a side of sqrt(152 * 116) = 133 pixels, more than 112."""


def make_knowledge(student: int = 6, teacher: int = 6, **settings) -> GlobalKnowledge:
    torch.manual_seed(1)
    return ready(GlobalKnowledge(settings=GlobalSettings(**settings)), student, teacher)


def slow_projection(feature: Tensor, prototypes: Tensor, kind: str, penalty: float) -> Tensor:
    feature = feature / feature.norm()
    prototypes = prototypes / prototypes.norm(dim=1, keepdim=True)
    if kind == "cosine":
        return torch.stack([feature @ prototype for prototype in prototypes])
    if kind == "ridge":
        return torch.linalg.inv(prototypes @ prototypes.T + penalty * torch.eye(len(prototypes))) @ prototypes @ feature
    rest, out = feature, []
    for prototype in prototypes:
        out.append(rest @ prototype / (1 + penalty))
        rest = rest - out[-1] * prototype
    return torch.stack(out)


def slow_reliability(f_s: Tensor, f_t: Tensor, label: int, p_s: Tensor, p_t: Tensor, labels: Tensor) -> float:
    q = []
    for feature, prototypes in ((f_s, p_s), (f_t, p_t)):
        cosines = [torch.cosine_similarity(feature, p, dim=0).item() for p in prototypes[labels == label]]
        q.append(max(cosines))
    return min(1.0, max(0.0, 1 - abs(q[0] - q[1])))


def slow_losses(
    knowledge: GlobalKnowledge, student: Trace, teacher: Trace, prototypes, progress: float
) -> dict[str, float]:
    """The four terms of methods.md 2.3, instance by instance and cell by cell."""
    settings = knowledge.settings
    fading = 1 - progress
    pooled_s = pool_instances(student.pyramid, STRIDES, student.boxes).double()
    pooled_t = pool_instances(teacher.pyramid, STRIDES, student.boxes).double()
    count = len(student.labels)
    weights = torch.zeros(len(STRIDES), count, dtype=torch.float64)
    global_term = 0.0
    for level in range(len(STRIDES)):
        rows = prototypes.levels == level
        p_s, p_t, labels = prototypes.student[rows].double(), prototypes.teacher[rows].double(), prototypes.labels[rows]
        values = []
        for i in range(count):
            f_s, f_t = pooled_s[level, i], pooled_t[level, i]
            weight = slow_reliability(f_s, f_t, int(student.labels[i]), p_s, p_t, labels)
            weights[level, i] = weight
            a = weight * slow_projection(f_s, p_s, settings.projection, settings.penalty)
            b = weight * slow_projection(f_t, p_t, settings.projection, settings.penalty)
            counted = settings.global_levels == "all" or OWN_LEVELS[i] == level
            values += [counted * (0.5 * gap**2 if gap < 1 else gap - 0.5) for gap in (a - b).abs().tolist()]
        global_term += sum(values) / len(values)
    own = [weights[OWN_LEVELS[i], i] for i in range(count)]
    lengths = [len(boxes) for boxes in student.boxes]
    foreground, background = [], []
    for level, stride in enumerate(STRIDES):
        conv = knowledge.adapting[level]
        gaps = (conv(student.pyramid[level]) - teacher.pyramid[level]).double().square()
        channels = gaps.shape[1]
        mask = torch.zeros_like(gaps)
        start = 0
        for image, length in enumerate(lengths):
            here = [start + j for j in range(length) if OWN_LEVELS[start + j] == level]
            boxes = student.boxes[image][[i - start for i in here]]
            values = torch.tensor([own[i] for i in here], dtype=torch.float64)
            mask[image] = slow_mask(boxes, values, gaps.shape[2:], stride).expand(channels, -1, -1)
            start += length
        if settings.local_scale == "teacher":
            gaps = gaps / teacher.pyramid[level].double().square().mean()
        foreground.append((mask * gaps).sum() / max(1.0, 2 * mask.sum().item()))
        idle = (mask == 0).double()
        background.append((idle * gaps).sum() / max(1.0, 2 * idle.sum().item()))
    soft = 0.0
    t = settings.temperature
    for i in range(count):
        z_s, z_t = student.logits[i].double() / t, teacher.logits[i].double() / t
        if student.activation == "softmax":
            p, q = z_s.softmax(0).tolist(), z_t.softmax(0).tolist()
            divergence = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        else:
            p, q = z_s.sigmoid().tolist(), z_t.sigmoid().tolist()
            divergence = sum(
                b * math.log(b / a) + (1 - b) * math.log((1 - b) / (1 - a)) for a, b in zip(p, q, strict=True)
            )
        soft += own[i].item() * t**2 * divergence / count
    return {
        "gkd.global": settings.global_weight * fading * global_term,
        "gkd.foreground": settings.foreground_weight * fading * torch.stack(foreground).mean().item(),
        "gkd.background": settings.background_weight * fading * torch.stack(background).mean().item(),
        "gkd.soft": settings.soft_weight * soft,
    }


@pytest.mark.parametrize("projection", ["cosine", "pursuit", "ridge"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("scale", "levels"), [("raw", "all"), ("teacher", "all"), ("raw", "own")])
def test_every_term_is_its_equation(projection, activation, scale, levels):
    choices = {"projection": projection, "local_scale": scale, "global_levels": levels}
    knowledge = make_knowledge(6, 5, **choices, penalty=3.0, global_weight=7.0, soft_weight=1.5)
    student = make_trace(1, activation=activation)
    teacher = make_trace(2, channels=5, activation=activation)
    prototypes = make_prototypes(6, 5)
    knowledge.use(prototypes)
    losses = knowledge(student, teacher, make_view(), 0.25)
    want = slow_losses(knowledge, student, teacher, prototypes, 0.25)
    assert list(losses) == list(want)
    for name, value in losses.items():
        assert value.item() == pytest.approx(want[name], rel=2e-5), name
        assert want[name] > 1e-4


def test_instances_lie_on_the_level_of_their_size():
    """At strides 4 and 8 the 112-pixel box is on the second level, and paints nothing on the first."""
    knowledge = GlobalKnowledge(settings=GlobalSettings(background_weight=0.0, soft_weight=0.0))
    ready(knowledge, 2, 2, ((0, 0), (1, 1)), (4, 8))
    for conv in knowledge.adapting:
        _make_identity(conv)
    maps = (torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 16, 16))
    box = (torch.tensor([[0.0, 0.0, 112.0, 112.0]]),)
    student = Trace(maps, (4, 8), box, torch.tensor([1]), torch.zeros(1, 2), "softmax")
    finest = replace(student, pyramid=(maps[0] + 3, maps[1]))
    second = replace(student, pyramid=(maps[0], maps[1] + 3))
    view = make_view(images=1)
    assert knowledge(student, finest, view, 0.0)["gkd.foreground"].item() == 0
    assert knowledge(student, second, view, 0.0)["gkd.foreground"].item() == pytest.approx(9 / 2 / 2)
    assert knowledge.last is not None
    assert knowledge.last.level.tolist() == [1]


def test_reliability_and_global_term_by_hand():
    """Constant maps: the student meets its prototype exactly (cosine 1), the teacher at 60 degrees (cosine 1/2)."""
    knowledge = GlobalKnowledge(settings=GlobalSettings(foreground_weight=0.0, background_weight=0.0, soft_weight=2.0))
    ready(knowledge, 2, 2, ((0, 0),), (4,))
    prototypes = make_prototypes(2, 2, each=1, classes=1, strides=(4,))
    knowledge.use(replace(prototypes, student=torch.tensor([[3.0, 0]]), teacher=torch.tensor([[0.5, math.sqrt(0.75)]])))
    maps = torch.zeros(1, 2, 8, 8)
    maps[:, 0] = 2
    boxes = (torch.tensor([[4.0, 4.0, 20.0, 24.0]]),)
    student = Trace((maps,), (4,), boxes, torch.tensor([1]), torch.tensor([[0.0, 0.0]]), "softmax")
    teacher = replace(student, logits=torch.tensor([[2 * math.log(3.0), 0.0]]))
    losses = knowledge(student, teacher, make_view(images=1), 0.0)
    assert knowledge.last is not None
    assert knowledge.last.own.item() == pytest.approx(0.5, abs=1e-6)
    assert losses["gkd.global"].item() == pytest.approx(5 * 0.5 * (0.5 * 1 - 0.5 * 0.5) ** 2, rel=1e-5)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert losses["gkd.soft"].item() == pytest.approx(2 * 0.5 * 4 * divergence, rel=1e-5)
    assert set(losses) == {"gkd.global", "gkd.soft"}


def _make_identity(conv: nn.Module) -> None:
    weight, bias = conv.weight, conv.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    with torch.no_grad():
        nn.init.dirac_(weight)
        bias.zero_()


@pytest.mark.parametrize("projection", ["cosine", "pursuit", "ridge"])
def test_nothing_to_learn_from_oneself(projection):
    knowledge = make_knowledge(projection=projection)
    for conv in knowledge.adapting:
        _make_identity(conv)
    prototypes = make_prototypes()
    knowledge.use(replace(prototypes, teacher=prototypes.student))
    trace = make_trace(1)
    losses = knowledge(trace, trace, make_view(), 0.0)
    assert len(losses) == 4
    for value in losses.values():
        assert value.item() == pytest.approx(0, abs=1e-9)
    assert knowledge.last is not None
    assert knowledge.last.levels.min().item() == 1


def test_gradient_reaches_the_student_and_never_the_teacher():
    knowledge = make_knowledge(6, 5)
    knowledge.use(make_prototypes(6, 5))
    student, teacher = make_trace(1, gradient=True), make_trace(2, channels=5, gradient=True)
    view = make_view()
    losses = knowledge(student, teacher, view, 0.0)
    assert not knowledge.measure(student, teacher).own.requires_grad
    for name, value in losses.items():
        leaves = [*student.pyramid, student.logits, *knowledge.parameters()]
        some = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        reached = [leaf is not None and bool(leaf.abs().sum() > 0) for leaf in some]
        maps, logits, convs = any(reached[:3]), reached[3], any(reached[4:])
        local = name in ("gkd.foreground", "gkd.background")
        assert (maps, logits, convs) == (name != "gkd.soft", name == "gkd.soft", local), name
    torch.stack(list(losses.values())).sum().backward()
    assert all(maps.grad is None for maps in (*teacher.pyramid, teacher.logits))
    assert all(parameter.grad is not None for parameter in knowledge.parameters())


def test_reliabilities_take_no_gradient_from_the_local_term():
    """With q^s of the student's maps in the mask's weights, the gradient would differ from that of a fixed mask."""
    knowledge = make_knowledge(background_weight=0.0, soft_weight=0.0, use_global=False)
    knowledge.use(make_prototypes())
    student, teacher, view = make_trace(1, gradient=True), make_trace(2), make_view()
    value = knowledge(student, teacher, view, 0.0)["gkd.foreground"]
    own = torch.autograd.grad(value, student.pyramid[0])[0]
    assert knowledge.last is not None
    lengths = [len(boxes) for boxes in student.boxes]
    stored = knowledge.last.own.split(lengths)
    assert knowledge.last.level.tolist() == OWN_LEVELS
    stored = stored[0], stored[1] * torch.tensor([1.0, 0.0]), stored[2]
    mask = torch.stack([slow_mask(b, w, (30, 38), 4) for b, w in zip(student.boxes, stored, strict=True)]).float()[
        :, None
    ]
    fixed = (mask * (knowledge.adapting[0](student.pyramid[0]) - teacher.pyramid[0]).square()).sum()
    want = torch.autograd.grad(fixed / (2 * 6 * mask.sum()) / 3, student.pyramid[0])[0]
    torch.testing.assert_close(own, want)


def test_a_batch_without_objects_is_finite_and_keeps_a_graph():
    knowledge = make_knowledge()
    knowledge.use(make_prototypes())
    student, teacher = make_trace(1, empty=True, gradient=True), make_trace(2, empty=True)
    losses = knowledge(student, teacher, make_view(empty=True), 0.0)
    assert set(losses) == {"gkd.global", "gkd.foreground", "gkd.background", "gkd.soft"}
    assert losses["gkd.background"].item() > 0
    for name, value in losses.items():
        assert value.requires_grad
        assert name == "gkd.background" or value.item() == 0
    torch.stack(list(losses.values())).sum().backward()
    for maps in student.pyramid:
        assert maps.grad is not None
        assert maps.grad.isfinite().all()
    assert knowledge.last is not None
    assert knowledge.last.levels.shape == (3, 0)


def test_losses_are_float32_in_mixed_precision():
    knowledge = make_knowledge()
    knowledge.use(make_prototypes())
    student, teacher, view = make_trace(1), make_trace(2), make_view()
    plain = knowledge(student, teacher, view, 0.0)
    half = [
        replace(trace, pyramid=tuple(maps.bfloat16() for maps in trace.pyramid), logits=trace.logits.bfloat16())
        for trace in (student, teacher)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = knowledge(*half, view, 0.0)
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(plain[name].item(), rel=0.05)
        assert value.item() != plain[name].item()


def test_the_order_of_instances_does_not_matter():
    knowledge = make_knowledge()
    knowledge.use(make_prototypes())
    student, teacher, view = make_trace(1), make_trace(2), make_view()
    order = torch.tensor([2, 0, 1, 4, 3])
    shuffled = [
        replace(
            trace,
            boxes=(trace.boxes[0][[2, 0, 1]], trace.boxes[1][[1, 0]], trace.boxes[2]),
            labels=trace.labels[order],
            logits=trace.logits[order],
        )
        for trace in (student, teacher)
    ]
    one, other = knowledge(student, teacher, view, 0.0), knowledge(*shuffled, view, 0.0)
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def test_before_prototypes_all_are_reliable_and_the_global_term_is_absent():
    knowledge = make_knowledge()
    student, teacher, view = make_trace(1), make_trace(2), make_view()
    losses = knowledge(student, teacher, view, 0.0)
    assert set(losses) == {"gkd.foreground", "gkd.background", "gkd.soft"}
    assert knowledge.last is not None
    assert knowledge.last.levels.tolist() == [[1.0] * 5] * 3
    control = make_knowledge(reliability="one")
    control.use(make_prototypes())
    again = control(student, teacher, view, 0.0)
    assert "gkd.global" in again
    for name, value in losses.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_without_the_global_term_prototypes_still_measure_reliability():
    released, full = make_knowledge(use_global=False), make_knowledge()
    student, teacher, view = make_trace(1), make_trace(2), make_view()
    for knowledge in (released, full):
        knowledge.use(make_prototypes())
    losses, all_losses = released(student, teacher, view, 0.0), full(student, teacher, view, 0.0)
    assert set(all_losses) - set(losses) == {"gkd.global"}
    assert released.last is not None
    assert released.last.own.max() < 1
    for name, value in losses.items():
        assert value.item() == all_losses[name].item()


def test_classes_and_levels_without_prototypes_count_as_reliable():
    knowledge = make_knowledge()
    prototypes = make_prototypes()
    kept = (prototypes.labels != 2) & (prototypes.levels != 1)
    fields = ("student", "teacher", "levels", "labels", "images", "boxes")
    knowledge.use(replace(prototypes, **{name: getattr(prototypes, name)[kept] for name in fields}))
    student = make_trace(1)
    losses = knowledge(student, make_trace(2), make_view(), 0.0)
    assert knowledge.last is not None
    reliable = knowledge.last.levels == 1
    assert reliable[1].all()
    assert reliable[0].tolist() == (student.labels == 2).tolist()
    assert all(value.isfinite() for value in losses.values())


def test_local_terms_in_the_teachers_units_do_not_depend_on_its_scale():
    student, teacher, view = make_trace(1), make_trace(2), make_view()
    knowledge = make_knowledge(local_scale="teacher", soft_weight=0.0)
    for conv in knowledge.adapting:
        torch.nn.init.zeros_(conv.weight)  # pyright: ignore[reportArgumentType]
        torch.nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
    louder = replace(teacher, pyramid=tuple(30 * maps for maps in teacher.pyramid))
    quiet, loud = knowledge(student, teacher, view, 0.0), knowledge(student, louder, view, 0.0)
    assert quiet.keys() == {"gkd.foreground", "gkd.background"}
    torch.testing.assert_close(loud, quiet)


def test_weights_fall_with_progress_but_for_the_soft_label():
    student, teacher, view = make_trace(1), make_trace(2), make_view()
    fading, steady = make_knowledge(), make_knowledge(decay=False)
    for knowledge in (fading, steady):
        knowledge.use(make_prototypes())
    start, later = fading(student, teacher, view, 0.0), fading(student, teacher, view, 0.75)
    for name in start:
        share = 1 if name == "gkd.soft" else 0.25
        torch.testing.assert_close(later[name], share * start[name])
        torch.testing.assert_close(steady(student, teacher, view, 0.75)[name], start[name])


def test_terms_of_weight_zero_are_left_out_with_their_parameters():
    knowledge = make_knowledge(foreground_weight=0.0, background_weight=0.0, soft_weight=0.0)
    knowledge.use(make_prototypes())
    assert not list(knowledge.parameters())
    one_stage = make_trace(2, activation="sigmoid")
    assert set(knowledge(make_trace(1), one_stage, make_view(), 0.0)) == {"gkd.global"}
    assert [p.shape[-1] for p in make_knowledge(adapting_kernel=1).parameters() if p.ndim == 4] == [1, 1, 1]
    assert [p.shape[-1] for p in make_knowledge().parameters() if p.ndim == 4] == [3, 3, 3]


def test_levels_of_both_pyramids_are_paired_by_the_given_indices():
    """A teacher with a finer first level, and maps larger by a row: the losses of its later levels."""
    knowledge = ready(GlobalKnowledge(), 6, 6, ((0, 1), (2, 2)), (4, 16))
    knowledge.use(make_prototypes())
    student, teacher, view = make_trace(1), make_trace(2), make_view()
    finer = replace(teacher, pyramid=(torch.zeros(3, 6, 60, 76), teacher.pyramid[0], teacher.pyramid[2]))
    want = ready(GlobalKnowledge(), 6, 6, ((0, 0), (2, 2)), (4, 16))
    want.load_state_dict(knowledge.state_dict())
    want.use(make_prototypes())
    for name, value in want(student, teacher, view, 0.0).items():
        torch.testing.assert_close(knowledge(student, finer, view, 0.0)[name], value)


def test_a_teachers_map_with_a_row_more_is_resized():
    """A ramp over 31 rows is the same ramp over 30, but for the two outermost rows."""
    student = make_trace(1, gradient=True)
    ramp = ((torch.arange(31) + 0.5) / 31)[:, None].expand(3, 6, 31, 38)
    teacher = replace(make_trace(2), pyramid=(ramp, *student.pyramid[1:]))
    (own, aim), (_, same), _ = paired_maps(student, teacher, LEVELS)
    assert own is student.pyramid[0]
    torch.testing.assert_close(aim[:, :, 1:-1], ((torch.arange(30) + 0.5) / 30)[1:-1, None].expand(3, 6, 28, 38))
    assert aim.shape == own.shape
    assert same.equal(student.pyramid[1])
    assert not same.requires_grad


def test_state_holds_the_convolutions_alone():
    knowledge = make_knowledge()
    knowledge.use(make_prototypes())
    assert set(knowledge.state_dict()) == {f"adapting.{i}.{name}" for i in range(3) for name in ("weight", "bias")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"foreground_weight": -1.0}, "foreground_weight is -1.0: it cannot be negative."),
        ({"soft_weight": math.nan}, "soft_weight is nan: give a finite number."),
        ({"temperature": 0.0}, "temperature is 0.0: it must be above 0."),
        ({"projection": "dot"}, "projection is 'dot': choose from cosine, pursuit, ridge."),
        ({"adapting_kernel": 2}, "adapting_kernel is 2: choose from 1, 3."),
    ],
)
def test_settings_that_cannot_be(given, message):
    with pytest.raises(DistilError) as error:
        GlobalSettings(**given)
    assert str(error.value) == message


def test_prototypes_of_other_detectors_are_refused():
    with pytest.raises(DistilError) as error:
        make_knowledge(6, 5).use(make_prototypes(6, 6))
    assert str(error.value) == (
        "these prototypes have 6 student and 6 teacher channels, the detectors have 6 and 5: generate prototypes with "
        "these two detectors"
    )
    with pytest.raises(DistilError) as error:
        make_knowledge().use(make_prototypes(strides=(8, 16)))
    assert str(error.value) == (
        "these prototypes have levels of strides (8, 16) and lack [4]: generate prototypes with these two detectors"
    )


def test_responses_that_cannot_be_compared_are_refused():
    knowledge, view = make_knowledge(), make_view()
    with pytest.raises(DistilError) as error:
        knowledge(make_trace(1), make_trace(2, activation="sigmoid"), view, 0.0)
    assert str(error.value) == (
        "the student's classes end in a softmax and the teacher's in a sigmoid: their responses cannot be compared. "
        "Use a teacher of the student's kind, or losses on features alone (gkd with soft_weight 0, pkd, fgd)"
    )
    with pytest.raises(DistilError) as error:
        knowledge(make_trace(1), make_trace(2, classes=5), view, 0.0)
    assert str(error.value) == (
        "the student gives class logits of shape (5, 4) (instances, columns) and the teacher of shape (5, 6): give "
        "both the columns of the same classes, or use losses on features alone (gkd with soft_weight 0, pkd, fgd)"
    )
