import math
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, clip_boxes_to_image

from distil.detector.adapters import FCOSAdapter, RetinaNetAdapter, adapt, common_levels, freeze
from distil.detector.adapters import torchvision as views
from distil.detector.adapters.faster_rcnn import FasterRCNNAdapter
from distil.errors import DistilError
from distil.networks.backbones import build_backbone
from distil.networks.detectors import Architecture, build_detector

KINDS = [("faster-rcnn", 1), ("faster-rcnn", 2), ("retinanet", 1), ("retinanet", 2), ("fcos", 1)]
EVERY = pytest.mark.parametrize(("kind", "version"), KINDS)
ONE_OF_EACH = pytest.mark.parametrize("kind", ["faster-rcnn", "retinanet", "fcos"])
ONE_STAGE = pytest.mark.parametrize("kind", ["retinanet", "fcos"])


def build(kind, version=1, *, seed=0, **changes):
    options: dict[str, Any] = {"min_size": 64, "max_size": 128, "norm": "group", "anchor": 16.0, "representation": 16}
    options |= {"head_convs": 1, "version": version, "channels": 64}
    architecture = Architecture(kind, "timm:resnet10t", ("a", "b", "c"), **options | changes)
    return build_detector(architecture, seed=seed)


@lru_cache
def adapted(kind, version=1, **changes):
    """Shared by tests that leave weights alone; in training mode."""
    return adapt(build(kind, version, **changes))


def picture(seed, size=(64, 64)):
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))


def objects(*rows):
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor([row[4] for row in rows], dtype=torch.int64)}


IMAGES = [picture(1), picture(2, (64, 80)), picture(3, (70, 66))]
TARGETS = [objects((4, 5, 40, 41, 1), (20, 10, 60, 62, 3)), objects(), objects((10, 8, 30, 33, 2))]


def head_of(model):
    return model.roi_heads if hasattr(model, "roi_heads") else model.head


