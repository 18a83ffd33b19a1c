"""Losses in the form that their authors released: against loops over the released equations in float64, and by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import generalized_box_iou_loss

from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.losses.crosskd import CrossKD
from distil.detector.losses.defeat import DeFeat
from distil.detector.losses.fgd import FGD
from distil.detector.losses.maps import kind_of
from distil.detector.losses.mgd import MGD
from distil.detector.presets import detector_preset
from distil.detector.settings import Distillation
from distil.rng import stream
from tests.detector.test_peers import Detector, crossed, make_adapter, slow_attention, slow_context
from tests.detector.traces import STRIDES, built, make_prototypes, make_trace, make_view, ready

FIVE = (4, 8, 16, 32, 64)
PUBLISHED = Distillation(loss_form="published")


def released_level(box: list[float], count: int) -> int:
    side = math.sqrt((box[2] - box[0] + 1) * (box[3] - box[1] + 1))
    return min(max(math.floor(math.log2(side / 56 + 1e-6)), 0), count - 1)


def floored_mask(boxes: Tensor, values: list[float], size: tuple[int, int], stride: int) -> Tensor:
    out = torch.zeros(size, dtype=torch.float64)
    for box, value in zip(boxes.tolist(), values, strict=True):
        left, top, right, bottom = (int(x / stride) for x in box)
        right, bottom = min(right, size[1]), min(bottom, size[0])
        if left == right or top == bottom:
            right, bottom = left + 1, top + 1
        part = out[top:bottom, left:right]
        part.copy_(part.clamp_min(value))
    return out


def test_local_terms_of_gkd_have_the_released_levels_masks_and_sums():
    """OneStageDetStrategy.get_gt_mask and KDLoss of the released code, with every reliability 1 (no prototypes)."""
    torch.manual_seed(1)
    knowledge = ready(GlobalKnowledge(form="published"), 5)
    student, teacher = make_trace(1, channels=5), make_trace(2)
    foreground, background = [], []
    for level, stride in enumerate(STRIDES):
        gaps = (knowledge.adapting[level](student.pyramid[level]) - teacher.pyramid[level]).double().square()
        mask = torch.zeros_like(gaps)
        for image, boxes in enumerate(student.boxes):
            here = boxes[[released_level(box, 3) == level for box in boxes.tolist()]]
            mask[image] = floored_mask(here, [1.0] * len(here), (gaps.shape[2], gaps.shape[3]), stride)
        foreground.append(((gaps * mask).sum() / max(1.0, 2 * mask.sum().item())).item())
        background.append(((gaps * (1 - mask)).sum() / max(1.0, 2 * (1 - mask).sum().item())).item())
    two_stage = knowledge(student, teacher, make_view(), 0.25)
    assert two_stage["gkd.foreground"].item() == pytest.approx(0.75 * sum(foreground) / 3, rel=1e-5)
    assert two_stage["gkd.background"].item() == pytest.approx(4 * 0.75 * sum(background) / 3, rel=1e-5)
    one_stage = knowledge(replace(student, dense=torch.zeros(3, 1, 3)), teacher, make_view(), 0.25)
    assert one_stage["gkd.foreground"].item() == pytest.approx(0.75 * sum(foreground), rel=1e-5)
    assert one_stage["gkd.background"].item() == pytest.approx(4 * 0.75 * sum(background), rel=1e-5)


def test_one_stage_detectors_have_means_over_levels_unless_published():
    student, teacher = make_trace(1), make_trace(2)
    torch.manual_seed(1)
    knowledge = ready(GlobalKnowledge())
    losses = [knowledge(replace(student, dense=x), teacher, make_view(), 0.0) for x in (None, torch.zeros(3, 1, 3))]
    assert losses[0]["gkd.background"].item() == losses[1]["gkd.background"].item()


def test_instances_of_gkd_lie_on_the_released_levels():
    """A square of 111.5 pixels has, with one added, 112.5; on P3 to P7 the level is an index."""
    boxes = torch.tensor([[0, 0, 110.5, 110.5], [0, 0, 111.5, 111.5], [0, 0, 119.0, 104.0]])
    labels, logits = torch.ones(3, dtype=torch.int64), torch.zeros(3, 4)
    trace = replace(make_trace(1), boxes=(boxes[:2], boxes[2:], boxes[:0]), labels=labels, logits=logits)
    for strides in (STRIDES, (8, 16, 32)):
        own = ready(GlobalKnowledge(form="published"), strides=strides)
        own.use(make_prototypes(strides=strides))
        assert own.measure(trace, trace).level.tolist() == [0, 1, 1]
        assert ready(GlobalKnowledge(), strides=strides).measure(trace, trace).level.tolist() == [0, 0, 0]


def pearson(own: Tensor, aim: Tensor) -> float:
    rows = [torch.stack([own[:, c].flatten(), aim[:, c].flatten()]).double() for c in range(own.shape[1])]
    return 1 - torch.stack([torch.corrcoef(row)[0, 1] for row in rows]).mean().item()


@pytest.mark.parametrize(
    ("student", "teacher", "weight"),
    [("softmax", "softmax", 6), ("sigmoid", "softmax", 6), ("sigmoid", "sigmoid", 10), ("softmax", "sigmoid", 6)],
)
def test_pkd_weighs_each_of_the_four_finest_levels(student, teacher, weight):
    adapters = [make_adapter(activation=kind, strides=FIVE) for kind in (student, teacher)]
    pkd = built(["pkd"], adapters[0], adapters[1], PUBLISHED)
    traces = [make_trace(seed, strides=FIVE) for seed in (1, 2)]
    want = weight * sum(pearson(traces[0].pyramid[level], traces[1].pyramid[level]) for level in range(4))
    assert pkd(*traces, make_view(), 0.0)["pkd"].item() == pytest.approx(want, rel=1e-5)
    of_all = sum(pearson(own, aim) for own, aim in zip(traces[0].pyramid, traces[1].pyramid, strict=True))
    distil = built(["pkd"], adapters[0], adapters[1])(*traces, make_view(), 0.0)["pkd"].item()
    assert distil == pytest.approx(24 / 5 * of_all, rel=1e-5)


def test_masked_generation_sums_over_cells_channels_and_levels():
    torch.manual_seed(2)
    peer, view = ready(MGD(form="published"), 5), make_view()
    student, teacher = make_trace(1, channels=5), make_trace(2)
    assert view.seeds is not None
    want = 0.0
    for level, (own, aim) in enumerate(zip(student.pyramid, teacher.pyramid, strict=True)):
        kept = [torch.rand(1, *own.shape[2:], generator=stream(seed, "mgd", level)) >= 0.45 for seed in view.seeds]
        made = peer.generating[level](peer.aligning[level](own) * torch.stack(kept))
        want += 5e-7 * (made.double() - aim.double()).square().sum().item() / 3
    assert peer(student, teacher, view, 0.0)["mgd"].item() == pytest.approx(want, rel=1e-5)


def test_decoupled_features_count_boxes_on_their_own_level_alone():
    torch.manual_seed(2)
    peer, view = ready(DeFeat(form="published"), 5), make_view()
    first = next(iter(peer.aligning)).get_parameter("weight")
    assert first.shape == (6, 5, 3, 3)
    assert 0 < first.abs().max().item() < 2e-4
    student, teacher = make_trace(1, channels=5), make_trace(2)
    inside, outside = 0.0, 0.0
    for level, stride in enumerate(STRIDES):
        gaps = (peer.aligning[level](student.pyramid[level]) - teacher.pyramid[level]).double().square()
        mask = torch.zeros_like(gaps)
        for image, target in enumerate(view.targets):
            here = target["boxes"][[released_level(box, 3) == level for box in target["boxes"].tolist()]]
            mask[image] = floored_mask(here, [1.0] * len(here), (gaps.shape[2], gaps.shape[3]), stride)
        inside += ((gaps * mask).sum() / max(1.0, 2 * mask.sum().item())).item()
        outside += ((gaps * (1 - mask)).sum() / max(1.0, 2 * (1 - mask).sum().item())).item()
    losses = peer(student, teacher, view, 0.0)
    assert losses["defeat.foreground"].item() == pytest.approx(3 * inside / 3, rel=1e-5)
    assert losses["defeat.background"].item() == pytest.approx(12 * outside / 3, rel=1e-5)


def test_focal_distillation_is_the_released_sum_over_rounded_boxes():
    """FeatureLoss of FGD's code: boxes from floor to ceil and one cell more, everything summed, divided by images."""
    torch.manual_seed(2)
    weights = {"foreground": 2.0, "background": 3.0, "attention": 5.0, "context": 7.0}
    peer, view = ready(FGD(**weights, form="published"), 5), make_view()
    student, teacher = make_trace(1, channels=5), make_trace(2)
    want = dict.fromkeys(("foreground", "background", "attention", "global"), 0.0)
    for level, stride in enumerate(STRIDES):
        own = peer.aligning[level](student.pyramid[level]).detach().double()
        aim = teacher.pyramid[level].double()
        (cells, channels), (aim_cells, aim_channels) = slow_attention(own), slow_attention(aim)
        inside, outside = torch.zeros_like(cells), torch.zeros_like(cells)
        for image, target in enumerate(view.targets):
            for x1, y1, x2, y2 in (target["boxes"] / stride).tolist():
                left, top, right, bottom = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
                area = (right + 1 - left) * (bottom + 1 - top)
                part = inside[image, 0, top : bottom + 1, left : right + 1]
                part.copy_(part.clamp_min(1 / area))
            outside[image] = (inside[image] == 0) / max(1, int((inside[image] == 0).sum()))
        gaps = (own - aim).square() * aim_cells * aim_channels
        want["foreground"] += 2 * (gaps * inside).sum().item() / 3
        want["background"] += 3 * (gaps * outside).sum().item() / 3
        attention = (cells - aim_cells).abs().sum() + (channels - aim_channels).abs().sum()
        want["attention"] += 5 * attention.item() / 3
        after = slow_context(peer.student_context[level], own) - slow_context(peer.teacher_context[level], aim)
        want["global"] += 7 * after.square().sum().item() / 3
    losses = peer(student, teacher, view, 0.0)
    for name, value in want.items():
        assert losses[f"fgd.{name}"].item() == pytest.approx(value, rel=2e-5), name


