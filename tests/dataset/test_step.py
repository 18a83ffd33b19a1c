"""A matching step against the definition written out, class by class, and its faster forms against the plain one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from distil.dataset import step
from distil.dataset.config import ImageSGD, check_settings
from distil.dataset.image_optimizer import ImageDescent
from distil.dataset.methods import preset
from distil.dataset.network_state import fresh_network
from distil.dataset.objectives.gradient import GradientObjective
from distil.dataset.step import NetworkStage, params_gradient
from distil.errors import DistilError
from distil.functional.distances import gradient_distance
from distil.functional.gradients import matched_names
from distil.functional.regions import crop_resize, grid_regions
from distil.rng import stream

from .conftest import changed, finished_loop, loop_of, make_images, stage_of


def settings_for(method="idc", ipc=2, **changes) -> Any:
    small = {"network": "convnet2", "width": 8, "outer": 1, "inner": 3, "batch": 6, "network_samples": 6}
    settings = changed(preset(method, "custom", ipc, "published"), **small)
    return changed(settings, **changes)


def state_for(real, settings, **more):
    return fresh_network(settings.network, settings.width, real, device="cpu", seed=0, address=("test",), **more)


def by_definition(loop, net, settings):
    """The gradient of one step: every class alone, every batch alone, straight from the papers' equations."""
    real, parameters = loop.task.real, dict(net.named_parameters())
    weights = [parameters[name] for name in matched_names(net, settings.objective.layers)]
    total = torch.zeros_like(loop.params)
    for label, name in enumerate(real.classes):
        address = ("step", 0, 0, name)
        images = real.sample_class(label, settings.sampler.batch, stream(settings.seed, *address, "real"))
        images = loop.augmentation(images, real, settings.seed, address)
        rows = slice(label * settings.ipc, (label + 1) * settings.ipc)
        leaf = loop.params[rows].clone().requires_grad_()
        decoded = crop_resize(leaf, grid_regions(settings.parameterization.factor, real.size)[None], real.size)
        decoded = loop.augmentation(decoded, real, settings.seed, address)
        wanted = torch.full((len(images),), label)
        target = torch.autograd.grad(cross_entropy(net(images), wanted), weights)
        labels = torch.full((len(decoded),), label)
        gradient = torch.autograd.grad(cross_entropy(net(decoded), labels), weights, create_graph=True)
        distance = gradient_distance(target, gradient, settings.objective.distance)
        total[rows] = torch.autograd.grad(distance, leaf)[0]
    return total


@pytest.mark.parametrize("distance", ["cosine", "squared", "l1"])
@pytest.mark.parametrize("together", [1, 8, 16, 1000])
def test_a_step_is_its_definition_however_many_classes_share_a_pass(monkeypatch, distance, together):
    real = make_images(classes=5, side=16)
    settings = settings_for(distance=distance)
    monkeypatch.setitem(step.IMAGES_AT_ONCE, "cpu", together)
    monkeypatch.setitem(step.REAL_IMAGES_AT_ONCE, "cpu", together)
    loop, state = loop_of(real, settings), state_for(real, settings)
    gradient, _ = loop.gradient(stage_of(loop, state))
    expected = by_definition(loop, state.net, settings)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("network", ["convnet3", "resnet10", "vgg11", "alexnet", "vit"])
def test_every_network_can_take_all_classes_at_once(monkeypatch, network):
    real = make_images(classes=3, side=16)
    settings = settings_for(network=network, width=4 if network != "vit" else 12, ipc=1)
    loop = loop_of(real, settings)
    stage, gradients = stage_of(loop, state_for(real, settings)), []
    for together in (1, 1000):
        monkeypatch.setitem(step.IMAGES_AT_ONCE, "cpu", together)
        gradients.append(loop.gradient(stage)[0])
    scale = float(gradients[0].abs().max())
    assert scale > 0
    torch.testing.assert_close(gradients[1] / scale, gradients[0] / scale, rtol=1e-2, atol=1e-3)


def test_targets_are_the_same_however_many_classes_share_a_pass(monkeypatch):
    real = make_images(classes=5, side=16)
    loop = loop_of(real, settings_for(networks="targets", contrastive="cfc"))
    state = state_for(real, loop.settings)
    alone = stage_of(loop, state).targets
    for together in (12, 1000):
        monkeypatch.setitem(step.REAL_IMAGES_AT_ONCE, "cpu", together)
        shared = stage_of(loop, state).targets
        assert shared.keys() == alone.keys() == {"loss"}
        assert "mean" in shared["loss"]
        for loss, expected in alone.items():
            assert shared[loss].keys() == expected.keys()
            for name, tensor in expected.items():
                torch.testing.assert_close(shared[loss][name], tensor, rtol=1e-3, atol=1e-5)