def noisy(model):
    """Weights that tell classes and places apart: fresh heads say nearly the same everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("cls", "bbox")):
                nn.init.normal_(parameter, std=0.3)
    return model


# ---------------------------------------------------------------------------------------------- the student's pass


@EVERY
@pytest.mark.parametrize("sizes", [64, (48, 64, 80)])
def test_losses_and_gradients_are_torchvisions(kind, version, sizes):
    model = build(kind, version, min_size=sizes)
    adapter = adapt(model)
    torch.manual_seed(3)
    expected = model(IMAGES, TARGETS)
    sum(expected.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    state = torch.get_rng_state()
    torch.manual_seed(3)
    trace = adapter.trace(adapter.view(IMAGES, TARGETS))
    assert list(trace.losses) == list(expected)
    assert all(torch.equal(trace.losses[name], expected[name]) for name in expected)
    assert all(loss > 0 for loss in trace.losses.values())
    assert torch.equal(state, torch.get_rng_state())
    sum(trace.losses.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(gradients)
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters() if p.grad is not None)


@EVERY
def test_a_pass_leaves_the_model_as_it_was(kind, version):
    model = build(kind, version, norm="frozen")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapter = adapt(model)
    attributes = {name: set(module.__dict__) for name, module in model.named_modules()}
    samplers = [part.fg_bg_sampler for part in model.modules() if hasattr(part, "fg_bg_sampler")]
    trace = adapter.trace(adapter.view(IMAGES, TARGETS, seeds=(1, 2, 3)))
    adapter.trace(adapter.view(IMAGES, TARGETS, seeds=(1, 2, 3)), regions=trace)
    assert all(module.training for module in model.modules())
    assert samplers == [part.fg_bg_sampler for part in model.modules() if hasattr(part, "fg_bg_sampler")]
    assert attributes == {name: set(module.__dict__) for name, module in model.named_modules()}
    assert not any(module._forward_hooks for module in model.modules())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    if version == 1 or kind == "retinanet":
        assert not changed
    else:  # version 2 of Faster R-CNN has batch norms in its heads
        assert changed
        assert all(name.rsplit(".", 1)[1] in ("running_mean", "running_var", "num_batches_tracked") for name in changed)


@ONE_OF_EACH
def test_an_images_draws_depend_on_its_seed_alone(kind):
    adapter = adapted(kind)
    images, targets = [picture(1), picture(4)], [TARGETS[0], TARGETS[2]]
    before = torch.get_rng_state()
    both = adapter.trace(adapter.view(images, targets, seeds=(7, 8)))
    assert torch.equal(before, torch.get_rng_state())
    swapped = adapter.trace(adapter.view(images[::-1], targets[::-1], seeds=(8, 7)))
    alone = adapter.trace(adapter.view(images[:1], targets[:1], seeds=(7,)))
    for first, second in zip(both.boxes, swapped.boxes[::-1], strict=True):
        assert torch.allclose(first, second, atol=1e-3)
    assert torch.allclose(both.boxes[0], alone.boxes[0], atol=1e-3)
    for name, loss in both.losses.items():
        assert torch.allclose(loss, swapped.losses[name], rtol=1e-4)
    if kind == "faster-rcnn":
        other = adapter.trace(adapter.view(images[:1], targets[:1], seeds=(9,)))
        assert not torch.equal(alone.losses["loss_objectness"], other.losses["loss_objectness"])
        again = adapter.trace(adapter.view(images[:1], targets[:1], seeds=(7,)))
        assert torch.equal(alone.losses["loss_objectness"], again.losses["loss_objectness"])


@EVERY
def test_counts_weigh_processes_so_that_they_add_up_to_one(kind, version):
    """Two processes with an image each, their losses weighed by counts, are one process with both images."""
    adapter = adapted(kind, version)
    images, targets, seeds = [picture(1), picture(4)], [TARGETS[0], TARGETS[2]], (7, 8)
    whole = adapter.trace(adapter.view(images, targets, seeds=seeds))
    parts = [adapter.trace(adapter.view(images[i : i + 1], targets[i : i + 1], seeds=seeds[i : i + 1])) for i in (0, 1)]
    assert set(whole.counts) == set(whole.losses)
    for name, loss in whole.losses.items():
        if version == 2 and kind == "faster-rcnn" and "objectness" not in name:
            continue  # its batch norms see the whole batch
        total = sum(part.counts[name] for part in parts)
        weighed = sum(part.counts[name] * part.losses[name] for part in parts) / total
        assert whole.counts[name] == total
        tolerance = 1e-4 if version == 1 or kind != "faster-rcnn" else 0.05
        assert torch.allclose(weighed, loss, rtol=tolerance)  # pyright: ignore[reportArgumentType]


def test_counts_by_hand():
    rcnn, retinanet, fcos = (adapted(kind) for kind in ("faster-rcnn", "retinanet", "fcos"))
    counts = rcnn.trace(rcnn.view(IMAGES, TARGETS, seeds=(1, 2, 3))).counts
    assert counts["loss_objectness"] == counts["loss_rpn_box_reg"] == 3 * 256
    assert counts["loss_classifier"] == counts["loss_box_reg"] <= 3 * 512
    counts = retinanet.trace(retinanet.view(IMAGES, TARGETS)).counts
    assert list(counts.items()) == [("classification", 3), ("bbox_regression", 3)]
    nothing = fcos.trace(fcos.view(IMAGES[1:2], TARGETS[1:2]))
    assert all(count == 1 for count in nothing.counts.values())


def test_instances_of_faster_rcnn_are_sampled_positives():
    model = noisy(build("faster-rcnn"))
    adapter = adapt(model)
    view = adapter.view(IMAGES, TARGETS, seeds=(1, 2, 3))
    trace = adapter.trace(view)
    assert len(trace.boxes[1]) == 0
    assert len(trace.labels) == len(trace.logits) == sum(map(len, trace.boxes))
    start = 0
    for boxes, target in zip(trace.boxes, view.targets, strict=True):
        labels = trace.labels[start : start + len(boxes)]
        start += len(boxes)
        for truth, label in zip(target["boxes"], target["labels"], strict=True):
            found = (boxes == truth).all(1)
            assert found.any()  # the ground-truth boxes are among them
            assert (labels[found] == label).all()
        if len(boxes):
            overlap, which = box_iou(boxes, target["boxes"]).max(1)
            assert overlap.min() >= 0.5
            assert torch.equal(target["labels"][which], labels)
    maps = model.backbone(view.images)
    pooled = model.roi_heads.box_roi_pool(maps, list(trace.boxes), list(view.sizes))
    logits, _ = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    assert torch.allclose(trace.logits, logits, atol=1e-5)
    assert trace.logits.shape[1] == 4
    assert trace.logits.std() > 0.1
    assert trace.logits.requires_grad
    assert not any(boxes.requires_grad for boxes in trace.boxes)
    assert trace.positions is None
    assert trace.dense is None


def test_instances_of_retinanet_are_matched_anchors():
    model = noisy(build("retinanet"))
    adapter = adapt(model)
    view = adapter.view(IMAGES, TARGETS)
    trace = adapter.trace(view)
    maps = list(model.backbone(view.images).values())
    anchors = model.anchor_generator(ImageList(view.images, list(view.sizes)), maps)
    logits = model.head(maps)["cls_logits"]
    rows = []
    for i, target in enumerate(view.targets):
        boxes, positions = [], []
        if len(target["boxes"]):
            matched = model.proposal_matcher(box_iou(target["boxes"], anchors[i]))
            for position, truth in enumerate(matched.tolist()):
                if truth >= 0:
                    boxes.append(clip_boxes_to_image(anchors[i][position], view.sizes[i]))
                    positions.append(position)
                    rows.append((target["labels"][truth], logits[i, position, 1:]))
        assert trace.positions[i].tolist() == positions
        assert torch.equal(trace.boxes[i], torch.stack(boxes) if boxes else torch.zeros(0, 4))
    assert len(rows) > 3
    assert torch.equal(trace.labels, torch.stack([label for label, _ in rows]))
    assert torch.allclose(trace.logits, torch.stack([row for _, row in rows]), atol=1e-5)
    assert torch.equal(trace.dense, logits[:, :, 1:])
    assert trace.dense.shape[2] == adapter.classes == 3


def test_instances_of_fcos_are_responsible_points():
    """The rule of FCOS with center sampling, point by point."""
    model = noisy(build("fcos"))
    adapter = adapt(model)
    view = adapter.view(IMAGES, TARGETS)
    trace = adapter.trace(view)
    label = 0
    for i, target in enumerate(view.targets):
        expected, position = [], 0
        for level, maps in enumerate(trace.pyramid):
            size = 4.0 * 2**level
            low, high = (0.0 if level == 0 else 4 * size), (math.inf if level == 4 else 8 * size)
            height, width = maps.shape[2:]
            steps = view.images.shape[2] // height, view.images.shape[3] // width
            for row in range(height):
                for column in range(width):
                    x, y, found = column * steps[1], row * steps[0], []
                    for truth, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
                        sides = (x - x1, y - y1, x2 - x, y2 - y)
                        near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < 1.5 * size
                        if near and min(sides) > 0 and low < max(sides) < high:
                            found.append(((x2 - x1) * (y2 - y1), truth))
                    if found:
                        expected.append((position, min(found)[1]))
                    position += 1
        assert trace.positions[i].tolist() == [place for place, _ in expected]
        for box, (_, truth) in zip(trace.boxes[i], expected, strict=True):
            assert torch.equal(box, target["boxes"][truth])
            assert trace.labels[label] == target["labels"][truth]
            label += 1
    assert label == len(trace.labels) > 2
    assert all(count == label for count in trace.counts.values())


def test_losses_over_all_anchors_are_divided_by_positive_anchors_or_their_centerness():
    retinanet = adapted("retinanet")
    trace = retinanet.trace(retinanet.view(IMAGES, TARGETS))
    assert [len(boxes) for boxes in trace.boxes][1] == 0
    assert trace.positives == sum(max(1, len(boxes)) for boxes in trace.boxes)
    fcos = adapt(noisy(build("fcos")))
    trace = fcos.trace(fcos.view(IMAGES, TARGETS))
    sizes = [(maps.shape[2], maps.shape[3]) for maps in trace.pyramid]
    points = [(row * stride, column * stride) for stride, (h, w) in zip(trace.strides, sizes, strict=True)
              for row in range(h) for column in range(w)]  # fmt: skip
    total = 0.0
    for boxes, positions in zip(trace.boxes, trace.positions, strict=True):
        for (x1, y1, x2, y2), position in zip(boxes.tolist(), positions.tolist(), strict=True):
            y, x = points[position]
            left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
            shares = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
            total += math.sqrt(shares[0] * shares[1])
    assert trace.positives.item() == pytest.approx(total, rel=1e-5)
    nothing = fcos.trace(fcos.view(IMAGES[1:2], TARGETS[1:2]))
    assert nothing.positives == 0


@ONE_STAGE
def test_positives_beyond_the_most_instances_are_counted(kind, monkeypatch):
    adapter = adapted(kind, anchor=24.0)
    view = adapter.view(IMAGES, TARGETS, seeds=(1, 2, 3))
    before = adapter.trace(view)
    monkeypatch.setattr(views, "MOST_INSTANCES", 2)
    after = adapter.trace(view)
    assert len(after.labels) < len(before.labels)
    assert after.positives == before.positives > 0


@ONE_OF_EACH
def test_instances_beyond_the_most_are_dropped_at_random(kind, monkeypatch):
    adapter = adapted(kind, anchor=24.0)
    images, targets = [picture(1), picture(4)], [TARGETS[0], TARGETS[2]]

    def trace_with(most, seeds):
        monkeypatch.setattr(views, "MOST_INSTANCES", most)
        return adapter.trace(adapter.view(images, targets, seeds=seeds))

    full = trace_with(128, (1, 2))
    many = [len(boxes) for boxes in full.boxes]
    most = max(many) - 1
    assert min(many) >= 1
    assert most >= 1
    few = trace_with(most, (1, 2))
    assert [len(boxes) for boxes in few.boxes] == [min(count, most) for count in many]
    start = begin = 0
    for own, all_of_them in zip(few.boxes, full.boxes, strict=True):
        places = []
        for k, box in enumerate(own):
            label, logits = few.labels[start + k], few.logits[start + k]
            same = (all_of_them == box).all(1) & (full.labels[begin : begin + len(all_of_them)] == label)
            same &= (full.logits[begin : begin + len(all_of_them)] == logits).all(1)
            places.append(int(same.nonzero()[0]))
        assert places == sorted(places)
        start, begin = start + len(own), begin + len(all_of_them)
    one_each = [trace_with(1, (seed, seed)) for seed in range(12)]
    assert len({tuple(trace.logits[0].tolist()) for trace in one_each}) > 1
    for name in full.losses:  # instances are chosen after the losses
        assert torch.equal(full.losses[name], few.losses[name])


@EVERY
def test_a_batch_without_objects_has_finite_losses_and_no_instances(kind, version):
    adapter = adapted(kind, version)
    view = adapter.view(IMAGES[:2], [objects(), objects()])
    trace = adapter.trace(view)
    assert all(loss.isfinite() for loss in trace.losses.values())
    assert trace.labels.shape == (0,)
    assert [len(boxes) for boxes in trace.boxes] == [0, 0]
    assert trace.logits.shape == (0, 4 if kind == "faster-rcnn" else 3)
    taught = adapted(kind, version, seed=1).trace(view, regions=trace)
    assert taught.logits.shape == trace.logits.shape
    sum(trace.losses.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    adapter.model.zero_grad()


@ONE_OF_EACH
def test_the_padding_of_a_level_does_not_move_boxes(kind):
    """Images of 66 x 90 pixels are padded to 96 x 96, and torchvision takes a stride of 4 for one of 2."""
    model = build(kind, min_size=66)
    images, targets = [picture(1, (66, 90))], [objects((10, 8, 40, 50, 1))]
    if kind == "faster-rcnn":
        model(images, targets)
        assert model.roi_heads.box_roi_pool.scales[0] == 1 / 2
    adapter = adapt(model)
    if kind == "faster-rcnn":
        assert model.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    trace = adapter.trace(adapter.view(images, targets))
    assert [x.shape[2] for x in trace.pyramid][-3:] == ([12, 6, 3, 2] if kind == "faster-rcnn" else [6, 3, 2, 1])[-3:]
    assert all(loss.isfinite() for loss in trace.losses.values())


@EVERY
def test_half_precision_rounds_no_anchors_proposals_or_losses(kind, version):
    adapter = adapted(kind, version, max_size=800)
    images, targets = [picture(5, (64, 704))], [objects((601.3, 10, 642.7, 52, 2), (300, 4, 355.1, 60, 1))]
    view = adapter.view(images, targets, seeds=(4,))
    exact = adapter.trace(view)
    with torch.autocast("cpu", torch.bfloat16):
        trace = adapter.trace(view)
        taught = adapted(kind, version, max_size=800, seed=1).trace(view, regions=trace)
    for one in (trace, taught):
        assert one.logits.dtype == torch.float32
        assert all(x.dtype == torch.float32 for x in one.pyramid)
    for name, loss in trace.losses.items():
        assert loss.dtype == torch.float32
        assert torch.allclose(loss, exact.losses[name], rtol=0.1)
    (boxes,) = trace.boxes
    assert boxes.dtype == torch.float32
    if kind == "faster-rcnn":
        for truth in targets[0]["boxes"]:
            assert (boxes == truth).all(1).any()
        assert len(boxes) > 2
        assert (boxes != boxes.bfloat16().float()).any(1).all()
    else:
        assert torch.equal(boxes, exact.boxes[0])


def test_a_student_must_be_in_training_mode():
    adapter = adapt(build("fcos").eval())
    view = adapter.view(IMAGES, TARGETS)
    with pytest.raises(DistilError) as error:
        adapter.trace(view)
    assert str(error.value) == (
        "this FCOS is in eval mode, so it has no losses. Call .train() on it before a training pass; to have it teach, "
        "pass the student's trace as `regions`."
    )


# ---------------------------------------------------------------------------------------------- the teacher's pass


@EVERY
def test_a_detector_teaches_itself_its_own_logits(kind, version):
    model = noisy(build(kind, version))
    if kind == "faster-rcnn" and version == 2:
        for layer in model.modules():  # so that training and eval mode agree
            if isinstance(layer, nn.BatchNorm2d):
                layer.forward = torch.nn.Identity().forward
    adapter = adapt(model)
    view = adapter.view(IMAGES, TARGETS, seeds=(1, 2, 3))
    trace = adapter.trace(view)
    taught = adapter.trace(view, regions=trace)
    assert torch.allclose(taught.logits, trace.logits, atol=1e-5)
    assert taught.logits.std() > 0.1
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(taught.pyramid, trace.pyramid, strict=True))
    assert not any(x.requires_grad for x in (*taught.pyramid, taught.logits))
    assert all(x.requires_grad for x in (*trace.pyramid, trace.logits))
    assert taught.losses == taught.counts == {}
    assert taught.boxes is trace.boxes
    assert taught.labels is trace.labels
    assert taught.strides == trace.strides == adapter.strides
    assert taught.activation == trace.activation == ("softmax" if kind == "faster-rcnn" else "sigmoid")
    if kind != "faster-rcnn":
        assert all(torch.equal(one, other) for one, other in zip(taught.positions, trace.positions, strict=True))
        assert torch.allclose(taught.dense, trace.dense, atol=1e-5)


def test_a_teacher_in_training_mode_teaches_in_eval_mode():
    model = build("retinanet", norm="batch")
    student, teacher = adapted("retinanet"), adapt(model)
    statistics = model.backbone.body.bn1.running_mean.clone()
    view = student.view(IMAGES, TARGETS)
    trace = student.trace(view)
    taught = teacher.trace(view, regions=trace)
    assert all(module.training for module in model.modules())
    assert torch.equal(statistics, model.backbone.body.bn1.running_mean)
    model.eval()
    assert torch.equal(teacher.trace(view, regions=trace).logits, taught.logits)


def own_positions(model, view, regions, reach):
    """For each instance, by a loop, the teacher's anchor of highest IoU; `reach` widens anchors about their centers."""
    maps = list(model.backbone(view.images).values())
    (anchors, *_) = model.anchor_generator(ImageList(view.images, list(view.sizes)), maps)
    out = []
    for i, boxes in enumerate(regions.boxes):
        own = []
        for box in boxes:
            best, place = -1.0, -1
            for position, (x1, y1, x2, y2) in enumerate(anchors.tolist()):
                x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) * reach, (y2 - y1) * reach
                square = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                if reach == 1:
                    square = clip_boxes_to_image(square, view.sizes[i])
                overlap = box_iou(box[None], square[None]).item()
                if overlap > best + 1e-7:
                    best, place = overlap, position
            own.append(place)
        out.append(own)
    return out