def test_weights_and_levels_follow_the_kind_of_detector():
    rcnn, retinanet = (make_adapter(activation=kind, strides=FIVE) for kind in ("softmax", "sigmoid"))
    fcos = SimpleNamespace(model=Detector(FCOSHead(32, 1, 3)), strides=FIVE, channels=32, activation="sigmoid")
    assert [kind_of(adapter) for adapter in (rcnn, retinanet, fcos)] == ["two-stage", "retinanet", "fcos"]

    def part_of(name: str, student: Any, teacher: Any) -> Any:
        return built([name], student, teacher, PUBLISHED).parts[name]

    fgd = [part_of("fgd", student, retinanet) for student in (rcnn, retinanet, fcos)]
    assert [len(part.levels) for part in fgd] == [4, 5, 5]
    assert [part.weights["foreground"] for part in fgd] == [5e-5, 1e-3, 1.6e-3]
    assert [part.temperature for part in fgd] == [0.5, 0.5, 0.8]
    mgd = [part_of("mgd", student, retinanet) for student in (rcnn, retinanet)]
    assert [(len(part.levels), part.scale, part.masked) for part in mgd] == [(4, 5e-7, 0.45), (5, 2e-5, 0.65)]
    cross = [part_of("crosskd", retinanet, retinanet), part_of("crosskd", fcos, fcos)]
    assert [(part.class_weight, part.box_weight, part.reused) for part in cross] == [(1, 1, 1), (0.4, 0.75, 2)]
    defeat = part_of("defeat", rcnn, rcnn)
    assert (defeat.foreground, defeat.background, defeat.form) == (3.0, 12.0, "published")
    distil = built(["fgd", "mgd", "defeat", "crosskd"], retinanet, retinanet).parts
    assert [part.form for part in distil.values()] == ["distil"] * 4