def test_the_targets_are_gradients_of_the_mean_loss_and_their_mean_trains_the_network():
    real = make_images(side=16)
    loop = loop_of(real, settings_for(networks="targets", augment="none", batch=12))
    state = state_for(real, loop.settings)
    targets = stage_of(loop, state).targets["loss"]
    assert list(targets) == [name for name, _ in state.net.named_parameters()]
    whole = (real.images.float() / 255 - 0.5) / 0.25
    loss = cross_entropy(state.net(whole), real.labels.long())
    for rows, expected in zip(targets.values(), torch.autograd.grad(loss, state.weights), strict=True):
        torch.testing.assert_close(rows.mean(0), expected, rtol=1e-3, atol=1e-6)
    plain = loop_of(real, settings_for(augment="none", batch=12))
    matched = stage_of(plain, state).targets["loss"]
    assert list(matched) == matched_names(state.net, "convolutions")
    torch.testing.assert_close(dict(matched), {name: targets[name] for name in matched})


def test_target_training_moves_the_network_between_steps_and_not_after_the_last():
    real = make_images(side=16)
    settings = settings_for(networks="targets", inner=2, outer=1, network_lr=0.1)
    loop, weights = loop_of(real, settings), []
    while loop.done < loop.steps:
        loop.step()
        weights.append([w.detach().clone() for w in loop.held[0].state.weights])
    fresh = loop.networks.fresh(0)
    targets = stage_of(loop, fresh).targets["loss"]
    for moved, before, rows in zip(weights[0], fresh.weights, targets.values(), strict=True):
        expected = before - 0.1 * (rows.mean(0) + settings.networks.weight_decay * before)
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("networks", ["real", "targets", "fresh"])
def test_targets_of_all_stages_serve_several_steps_in_random_order(networks):
    real = make_images(side=16)
    settings = settings_for(networks=networks, target_reuse=3, inner=4)
    loop = finished_loop(real, settings)
    assert loop.done == 12
    plain = loop_of(real, changed(settings, target_reuse=1))
    stages = []
    state = plain.networks.fresh(0)
    for inner in range(4):
        stage = stage_of(plain, state, 0, inner)
        stages.append(NetworkStage(state.frozen(), stage.targets, 0, inner))
        plain.networks.advance(state, 0, inner, stage.targets["loss"], None)
    params, seen = plain.params, []
    momentum = torch.zeros_like(params)
    for visit in range(3):
        for inner in torch.randperm(4, generator=stream(settings.seed, "visit", 0, visit)).tolist():
            plain.params = params
            gradient, _ = plain.gradient(stages[inner])
            momentum = settings.optimizer.momentum * momentum + gradient
            params = params - settings.optimizer.lr * momentum
            seen.append(inner)
    assert seen != sorted(seen)
    torch.testing.assert_close(loop.params, params.clamp(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", ["real", "synthetic", "real_network_synthetic"])
def test_bfloat16_is_near_float32_and_is_used(stage):
    real = make_images(side=16, each=30)
    gradients = []
    for bfloat16 in ("none", stage):
        settings = settings_for(width=16, batch=30, bfloat16=bfloat16)
        loop = loop_of(real, settings)
        gradient, _ = loop.gradient(stage_of(loop, state_for(real, settings, bfloat16=True)))
        assert gradient.dtype == torch.float32
        gradients.append(gradient.flatten())
    plain, low = gradients
    assert not torch.equal(plain, low)
    assert float(torch.cosine_similarity(plain, low, dim=0)) > 0.97


def test_bfloat16_training_follows_float32():
    real = make_images(side=16, each=30)
    ends = []
    for bfloat16 in ("none", "network"):
        settings = settings_for(bfloat16=bfloat16, inner=10, network_samples=12, network_batch=12)
        ends.append(finished_loop(real, settings).held[0].state)
    start = fresh_network("convnet2", 8, real, device="cpu", seed=0, address=("network", 0)).weights
    moved = [torch.cat([(w - s).detach().flatten() for w, s in zip(e.weights, start, strict=True)]) for e in ends]
    assert not torch.equal(*moved)
    assert float(torch.cosine_similarity(*moved, dim=0)) > 0.95
    for weight, low in zip(ends[1].weights, ends[1].low.parameters(), strict=True):
        assert weight.dtype == torch.float32
        assert torch.equal(weight.to(torch.bfloat16), low)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bfloat16": "real_views"}, "bfloat16 real_views names no stage 'views'"),
        ({"bfloat16": ""}, "names no stage"),
        ({"target_reuse": 0}, "target_reuse is 0"),
        ({"networks": "targets", "objective": "feature"}, "networks targets trains by the real gradients"),
        ({"networks": "synthetic", "target_reuse": 2}, "target_reuse 2 computes"),
    ],
)
def test_what_cannot_be_computed_is_refused(changes, said):
    with pytest.raises(DistilError, match=said):
        check_settings(changed(preset("idc", "custom", 1), **changes))