@pytest.mark.parametrize("student", ["faster-rcnn", "retinanet", "fcos"])
@pytest.mark.parametrize("teacher", ["retinanet", "fcos"])
def test_a_teacher_with_other_anchors_takes_its_nearest(student, teacher):
    student = adapted(student, anchor=16.0)
    teacher = freeze(adapt(noisy(build(teacher, anchor=24.0, finest=16, seed=1))))
    view = student.view([picture(1)], [TARGETS[0]], seeds=(3,))
    trace = student.trace(view)
    taught = teacher.trace(view, regions=trace)
    expected = own_positions(teacher.model, view, trace, 12 if isinstance(teacher, FCOSAdapter) else 1)
    assert [positions.tolist() for positions in taught.positions] == expected
    assert len(set(expected[0])) > 1
    assert torch.equal(taught.logits, taught.dense[0, expected[0]])


def test_anchors_of_other_sizes_at_the_same_places_are_other_anchors():
    student, teacher = adapted("retinanet", anchor=16.0), adapted("retinanet", anchor=32.0, seed=1)
    view = student.view(IMAGES, TARGETS)
    trace = student.trace(view)
    taught = teacher.trace(view, regions=trace)
    assert taught.dense.shape == trace.dense.shape
    assert not torch.equal(torch.cat(taught.positions), torch.cat(trace.positions))
    same = adapted("retinanet", anchor=16.0, seed=1).trace(view, regions=trace)
    assert torch.equal(torch.cat(same.positions), torch.cat(trace.positions))


