"""Gradients of a class: batched equals class by class, and both equal a network worked out by hand."""

import pytest
import torch
from torch import nn
from torch.nn.functional import softmax

from distil.functional.distances import gradient_distance
from distil.functional.gradients import class_gradient, class_gradients_batched, matched_names
from distil.networks import build_network


def convnet(seed=0, classes=3):
    return build_network("convnet3", channels=1, size=(16, 16), classes=classes, width=4, seed=seed).double()


def class_images(classes=3, count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(classes, count, 1, 16, 16, dtype=torch.float64, generator=generator)
    return images, torch.arange(classes)[:, None].expand(-1, count)


def test_matched_names_leave_vectors_out():
    net = convnet()
    shapes = {name: weight.dim() for name, weight in net.named_parameters()}
    assert {shapes[name] for name in matched_names(net, "convolutions")} == {4}
    assert {shapes[name] for name in matched_names(net, "all")} == {4, 2}
    assert len(matched_names(net, "convolutions")) == 3
    assert len(matched_names(net, "all")) == 4


def test_class_gradient_of_a_linear_classifier_by_hand():
    linear = nn.Linear(4, 3, dtype=torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    error = softmax(linear(x), 1) - torch.eye(3, dtype=torch.float64)[y]
    got = class_gradient(linear(x), y, [linear.weight], differentiable=False)[0]
    torch.testing.assert_close(got, error.T @ x / 6)


def test_soft_labels_of_one_class_equal_the_hard_one():
    net, (images, labels) = convnet(), class_images()
    weights = list(net.parameters())
    hard = class_gradient(net(images[1]), labels[1], weights, differentiable=False)
    soft_labels = torch.eye(3, dtype=torch.float64)[labels[1]]
    soft = class_gradient(net(images[1]), soft_labels, weights, differentiable=False)
    torch.testing.assert_close(hard, soft)


def test_batched_over_classes_equals_class_by_class():
    net, (images, labels) = convnet(), class_images()
    batched = class_gradients_batched(net, dict(net.named_parameters()), images, labels)
    for c in range(3):
        alone = class_gradient(net(images[c]), labels[c], list(net.parameters()), differentiable=False)
        for (name, _), gradient in zip(net.named_parameters(), alone, strict=True):
            torch.testing.assert_close(batched[name][c], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("distance", ["cosine", "squared", "l1"])
def test_second_order_batched_equals_class_by_class(distance):
    net, (real, labels) = convnet(), class_images()
    synthetic = class_images(count=2, seed=1)[0].requires_grad_()
    names = matched_names(net, "convolutions")
    params = dict(net.named_parameters())
    targets = {n: g.detach() for n, g in class_gradients_batched(net, params, real, labels).items()}

    batched = class_gradients_batched(net, params, synthetic, labels[:, :2])
    together = sum(
        gradient_distance([targets[n][c] for n in names], [batched[n][c] for n in names], distance) for c in range(3)
    )
    alone = sum(
        gradient_distance(
            [targets[n][c] for n in names],
            class_gradient(net(synthetic[c]), labels[c, :2], [params[n] for n in names], differentiable=True),
            distance,
        )
        for c in range(3)
    )
    grads = [torch.autograd.grad(loss, synthetic)[0] for loss in (together, alone)]  # pyright: ignore
    torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-9)


def test_the_matching_loss_has_the_gradient_that_finite_differences_give():
    real, labels = class_images(count=2)
    smooth = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(27, 3)).double()
    weights = [p for p in smooth.parameters() if p.dim() > 1]
    target = class_gradient(smooth(real[0]), labels[0], weights, differentiable=False)
    x = real[1].clone().requires_grad_()

    def loss(views):
        gradient = class_gradient(smooth(views), labels[0], weights, differentiable=True)
        return gradient_distance(target, gradient, "squared")

    assert torch.autograd.gradcheck(loss, (x,))
