"""Pooling of instances: order, empty images, precision, and RoIAlign with very many samples."""

import torch
from torchvision.ops import roi_align

from distil.detector.gkd.pooling import pool_instances, pool_pair
from distil.functional.boxes import mean_over_boxes

STRIDES = (8, 16)


def make_pyramid(images=3, channels=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(images, channels, 64 // s, 96 // s, generator=generator).to(dtype) for s in STRIDES)


def make_boxes():
    return [
        torch.tensor([[3.0, 5.0, 60.0, 40.0], [10.0, 10.0, 14.0, 12.0]]),
        torch.zeros(0, 4),
        torch.tensor([[0.0, 0.0, 96.0, 64.0]]),
    ]


def test_every_box_on_every_level_images_one_after_another():
    pyramid, boxes = make_pyramid(), make_boxes()
    pooled = pool_instances(pyramid, STRIDES, boxes)
    assert pooled.shape == (2, 3, 4)
    for level, (maps, stride) in enumerate(zip(pyramid, STRIDES, strict=True)):
        rows = [(0, boxes[0][:1]), (0, boxes[0][1:]), (2, boxes[2])]
        for row, (image, box) in enumerate(rows):
            expected = mean_over_boxes(maps[image], box, stride)[0]
            torch.testing.assert_close(pooled[level, row], expected, rtol=1e-6, atol=1e-7)


def test_pooling_is_roi_align_with_very_many_samples():
    pyramid, boxes = make_pyramid(), make_boxes()
    pooled = pool_instances(pyramid, STRIDES, boxes)
    for level, (maps, stride) in enumerate(zip(pyramid, STRIDES, strict=True)):
        sampled = roi_align(maps, boxes, 1, 1 / stride, 100, True).flatten(1)
        torch.testing.assert_close(pooled[level], sampled, rtol=0, atol=1e-3)


def test_no_instances_keep_the_graph_and_give_zero_gradients():
    pyramid = tuple(maps.requires_grad_() for maps in make_pyramid())
    pooled = pool_instances(pyramid, STRIDES, [torch.zeros(0, 4)] * 3)
    assert pooled.shape == (2, 0, 4)
    pooled.sum().backward()
    assert all(maps.grad is not None and not maps.grad.any() for maps in pyramid)


def test_half_precision_maps_are_pooled_in_float32_inside_autocast():
    half = make_pyramid(dtype=torch.bfloat16)
    expected = pool_instances([maps.float() for maps in half], STRIDES, make_boxes())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool_instances(half, STRIDES, make_boxes())
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, expected)


def test_gradient_reaches_the_maps_under_the_boxes_alone():
    pyramid = tuple(maps.requires_grad_() for maps in make_pyramid())
    box = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    pool_instances(pyramid, STRIDES, [box, box[:0], box[:0]]).sum().backward()
    fine = pyramid[0].grad
    assert fine is not None
    torch.testing.assert_close(fine[0, 0].sum(), torch.tensor(1.0))
    assert (fine[0, :, 1:3, 1:3] > 0).all()
    assert not fine[0, :, 4:].any()
    assert not fine[1:].any()


def test_two_pyramids_are_pooled_as_each_alone_also_where_a_size_differs():
    student, boxes = make_pyramid(), make_boxes()
    for teacher in (make_pyramid(channels=5), (make_pyramid(channels=5)[0][:, :, :-1], make_pyramid(channels=5)[1])):
        own, aim = pool_pair(student, teacher, STRIDES, boxes)
        assert torch.equal(own, pool_instances(student, STRIDES, boxes))
        assert torch.equal(aim, pool_instances(teacher, STRIDES, boxes))