def test_a_point_of_fcos_stands_for_what_it_answers_for():
    """A box of side 48 about the point (64, 64), with points of sizes 8, 16, ...: the finest level, squares of 96."""
    student = adapted("faster-rcnn", min_size=128)
    teacher = adapted("fcos", min_size=128, anchor=32.0)
    view = student.view([picture(1, (128, 128))], [objects((16, 16, 112, 112, 1))], seeds=(3,))
    trace = student.trace(view)
    taught = teacher.trace(view, regions=trace)
    (truth,) = (trace.boxes[0] == torch.tensor([16.0, 16, 112, 112])).all(1).nonzero().flatten()[:1]
    assert taught.positions[0][truth] == 8 * 16 + 8


def test_a_two_stage_teacher_sees_a_one_stage_students_boxes():
    student, teacher = adapted("retinanet"), adapt(noisy(build("faster-rcnn", seed=1)))
    view = student.view(IMAGES, TARGETS)
    trace = student.trace(view)
    taught = teacher.trace(view, regions=trace)
    assert taught.logits.shape == (len(trace.labels), 4)
    assert taught.activation == "softmax"
    assert taught.boxes is trace.boxes


def test_a_mask_rcnn_teaches_but_is_no_student():
    torch.manual_seed(0)
    backbone = build_backbone("timm:resnet10t", (4, 8, 16, 32), channels=16, norm="group", extra="pool")
    adapter = adapt(MaskRCNN(backbone, 4, min_size=64, max_size=128))
    student = adapted("faster-rcnn")
    view = student.view(IMAGES, TARGETS)
    assert adapter.trace(view, regions=student.trace(view)).logits.shape[1] == 4
    with pytest.raises(DistilError) as error:
        adapter.trace(view)
    assert str(error.value) == (
        "a MaskRCNN can teach, but not be a student: nothing would train its mask or keypoint head. Use a FasterRCNN."
    )


