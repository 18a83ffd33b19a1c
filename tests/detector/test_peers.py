"""Losses against slow forms of their equations, and all of them built and added up."""

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead

from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.losses.crosskd import CrossKD
from distil.detector.losses.defeat import DeFeat
from distil.detector.losses.fgd import FGD
from distil.detector.losses.mgd import MGD
from distil.detector.losses.mse import FeatureMSE
from distil.detector.losses.named import BUILT_IN
from distil.detector.losses.pkd import PKD
from distil.detector.losses.response import ResponseKL, soft_label_distance
from distil.detector.settings import LOSSES, Distillation, GlobalSettings
from distil.errors import DistilError
from distil.rng import stream
from distil.types import Trace, View
from tests.detector.traces import STRIDES, Together, built, make_prototypes, make_trace, make_view, ready, slow_mask

ON_MAPS = {"mse": FeatureMSE, "pkd": PKD, "fgd": FGD, "mgd": MGD, "defeat": DeFeat}


class Detector(nn.Module):
    """As much of a one-stage detector as CrossKD looks at."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head


class FasterRCNN(nn.Module):
    """A detector without dense heads."""


def make_adapter(
    *,
    channels: int = 6,
    seed: int = 0,
    activation: str = "sigmoid",
    classes: int = 3,
    strides: tuple[int, ...] = STRIDES,
) -> SimpleNamespace:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Detector(RetinaNetHead(channels, 2, classes)) if activation == "sigmoid" else FasterRCNN()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return SimpleNamespace(model=model, strides=strides, channels=channels, activation=activation, classes=classes)


def make_all(seed: int = 0, *, channels: int = 6) -> tuple[Together, SimpleNamespace, SimpleNamespace]:
    """Every kind of knowledge between two one-stage detectors."""
    student, teacher = make_adapter(channels=channels, seed=3), make_adapter(seed=4)
    for parameter in teacher.model.parameters():
        parameter.requires_grad_(False)
    knowledge = built(list(BUILT_IN), student, teacher, seed=seed)
    gkd_of(knowledge).use(make_prototypes(channels, 6))
    return knowledge, student, teacher


def gkd_of(losses: Together) -> GlobalKnowledge:
    (found,) = [part for part in losses.parts.values() if isinstance(part, GlobalKnowledge)]
    return found


def make_peer(name: str, student: int = 6, teacher: int = 6) -> Any:
    torch.manual_seed(2)
    return ready(ON_MAPS[name](), student, teacher)


def only(losses: dict[str, Tensor]) -> float:
    (value,) = losses.values()
    return value.item()


def aligned(peer: Any, student: Trace) -> list[Tensor]:
    return [align(maps).detach().double() for align, maps in zip(peer.aligning, student.pyramid, strict=True)]


@pytest.mark.parametrize("channels", [6, 5])
def test_feature_error_is_relative_to_the_teachers_energy(channels):
    peer = make_peer("mse", channels)
    student, teacher = make_trace(1, channels=channels), make_trace(2)
    want = []
    for own, aim in zip(aligned(peer, student), teacher.pyramid, strict=True):
        pairs = list(zip(own.flatten().tolist(), aim.flatten().tolist(), strict=True))
        want.append(sum((a - b) ** 2 for a, b in pairs) / sum(b**2 for _, b in pairs))
    assert only(peer(student, teacher, make_view(), 0.0)) == pytest.approx(5 * sum(want) / 3, rel=1e-5)
    assert len(list(peer.parameters())) == (0 if channels == 6 else 6)


@pytest.mark.parametrize("channels", [6, 5])
def test_pearson_distance_is_one_minus_correlation(channels):
    peer = make_peer("pkd", channels)
    student, teacher = make_trace(1, channels=channels), make_trace(2)
    correlations = []
    for own, aim in zip(aligned(peer, student), teacher.pyramid, strict=True):
        rows = [torch.stack([own[:, c].flatten(), aim[:, c].flatten().double()]) for c in range(6)]
        correlations.append(torch.stack([torch.corrcoef(row)[0, 1] for row in rows]).mean().item())
    want = 24 * (1 - sum(correlations) / 3)
    assert only(peer(student, teacher, make_view(), 0.0)) == pytest.approx(want, rel=1e-5)


def test_pearson_distance_ignores_scale_and_offset_of_channels():
    peer, student, teacher = make_peer("pkd"), make_trace(1), make_trace(2)
    scale, offset = torch.rand(6, 1, 1) + 0.5, torch.randn(6, 1, 1)
    moved = replace(student, pyramid=tuple(maps * scale + offset for maps in student.pyramid))
    view = make_view()
    assert only(peer(moved, teacher, view, 0.0)) == pytest.approx(only(peer(student, teacher, view, 0.0)), rel=1e-5)
    assert only(peer(moved, student, view, 0.0)) == pytest.approx(0, abs=1e-6)
    flat = replace(student, pyramid=tuple(torch.ones_like(maps) for maps in student.pyramid))
    assert only(peer(flat, teacher, view, 0.0)) == pytest.approx(12, rel=1e-4)


def test_masked_generation_rebuilds_the_teacher_from_what_is_left():
    peer, view = make_peer("mgd", 5), make_view()
    student, teacher = make_trace(1, channels=5), make_trace(2)
    assert view.seeds is not None
    want = []
    for level, own in enumerate(aligned(peer, student)):
        aim = teacher.pyramid[level].double()
        kept = torch.stack(
            [torch.rand(1, *own.shape[2:], generator=stream(seed, "mgd", level)) >= 0.65 for seed in view.seeds]
        )
        made = peer.generating[level](torch.where(kept, own, 0).float()).double()
        want.append(((made - aim).square().sum() / aim.square().sum()).item())
    assert only(peer(student, teacher, view, 0.0)) == pytest.approx(5 * sum(want) / 3, rel=1e-5)


def test_masks_hide_their_share_and_follow_the_seeds():
    student, teacher = make_trace(1), make_trace(2)
    peer = ready(MGD(masked=0.65), levels=((0, 0),), strides=STRIDES[:1])
    (first,) = peer.generating
    seen = []
    first.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0][:, 0] != 0))
    view = make_view()
    peer(student, teacher, view, 0.0)
    peer(student, teacher, view, 0.5)
    peer(student, teacher, replace(view, seeds=(71, 70, 5)), 0.0)
    assert view.seeds == (70, 71, 72)
    assert seen[0].equal(seen[1])
    assert seen[2][0].equal(seen[0][1])
    assert seen[2][1].equal(seen[0][0])
    assert not seen[2][2].equal(seen[0][2])
    assert seen[0].float().mean().item() == pytest.approx(0.35, abs=0.05)
    torch.manual_seed(0)
    peer(student, teacher, replace(view, seeds=None), 0.0)
    peer(student, teacher, replace(view, seeds=None), 0.0)
    assert not seen[3].equal(seen[4])


def slow_weighted(own: Tensor, aim: Tensor, weights: Tensor) -> float:
    """sum w (s - t)^2 / mean t^2, with weights that are complete."""
    return ((weights * (own - aim).square()).sum() / aim.square().mean()).item()


def test_decoupled_features_are_two_means():
    peer, view = make_peer("defeat", 5), make_view()
    student, teacher = make_trace(1, channels=5), make_trace(2)
    inside, outside = [], []
    for own, aim, stride in zip(aligned(peer, student), teacher.pyramid, STRIDES, strict=True):
        boxes = [target["boxes"] for target in view.targets]
        size = (own.shape[2], own.shape[3])
        mask = torch.stack([slow_mask(some, torch.ones(len(some)), size, stride) for some in boxes])[:, None]
        mask = mask.expand_as(own)
        inside.append(slow_weighted(own, aim.double(), mask / mask.sum()))
        outside.append(slow_weighted(own, aim.double(), (1 - mask) / (1 - mask).sum()))
    losses = peer(student, teacher, view, 0.0)
    assert losses["defeat.foreground"].item() == pytest.approx(sum(inside) / 3, rel=1e-5)
    assert losses["defeat.background"].item() == pytest.approx(4 * sum(outside) / 3, rel=1e-5)


def slow_attention(maps: Tensor) -> tuple[Tensor, Tensor]:
    n, c, h, w = maps.shape
    cells, channels = torch.zeros(n, 1, h, w, dtype=torch.float64), torch.zeros(n, c, 1, 1, dtype=torch.float64)
    for i in range(n):
        where = (maps[i].abs().sum(0) / c / 0.5).exp()
        which = (maps[i].abs().sum((1, 2)) / (h * w) / 0.5).exp()
        cells[i, 0], channels[i, :, 0, 0] = h * w * where / where.sum(), c * which / which.sum()
    return cells, channels


def slow_context(block: nn.Module, maps: Tensor) -> Tensor:
    """F + W2 relu(LN(W1 sum_j a_j F_j)), with the weights of the block."""
    get = {name: parameter.detach().double() for name, parameter in block.named_parameters()}
    out = maps.clone()
    for i, some in enumerate(maps):
        scores = torch.einsum("c,chw->hw", get["weigh.weight"][0, :, 0, 0], some) + get["weigh.bias"]
        attended = (some * (scores.exp() / scores.exp().sum())).sum((1, 2))
        low = get["narrow.weight"] @ attended + get["narrow.bias"]
        low = (low - low.mean()) / (low.var(correction=0) + 1e-5).sqrt() * get["norm.weight"] + get["norm.bias"]
        out[i] = some + (get["widen.weight"] @ low.clamp(min=0) + get["widen.bias"])[:, None, None]
    return out


def test_focal_and_global_distillation_is_its_equation():
    peer, view = make_peer("fgd", 5), make_view()
    for parameter in [*peer.student_context.parameters(), *peer.teacher_context.parameters()]:
        nn.init.normal_(parameter, std=0.5)
    student, teacher = make_trace(1, channels=5), make_trace(2)
    want = {"foreground": 0.0, "background": 0.0, "attention": 0.0, "global": 0.0}
    for level, (own, aim) in enumerate(zip(aligned(peer, student), teacher.pyramid, strict=True)):
        aim, stride = aim.double(), STRIDES[level]
        (cells, channels), (aim_cells, aim_channels) = slow_attention(own), slow_attention(aim)
        inside, outside = torch.zeros_like(cells), torch.zeros_like(cells)
        for i, target in enumerate(view.targets):
            x1, y1, x2, y2 = target["boxes"].unbind(1)
            scale = 1 / ((x2 - x1) * (y2 - y1) / stride**2).clamp(min=1)
            inside[i, 0] = slow_mask(target["boxes"], scale, (cells.shape[2], cells.shape[3]), stride)
            idle = inside[i] == 0
            outside[i] = idle / idle.sum()
        focus = aim_cells * aim_channels
        want["foreground"] += slow_weighted(own, aim, focus * inside / (6 * inside.sum())) * 4 / 3
        want["background"] += slow_weighted(own, aim, focus * outside / (6 * outside.sum())) * 2 / 3
        gap = (cells - aim_cells).abs().mean() + (channels - aim_channels).abs().mean()
        want["attention"] += gap.item() / 3
        after, aim_after = (
            slow_context(peer.student_context[level], own),
            slow_context(peer.teacher_context[level], aim),
        )
        want["global"] += ((after - aim_after).square().sum() / aim_after.square().sum()).item() / 3
    losses = peer(student, teacher, view, 0.0)
    assert set(losses) == {f"fgd.{name}" for name in want}
    for name, value in want.items():
        assert losses[f"fgd.{name}"].item() == pytest.approx(value, rel=2e-5), name


def test_responses_by_hand():
    zeros, odds = torch.zeros(1, 2), torch.tensor([[3 * math.log(3.0), 0.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert soft_label_distance(zeros, odds, "softmax", 3.0).item() == pytest.approx(9 * divergence)
    assert soft_label_distance(zeros, odds, "sigmoid", 3.0).item() == pytest.approx(9 * divergence)
    both = torch.tensor([[3 * math.log(3.0), -3 * math.log(3.0)]])
    assert soft_label_distance(zeros, both, "sigmoid", 3.0).item() == pytest.approx(18 * divergence)
    large = torch.tensor([[200.0, -200.0]])
    assert soft_label_distance(large, -large, "sigmoid", 1.0).item() == pytest.approx(400)
    assert soft_label_distance(large, -large, "softmax", 1.0).item() == pytest.approx(400)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_response_is_the_mean_over_instances(activation):
    student, teacher = make_trace(1, activation=activation), make_trace(2, activation=activation)
    rows = soft_label_distance(student.logits, teacher.logits, activation, 3.0)
    want = 0.5 * sum(rows.tolist()) / 5
    losses = Together(nn.ModuleDict({"response": ResponseKL(weight=0.5, temperature=3.0)}))
    assert only(losses(student, teacher, make_view(), 0.0)) == pytest.approx(want)


def one_stage_prediction(head: Any, features: Tensor, kind: str, blocks: int) -> tuple[Tensor, Tensor]:
    """Of a RetinaNet head: the features after `blocks` convolutions, before activation; and its own prediction."""
    head = getattr(head, "classification_head" if kind == "class" else "regression_head")
    for block in head.conv[: blocks - 1]:
        features = block(features)
    return head.conv[blocks - 1][0](features), (head.cls_logits if kind == "class" else head.bbox_reg)(
        head.conv(features) if blocks == 1 else head.conv[blocks:](head.conv[blocks - 1](features))
    )


def crossed(student: Any, teacher: Any, **options: Any) -> CrossKD:
    loss = CrossKD(**options)
    loss.prepare(student, teacher)
    return loss


def test_crossing_heads_is_its_equation():
    student_adapter, teacher_adapter = make_adapter(channels=5, seed=3), make_adapter(seed=4, classes=4)
    crossing = CrossKD(class_weight=2.0, box_weight=3.0)
    crossing.prepare(student_adapter, teacher_adapter)  # pyright: ignore[reportArgumentType]
    student, teacher = make_trace(1, channels=5, activation="sigmoid"), make_trace(2, classes=4, activation="sigmoid")
    classes, boxes, confidence = 0.0, 0.0, 0.0
    for level in range(3):
        crossed = {}
        for kind, align in (("class", crossing.class_aligning), ("box", crossing.box_aligning)):
            own, _ = one_stage_prediction(student_adapter.model.head, student.pyramid[level], kind, 3)
            aim, aims = one_stage_prediction(teacher_adapter.model.head, teacher.pyramid[level], kind, 3)
            own, aim, aims = align[level](own).double(), aim.double(), aims.double()
            for c in range(6):
                rows = own[:, c].clone()
                own[:, c] = (rows - rows.mean()) / rows.std(correction=0) * aim[:, c].std(correction=0) + aim[
                    :, c
                ].mean()
            head = teacher_adapter.model.head
            head = head.classification_head if kind == "class" else head.regression_head
            predictor = head.cls_logits if kind == "class" else head.bbox_reg
            crossed[kind] = predictor(head.conv[3](own.relu().float())).double(), aims
        x, y = crossed["class"]
        p, x_p = y.sigmoid(), x.sigmoid()
        divergence = p * (p / x_p).log() + (1 - p) * ((1 - p) / (1 - x_p)).log()
        classes += ((x_p - p).abs() * divergence).sum().item()
        best = p.view(3, 2, 4, *p.shape[2:]).amax(2)
        gap = (crossed["box"][0] - crossed["box"][1]).abs().view(3, 2, 4, *p.shape[2:])
        boxes += (best * torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean(2)).sum().item()
        confidence += best.sum().item()
    losses = crossing(student, teacher, make_view(), 0.0)
    assert losses["crosskd.class"].item() == pytest.approx(2 * classes / confidence, rel=1e-4)
    assert losses["crosskd.box"].item() == pytest.approx(3 * boxes / confidence, rel=1e-4)


def test_crossing_leaves_the_detectors_out_of_its_own_weights():
    student, teacher = make_adapter(channels=5), make_adapter(seed=1)
    crossing = crossed(student, teacher)
    assert {name.split(".")[0] for name, _ in crossing.named_parameters()} == {"class_aligning", "box_aligning"}
    assert not list(crossed(make_adapter(), teacher).parameters())


def test_crossing_works_on_the_heads_of_fcos():
    torch.manual_seed(0)
    one, other = (
        SimpleNamespace(model=Detector(FCOSHead(32, 1, 3)), strides=STRIDES, activation="sigmoid") for _ in range(2)
    )
    crossing = crossed(one, other)
    student, teacher = (make_trace(i, channels=32, activation="sigmoid", gradient=True) for i in (1, 2))
    losses = crossing(student, teacher, make_view(), 0.0)
    (losses["crosskd.class"] + losses["crosskd.box"]).backward()
    assert all(maps.grad is not None and maps.grad.abs().sum() > 0 for maps in student.pyramid)
    assert all(maps.grad is None for maps in teacher.pyramid)
    same = crossed(one, one)(student, student, make_view(), 0.0)
    assert [value.item() for value in same.values()] == pytest.approx([0, 0], abs=1e-9)


def test_nothing_to_learn_from_oneself():
    trace, view, adapter = make_trace(1, activation="sigmoid"), make_view(), make_adapter()
    names = ["mse", "pkd", "fgd", "defeat", "response", "crosskd"]
    losses = built(names, adapter, adapter)(trace, trace, view, 0.0)
    assert len(losses) == 1 + 1 + 4 + 2 + 1 + 2
    for name, value in losses.items():
        assert value.item() == pytest.approx(0, abs=1e-8), name


@pytest.mark.parametrize("name", ["mse", "pkd", "defeat"])
def test_the_scale_of_features_does_not_matter(name):
    student, teacher, view, peer = make_trace(1), make_trace(2), make_view(), make_peer(name)
    larger = [replace(trace, pyramid=tuple(50 * maps for maps in trace.pyramid)) for trace in (student, teacher)]
    losses, same = peer(student, teacher, view, 0.0), peer(*larger, view, 0.0)
    for key, value in losses.items():
        torch.testing.assert_close(same[key], value)


def test_gradients_reach_the_student_and_every_weight_and_never_the_teacher():
    knowledge, adapter, teacher_adapter = make_all(channels=5)
    student = make_trace(1, channels=5, activation="sigmoid", gradient=True)
    teacher = make_trace(2, activation="sigmoid", gradient=True)
    losses = knowledge(student, teacher, make_view(), 0.0)
    torch.stack(list(losses.values())).sum().backward()
    for maps in (*student.pyramid, student.logits):
        assert maps.grad is not None
        assert maps.grad.isfinite().all()
        assert maps.grad.abs().sum() > 0
    assert all(maps.grad is None for maps in (*teacher.pyramid, teacher.logits))
    assert all(parameter.grad is None for parameter in teacher_adapter.model.parameters())
    assert any(parameter.grad is not None for parameter in adapter.model.parameters())
    for name, parameter in knowledge.named_parameters():
        assert parameter.grad is not None, name


def test_batches_without_objects_are_finite():
    knowledge, *_ = make_all()
    student = make_trace(1, activation="sigmoid", empty=True, gradient=True)
    losses = knowledge(student, make_trace(2, activation="sigmoid", empty=True), make_view(empty=True), 0.0)
    for name in ("gkd.foreground", "gkd.soft", "fgd.foreground", "defeat.foreground", "response"):
        assert losses[name].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    for maps in student.pyramid:
        assert maps.grad is not None
        assert maps.grad.isfinite().all()
    blank = replace(student, pyramid=tuple(torch.zeros_like(maps) for maps in student.pyramid))
    for name, value in knowledge(blank, blank, make_view(empty=True), 0.0).items():
        assert value.isfinite(), name


def test_losses_are_float32_in_mixed_precision():
    knowledge, *_ = make_all()
    student, teacher, view = make_trace(1, activation="sigmoid"), make_trace(2, activation="sigmoid"), make_view()
    plain = knowledge(student, teacher, view, 0.0)
    half = [
        replace(trace, pyramid=tuple(maps.bfloat16() for maps in trace.pyramid), logits=trace.logits.bfloat16())
        for trace in (student, teacher)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = knowledge(*half, view, 0.0)
    for name, value in mixed.items():
        assert value.dtype == torch.float32, name
        assert value.item() == pytest.approx(plain[name].item(), rel=0.05), name


def test_every_loss_that_settings_may_name_is_built():
    assert tuple(BUILT_IN) == LOSSES


def test_knowledge_adds_up_and_weighs():
    student, teacher = make_adapter(), make_adapter(seed=1)
    traces = make_trace(1, activation="sigmoid"), make_trace(2, activation="sigmoid")
    both = built(["gkd,pkd=0.5"], student, teacher, Distillation(gkd=GlobalSettings(adapting_kernel=1)), seed=3)
    losses = both(*traces, make_view(), 0.0)
    alone = built(["pkd"], student, teacher)(*traces, make_view(), 0.0)
    assert list(losses) == ["gkd.foreground", "gkd.background", "gkd.soft", "pkd"]
    assert losses["pkd"].item() == pytest.approx(0.5 * alone["pkd"].item())
    gkd = gkd_of(both)
    assert gkd.last is not None
    assert gkd.last.own.tolist() == [1.0] * 5
    gkd.use(make_prototypes())
    assert "gkd.global" in both(*traces, make_view(), 0.0)
    assert gkd.last.own.min() < 1


def test_prototypes_are_wanted_where_something_measures_by_them():
    def wanted(**settings: Any) -> bool:
        return GlobalKnowledge(settings=GlobalSettings(**settings)).wants_prototypes

    assert wanted()
    assert wanted(use_global=False)
    assert wanted(reliability="one")
    assert not wanted(reliability="one", use_global=False)
    assert not wanted(reliability="one", global_weight=0.0)


def test_initial_weights_depend_on_seed_and_name_alone():
    state = torch.get_rng_state()
    student, teacher = make_adapter(channels=5), make_adapter()
    one = built(["gkd", "mse"], student, teacher, seed=1).state_dict()
    other = built(["pkd", "mse", "gkd"], student, teacher, seed=1).state_dict()
    another = built(["gkd"], student, teacher, seed=2).state_dict()
    assert torch.get_rng_state().equal(state)
    for name, value in one.items():
        assert other[name].equal(value)
    assert not other["parts.mse.aligning.0.weight"].equal(other["parts.pkd.aligning.0.weight"])
    assert not another["parts.gkd.adapting.0.weight"].equal(one["parts.gkd.adapting.0.weight"])


def test_detectors_meet_on_the_levels_of_equal_stride():
    student, teacher = make_adapter(strides=(8, 16)), make_adapter(strides=(4, 8, 16))
    knowledge = built(["mse"], student, teacher)
    shifted = make_trace(1, strides=(8, 16), activation="sigmoid")
    want = ready(FeatureMSE(), levels=((0, 1), (1, 2)), strides=(8, 16))(shifted, make_trace(2), make_view(), 0.0)
    assert knowledge(shifted, make_trace(2), make_view(), 0.0)["mse"].item() == want["mse"].item()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["gkd", "PKT"],
            "unknown loss 'PKT'. Did you mean pkd? Choose from gkd, mse, pkd, fgd, mgd, defeat, response, crosskd.",
        ),
        (["xyzzy"], "unknown loss 'xyzzy'. Choose from gkd, mse, pkd, fgd, mgd, defeat, response, crosskd."),
        (["gkd,mse,gkd"], "the loss 'gkd' is named more than once: give it a factor instead."),
        (["gkd", "mse", "gkd"], "two losses are named 'gkd': leave one out, or give it another `name`."),
        (["pkd", PKD(0.5)], "two losses are named 'pkd': leave one out, or give it another `name`."),
        (["pkd=0"], "loss is pkd=0: '0' is no factor; write pkd=0.5, say."),
    ],
)
def test_names_that_cannot_be(names, message):
    with pytest.raises(DistilError) as error:
        built(names, make_adapter(), make_adapter())
    assert str(error.value) == message


def typo(value: Any) -> Any:
    """What the types do not allow."""
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PKD(form=typo("publishd")),
            "unknown form 'publishd'. Did you mean published? Choose from distil, published.",
        ),
        (lambda: FGD(context=-1.0), "context of fgd is -1.0: give a finite number, at least 0."),
        (lambda: CrossKD(box_weight=math.nan), "box_weight of crosskd is nan: give a finite number, at least 0."),
        (lambda: DeFeat(form=typo("x")), "unknown form 'x'. Choose from distil, published."),
        (lambda: MGD(masked=1.0), "masked of mgd is 1.0: it is a share, at least 0 and below 1."),
        (
            lambda: GlobalKnowledge(form=typo("distl")),
            "unknown form 'distl'. Did you mean distil? Choose from distil, published.",
        ),
        (
            lambda: built([typo(PKD)], make_adapter(), make_adapter()),
            "is no loss: give an object, as PKD(0.05), or a name.",
        ),
    ],
)
def test_losses_that_cannot_be(make, message):
    with pytest.raises(DistilError) as error:
        make()
    assert str(error.value).endswith(message)


def test_kinds_that_two_detectors_cannot_share():
    two, one = make_adapter(activation="softmax"), make_adapter()
    for name, remedy in (("gkd", "switch that off (soft_weight=0)"), ("response", "leave it out")):
        with pytest.raises(DistilError) as error:
            built([name], two, one)
        assert str(error.value) == (
            f"{name} compares class responses, but the student's end in a softmax and the teacher's in a sigmoid: "
            f"{remedy}, or use a teacher of the student's kind"
        )
    without = built(["gkd"], two, one, Distillation(gkd=GlobalSettings(soft_weight=0.0)))
    assert gkd_of(without).wants_prototypes
    with pytest.raises(DistilError) as error:
        built(["crosskd"], one, two)
    assert str(error.value) == (
        "crosskd sends the student's features through the teacher's head and needs a one-stage detector (retinanet, "
        "fcos) on both sides; one side is a FasterRCNN. Leave crosskd out, or use gkd, pkd or fgd"
    )


def part_of(trace: Trace, view: View, images: slice) -> tuple[Trace, View]:
    """Some images of a batch."""
    lengths = [len(boxes) for boxes in trace.boxes]
    start = sum(lengths[: images.start])
    rows = slice(start, start + sum(lengths[images]))
    assert view.seeds is not None
    return (
        replace(
            trace,
            pyramid=tuple(maps[images] for maps in trace.pyramid),
            boxes=trace.boxes[images],
            labels=trace.labels[rows],
            logits=trace.logits[rows],
        ),
        View(view.images[images], view.sizes[images], view.targets[images], view.mean, view.std, view.seeds[images]),
    )


def gradients_of_all(images: slice) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses, and gradients of their sum with respect to all weights and the student's maps, of images of a batch."""
    knowledge, adapter, _ = make_all(channels=5)
    view = make_view(images=4)
    student = make_trace(1, channels=5, images=4, activation="sigmoid", gradient=True)
    teacher = make_trace(2, images=4, activation="sigmoid")
    own, some = part_of(student, view, images)
    losses = knowledge(own, part_of(teacher, view, images)[0], some, 0.0)
    torch.stack(list(losses.values())).sum().backward()
    named = {**dict(knowledge.named_parameters()), **dict(adapter.model.named_parameters())}
    named |= {f"map {i}": maps for i, maps in enumerate(student.pyramid)} | {"logits": student.logits}
    gradients = {name: value.grad for name, value in named.items() if value.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


def as_one_of_two(rank: int, folder: str) -> None:
    """Write what this process computes of the batch: the first gets one image, the second three."""
    torch.set_num_threads(1)
    distributed = torch.distributed
    waiting = timedelta(seconds=120)
    distributed.init_process_group("gloo", f"file://{folder}/store", waiting, world_size=2, rank=rank)
    try:
        torch.save(gradients_of_all(slice(0, 1) if rank == 0 else slice(1, 4)), f"{folder}/{rank}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def as_the_second(_: int, folder: str) -> None:
    as_one_of_two(1, folder)


def test_two_processes_together_compute_what_one_does(tmp_path: Path):
    """Three instances here, two there: the mean of losses and of gradients is the whole batch's."""
    losses, gradients = gradients_of_all(slice(0, 4))
    other = spawn(as_the_second, (str(tmp_path),), nprocs=1, join=False)
    as_one_of_two(0, str(tmp_path))
    assert other is not None
    while not other.join():
        pass
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert len(losses) == 16
    for name, value in losses.items():
        mean = (parts[0][0][name] + parts[1][0][name]) / 2
        torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-6, msg=name)
    for name, value in gradients.items():
        mean = (parts[0][1][name] + parts[1][1][name]) / 2
        torch.testing.assert_close(mean, value, rtol=1e-3, atol=1e-5, msg=name)