def decoded(codes: Tensor, x: float, y: float, w: float, h: float) -> Tensor:
    """RetinaNet's boxes of an anchor with this middle and size."""
    dx, dy, dw, dh = codes.unbind(-1)
    half_w, half_h = w * dw.exp() / 2, h * dh.exp() / 2
    return torch.stack([x + w * dx - half_w, y + h * dy - half_h, x + w * dx + half_w, y + h * dy + half_h], -1)


def crossed_parts(crossing: CrossKD, student: Any, teacher: Any) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of every level crossed and aimed class logits, (n, a, k, h, w), and box codes, (n, a, h, w, 4), in float64."""
    parts = []
    for level, align in enumerate(crossing.class_aligning):
        pair = student.pyramid[level], teacher.pyramid[level]
        x, y = crossing.predictions("class", align, *pair)
        b, c = crossing.predictions("box", crossing.box_aligning[level], *pair)
        anchors = b.shape[1] // 4
        logits = [some.detach().double().unflatten(1, (anchors, -1)) for some in (x, y)]
        codes = [some.detach().double().unflatten(1, (anchors, 4)).movedim(2, -1) for some in (b, c)]
        parts.append((*logits, *codes))
    return parts


def test_crossing_the_heads_of_retinanet_is_divided_by_positives():
    """KDQualityFocalLoss and GIoULoss, as CrossKDRetinaNet calls them, on boxes of anchors anywhere."""
    student_adapter, teacher_adapter = make_adapter(channels=5, seed=3), make_adapter(seed=4)
    weights = {"class_weight": 2.0, "box_weight": 3.0}
    crossing = crossed(student_adapter, teacher_adapter, **weights, form="published")
    student, teacher = (make_trace(i, channels=c, activation="sigmoid") for i, c in ((1, 5), (2, 6)))
    student = replace(student, positives=torch.tensor(7.0))
    classes, boxes = 0.0, 0.0
    for x, y, b, c in crossed_parts(crossing, student, teacher):
        p, q = y.sigmoid(), x.sigmoid()
        classes += ((q - p).abs() * -(p * q.log() + (1 - p) * (1 - q).log())).sum().item()
        best = p.amax(2).flatten()
        where = 60.0, 40.0, 32.0, 21.0
        losses = generalized_box_iou_loss(decoded(b, *where).flatten(0, -2), decoded(c, *where).flatten(0, -2))
        boxes += (best * losses).sum().item()
    losses = crossing(student, teacher, make_view(), 0.0)
    assert losses["crosskd.class"].item() == pytest.approx(2 * classes / 7, rel=1e-4)
    assert losses["crosskd.box"].item() == pytest.approx(3 * boxes / 7, rel=1e-4)
    without = crossing(replace(student, positives=None), teacher, make_view(), 0.0)
    assert without["crosskd.class"].item() == pytest.approx(2 * classes / 5, rel=1e-4)


def test_crossing_the_heads_of_fcos_takes_the_logarithm_of_the_overlap():
    torch.manual_seed(0)
    one, other = (
        SimpleNamespace(model=Detector(FCOSHead(32, 1, 3, num_convs=4)), strides=STRIDES, activation="sigmoid")
        for _ in range(2)
    )
    for parameter in [*one.model.parameters(), *other.model.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)
    crossing = crossed(one, other, reused=2, form="published")
    student, teacher = (make_trace(i, channels=32, activation="sigmoid", gradient=True) for i in (1, 2))
    student = replace(student, positives=torch.tensor(2.5))
    boxes = 0.0
    for _, y, b, c in crossed_parts(crossing, student, teacher):
        (l1, t1, r1, b1), (l2, t2, r2, b2) = (codes.relu().unbind(-1) for codes in (b, c))
        common = (torch.minimum(l1, l2) + torch.minimum(r1, r2)) * (torch.minimum(t1, t2) + torch.minimum(b1, b2))
        union = (l1 + r1) * (t1 + b1) + (l2 + r2) * (t2 + b2) - common
        overlap = torch.where(union > 0, common / union, 0).clamp_min(1e-6)
        boxes += (y.sigmoid().amax(2) * -overlap.log()).sum().item()
    losses = crossing(student, teacher, make_view(), 0.0)
    assert losses["crosskd.box"].item() == pytest.approx(0.75 * boxes / 2.5, rel=1e-4)
    torch.stack(list(losses.values())).sum().backward()
    assert all(maps.grad is not None and maps.grad.isfinite().all() for maps in student.pyramid)


@pytest.mark.parametrize(("reused", "before"), [(1, 3), (2, 2), (3, 1), (9, 1)])
def test_crossing_reuses_the_last_blocks_of_the_teachers_tower(reused, before):
    """Only the student's blocks before the cut are its own: others without effect on the predictions."""
    own, teacher = (make_adapter(seed=seed) for seed in (3, 4))
    crossing = crossed(own, teacher, reused=reused, form="published")
    student, aims = (make_trace(i, activation="sigmoid") for i in (1, 2))
    losses = torch.stack(list(crossing(student, aims, make_view(), 0.0).values()))
    losses.sum().backward()
    tower = own.model.head.classification_head.conv
    assert [block[0].weight.grad is not None for block in tower] == [place < before for place in range(4)]


def test_published_losses_are_finite_without_objects():
    names = ["gkd", "pkd", "fgd", "mgd", "defeat", "crosskd"]
    adapter = make_adapter()
    knowledge = built(names, adapter, adapter, PUBLISHED)
    student = make_trace(1, activation="sigmoid", empty=True, gradient=True)
    student = replace(student, positives=torch.tensor(0.0))
    losses = knowledge(student, make_trace(2, activation="sigmoid", empty=True), make_view(empty=True), 0.0)
    torch.stack(list(losses.values())).sum().backward()
    for name, value in losses.items():
        assert value.isfinite(), name
    assert all(maps.grad is not None and maps.grad.isfinite().all() for maps in student.pyramid)


def test_presets_with_published_losses():
    forms = {
        method: detector_preset(method, "custom").distillation.loss_form for method in ("plain", "gkd", "gkd-published")
    }
    assert forms == {"plain": "distil", "gkd": "distil", "gkd-published": "published"}
    assert detector_preset("gkd-released", "custom").distillation.loss_form == "published"