# --------------------------------------------------------------------------------------------------------- views


def test_a_view_is_resized_normalized_and_padded():
    adapter = adapt(build("retinanet", min_size=32, max_size=64, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0)))
    images = [torch.full((3, 64, 96), 0.75), torch.full((3, 128, 64), 0.5)]
    view = adapter.view(images, [objects((8, 16, 48, 64, 2)), objects()], seeds=(5, 6))
    assert view.images.shape == (2, 3, 64, 64)
    assert view.sizes == ((32, 48), (64, 32))
    assert view.targets[0]["boxes"].tolist() == [[4, 8, 24, 32]]
    assert view.targets[0]["labels"].tolist() == [2]
    assert view.targets[1]["boxes"].shape == (0, 4)
    assert torch.allclose(view.images[0, :, :32, :48], torch.tensor([0.5, 2.0, 0.75]).view(3, 1, 1).expand(3, 32, 48))
    assert view.images[0, :, 32:].abs().max() == 0
    assert view.images[0, :, :, 48:].abs().max() == 0
    assert view.images[1, :, :, 32:].abs().max() == 0
    assert (view.mean, view.std, view.seeds) == ((0.5, 0.25, 0.0), (0.5, 0.25, 1.0), (5, 6))
    assert len(view) == 2


def test_random_sizes_depend_on_the_images_seed_alone():
    adapter = adapted("faster-rcnn", min_size=(32, 48, 64, 80), max_size=200)
    image, target = picture(1), TARGETS[0]
    before = torch.get_rng_state()
    sizes = {seed: adapter.view([image], [target], seeds=(seed,)).sizes[0] for seed in range(20)}
    assert torch.equal(before, torch.get_rng_state())
    assert set(sizes.values()) == {(32, 32), (48, 48), (64, 64), (80, 80)}
    together = adapter.view([image] * 20, [target] * 20, seeds=tuple(range(20)))
    assert together.sizes == tuple(sizes.values())
    with views.evaluating(adapter.model):
        assert adapter.view([image], [target], seeds=(0,)).sizes == ((80, 80),)