def test_the_cosine_schedule_starts_at_the_learning_rate_and_ends_near_zero():
    settings = ImageSGD(lr=0.4, lr_schedule="cosine")
    rates = [ImageDescent(settings, 100).lr_at(step) for step in range(100)]
    assert rates[0] == 0.4
    assert rates[50] == pytest.approx(0.2)
    assert 0 < rates[-1] < 0.001
    assert rates == sorted(rates, reverse=True)
    assert ImageDescent(replace(settings, lr_schedule="constant"), 100).lr_at(99) == 0.4


def test_the_schedule_moves_the_parameters():
    real = make_images(side=16)
    ends = []
    for schedule in ("constant", "cosine"):
        loop = loop_of(real, settings_for(lr_schedule=schedule, inner=2, augment="none"))
        states = []
        while loop.done < loop.steps:
            loop.step()
            states.append(loop.params.clone())
        ends.append(states)
    assert torch.equal(ends[0][0], ends[1][0])
    assert not torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_a_scaled_gradient_moves_every_item_by_the_learning_rate(weight):
    gradient = weight * torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    params, momentum = torch.full_like(gradient, 0.5), torch.zeros_like(gradient)
    before = params.clone()
    descent = ImageDescent(ImageSGD(lr=0.002, gradient_scale="item", momentum=0.0), 1)
    descent.move_(params, {"momentum": momentum}, gradient, 0)
    moved = (params - before).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.002), rtol=1e-3, atol=0)


def test_an_item_without_gradient_stays():
    params = torch.rand(2, 1, 4, 4)
    before = params.clone()
    descent = ImageDescent(ImageSGD(lr=0.1, gradient_scale="item"), 1)
    descent.move_(params, {"momentum": torch.zeros_like(params)}, torch.zeros_like(params), 0)
    assert torch.equal(params, before)


def test_momentum_and_scale_by_hand():
    params, momentum = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)
    ImageDescent(ImageSGD(lr=0.1, momentum=0.5), 1).move_(
        params, {"momentum": momentum}, torch.ones(1, 1, 1, 1), 0, 3.0
    )
    assert momentum.item() == 2.0
    assert params.item() == pytest.approx(-0.6)


def test_windows_matched_jointly_are_images_like_cells():
    real = make_images(side=16)
    settings = settings_for(parameterization="windows", windows_loss="joint", policy="random", batch=4, augment="none")
    loop = loop_of(real, settings)
    cells = grid_regions(2, real.size)
    windows, idle = cells[None, :1].expand(len(loop.params), -1, -1), torch.zeros(len(loop.params), *real.size)
    loop.placed = loop.placed.with_windows(windows, idle, apart=False)
    stage = stage_of(loop, loop.networks.fresh(0))

    joint, losses = loop.gradient(stage)

    twice = replace(loop.placed.unmined, regions=torch.cat([cells, cells[:1]])[None])
    here = step.Here(loop.params, stage.state.net, stage, loop.augmentation, loop.task)
    objective = GradientObjective("squared", "convolutions")
    expected, loss = params_gradient(objective, stage.targets["loss"], twice, loop.draw, here)
    torch.testing.assert_close(joint, expected)
    assert losses.keys() == {"loss"}
    torch.testing.assert_close(losses["loss"], loss)


def test_runs_can_share_networks_and_targets():
    real = make_images(side=16)
    settings = settings_for(target_reuse=2, inner=2, outer=2, width=8)
    alone = finished_loop(real, settings)
    shared = {outer: alone.all_stages(outer) for outer in range(2)}
    for _ in range(2):
        assert torch.equal(finished_loop(real, settings, stages=shared.__getitem__).params, alone.params)