@ONE_OF_EACH
def test_a_restyled_view_is_the_detectors_own(kind):
    first = adapted(kind)
    second = adapted(kind, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 2.0))
    view = first.view(IMAGES, TARGETS, seeds=(1, 2, 3))
    restyled, own = second.restyle(view), second.view(IMAGES, TARGETS, seeds=(1, 2, 3))
    assert torch.allclose(restyled.images, own.images, atol=1e-6)
    assert (restyled.mean, restyled.std, restyled.seeds) == (own.mean, own.std, own.seeds)
    padding = torch.ones_like(own.images, dtype=torch.bool)
    for i, (height, width) in enumerate(own.sizes):
        padding[i, :, :height, :width] = False
    assert padding.any()
    assert (restyled.images[padding] == 0).all()
    assert first.restyle(view) is view
    trace = first.trace(view)
    assert torch.allclose(second.pyramid(view)[0], second.pyramid(own)[0], atol=1e-4)
    taught = second.trace(view, regions=trace)
    assert torch.allclose(taught.logits, second.trace(own, regions=trace).logits, atol=1e-4)
    assert torch.allclose(taught.pyramid[0], second.pyramid(own)[0], atol=1e-4)


def refusal(images, targets, seeds=None):
    with pytest.raises(DistilError) as error:
        adapted("fcos").view(images, targets, seeds=seeds)
    return str(error.value)


def test_views_refuse_what_no_detector_takes():
    image, target = picture(1), TARGETS[0]
    many = ": give as many of each, and at least one."
    assert refusal([], []) == f"a view was asked of 0 images, 0 targets{many}"
    assert refusal([image], [target], seeds=(1, 2)) == f"a view was asked of 1 images, 1 targets and 2 seeds{many}"
    assert refusal([image, (image * 255).byte()], [target] * 2) == (
        "image 1 has shape (3, 64, 64) and type torch.uint8: give color images of shape (3, height, width), floating "
        "point, in [0, 1] (uint8 / 255)."
    )
    assert refusal([image], [{"boxes": target["boxes"]}]) == (
        "the target of image 0 has no 'labels': give boxes and labels."
    )
    assert refusal([image], [{"boxes": target["boxes"], "labels": target["labels"].float()}]) == (
        "the target of image 0 has boxes (2, 4) of torch.float32 and labels (2,) of torch.float32: give (m, 4) "
        "floating point and (m,) int64; with no object, m = 0."
    )
    end = (
        ": boxes are x1 < x2, y1 < y2 in its pixels, and labels 1 to 3, the classes of this detector. Correct the "
        "annotations."
    )
    bad = objects((1, 2, 3, 4, 1), (5, 6, 5, 9, 1))
    assert refusal([image] * 2, [target, bad]) == f"image 1 has the box [5.0, 6.0, 5.0, 9.0]{end}"
    assert refusal([image], [objects((1, 2, 3, 4, 4))]) == f"image 0 has the label 4{end}"
    assert refusal([image], [objects((1, 2, 3, 4, 0))]) == f"image 0 has the label 0{end}"
    assert refusal([image], [objects((1, 2, 3, math.nan, 1))]) == f"image 0 has the box [1.0, 2.0, 3.0, nan]{end}"


# ----------------------------------------------------------------------------------------- adapters as such


@pytest.mark.parametrize(
    ("kind", "changes", "strides"),
    [
        ("faster-rcnn", {}, (4, 8, 16, 32, 64)),
        ("faster-rcnn", {"finest": 8}, (8, 16, 32, 64)),
        ("retinanet", {}, (8, 16, 32, 64, 128)),
        ("fcos", {"finest": 4}, (4, 8, 16, 32, 64, 128)),
    ],
)
def test_what_an_adapter_knows_of_its_model(kind, changes, strides):
    model = build(kind, norm="batch", **changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.backbone.eval()
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    adapter = adapt(model)
    assert type(adapter) is {"faster-rcnn": FasterRCNNAdapter, "retinanet": RetinaNetAdapter, "fcos": FCOSAdapter}[kind]
    assert adapter.model is model
    assert (adapter.strides, adapter.channels, adapter.classes) == (strides, 64, 3)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    view = adapter.view([picture(1, (256, 256))], [TARGETS[0]])
    for maps, stride in zip(adapter.pyramid(view), strides, strict=True):
        assert maps.shape[1] == 64
        assert maps.shape[2] == max(1, view.images.shape[2] // stride)


@EVERY
def test_predictions_are_torchvisions(kind, version):
    model = noisy(build(kind, version))
    if hasattr(model, "score_thresh"):
        model.score_thresh = 0.0
    adapter = adapt(model)
    found = adapter.predict(IMAGES)
    assert all(module.training for module in model.modules())
    model.eval()
    with torch.no_grad():
        expected = model(IMAGES)
    assert sum(len(each["boxes"]) for each in found) > 0
    for own, other in zip(found, expected, strict=True):
        assert set(own) == {"boxes", "labels", "scores"}
        assert all(torch.equal(own[key], other[key]) for key in own)
        assert not own["scores"].requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert all(
            torch.equal(own["boxes"], other["boxes"]) for own, other in zip(adapter.predict(IMAGES), found, strict=True)
        )


def test_freezing_a_teacher():
    adapter = adapt(build("fcos"))
    assert freeze(adapter) is adapter
    assert not any(module.training for module in adapter.model.modules())
    assert not any(parameter.requires_grad for parameter in adapter.model.parameters())


def test_only_known_detectors_and_adapters_are_adapted():
    adapter = adapted("fcos")
    assert adapt(adapter) is adapter
    members = "model, strides, channels, activation, classes, view, restyle, pyramid, trace, predict"
    own = SimpleNamespace(**dict.fromkeys(members.split(", ")))
    assert adapt(own) is own
    del own.trace
    for model in (nn.Linear(2, 2), own):
        with pytest.raises(DistilError) as error:
            adapt(model)
        assert str(error.value) == (
            f"no adapter for a {type(model).__name__}: adapt takes torchvision's FasterRCNN, RetinaNet and FCOS. "
            f"Give an object of your own with the members {members}; "
            "help(distil.detector.adapters.DetectorAdapter) says what each must do."
        )


def test_models_that_cannot_be_adapted():
    model = build("faster-rcnn")
    model.roi_heads.box_predictor = nn.Identity()
    with pytest.raises(DistilError, match=r"^the box predictor of this FasterRCNN has no layer `cls_score`"):
        adapt(model)

    class Odd(nn.Module):
        out_channels = 64

        def forward(self, images):
            return {"0": torch.zeros(len(images), 64, 32, 32), "1": torch.zeros(len(images), 64, 31, 31)}

    model = build("fcos")
    model.backbone = Odd()
    with pytest.raises(DistilError) as error:
        adapt(model)
    assert str(error.value) == (
        "the pyramid of this FCOS cannot be compared with another: its levels have [64] channels and, of an image of "
        "256 x 256 pixels, [(32, 32), (31, 31)] cells. Every level must have the same channels and a whole number of "
        "pixels between its cells, a divisor of 256."
    )


def test_common_levels_are_pairs_of_equal_stride():
    assert common_levels((4, 8, 16, 32, 64), (8, 16, 32, 64, 128)) == ((1, 0), (2, 1), (3, 2), (4, 3))
    assert common_levels((8, 16), (8, 16)) == ((0, 0), (1, 1))
    assert common_levels((4, 8, 16, 32, 64), (32, 32, 64)) == ((3, 0), (4, 2))
    assert common_levels((32, 32, 64), (32, 32, 64)) == ((0, 0), (1, 1), (2, 2))
    with pytest.raises(DistilError) as error:
        common_levels((4, 8), (16, 32))
    assert str(error.value) == (
        "the student's levels have strides 4, 8 and the teacher's 16, 32: none is common, so no features can be "
        "compared. Choose a student with another backbone or another finest stride."
    )
