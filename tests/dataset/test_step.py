"""A matching step against the definition written out, class by class, and its faster forms against the plain one."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from distil.dataset import matching, step
from distil.dataset.matching import advance, initial_state, lr_image_at
from distil.dataset.networks import fresh_learner
from distil.dataset.policies import Mined
from distil.dataset.presets import preset
from distil.dataset.step import Age, matching_gradient, prepare, real_targets
from distil.errors import DistilError
from distil.functional.distances import gradient_distance
from distil.functional.gradients import matched_names
from distil.functional.regions import crop_resize, grid_regions
from distil.rng import stream
from distil.settings import check_settings

from .conftest import make_images


def settings_for(method="idc", ipc=2, **changes):
    tiny = {"network": "convnet2", "width": 8, "outer": 1, "inner": 3, "batch_real": 6, "network_samples": 6}
    return replace(preset(method, "custom", ipc), **(tiny | changes))


def learner_for(real, settings, **more):
    return fresh_learner(settings.network, settings.width, real, device="cpu", seed=0, address=("test",), **more)


def by_definition(canvases, net, real, settings):
    """The gradient of one step: every class alone, every batch alone, straight from the papers' equations."""
    parameters = dict(net.named_parameters())
    weights = [parameters[name] for name in matched_names(net, settings.layers)]
    total = torch.zeros_like(canvases)
    for label, name in enumerate(real.classes):
        address = ("step", 0, 0, name)
        images = real.sample_class(label, settings.batch_real, stream(settings.seed, *address, "real"))
        images = prepare(images, real, settings, address)
        rows = slice(label * settings.ipc, (label + 1) * settings.ipc)
        leaf = canvases[rows].clone().requires_grad_()
        views = crop_resize(leaf, grid_regions(settings.factor, real.size)[None], real.size)
        views = prepare(views, real, settings, address)
        wanted = torch.full((len(images),), label)
        target = torch.autograd.grad(cross_entropy(net(images), wanted), weights)
        labels = torch.full((len(views),), label)
        gradient = torch.autograd.grad(cross_entropy(net(views), labels), weights, create_graph=True)
        total[rows] = torch.autograd.grad(gradient_distance(target, gradient, settings.distance), leaf)[0]
    return total


@pytest.mark.parametrize("distance", ["cosine", "squared", "l1"])
@pytest.mark.parametrize("together", [1, 8, 16, 1000])
def test_a_step_is_its_definition_however_many_classes_share_a_pass(monkeypatch, distance, together):
    real = make_images(classes=5, side=16)
    settings = settings_for(distance=distance)
    monkeypatch.setitem(step.VIEWS_AT_ONCE, "cpu", together)
    monkeypatch.setitem(step.REAL_IMAGES_AT_ONCE, "cpu", together)
    learner = learner_for(real, settings)
    canvases = initial_state(real, settings).canvases
    targets = real_targets(learner, real, settings, 0, 0)
    gradient, _ = matching_gradient(canvases, None, Age(learner, targets, 0, 0), real, settings)
    expected = by_definition(canvases, learner.net, real, settings)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("network", ["convnet3", "resnet10", "vgg11", "alexnet", "vit"])
def test_every_network_can_take_all_classes_at_once(monkeypatch, network):
    real = make_images(classes=3, side=16)
    settings = settings_for(network=network, width=4 if network != "vit" else 12, ipc=1)
    learner = learner_for(real, settings)
    canvases = initial_state(real, settings).canvases
    targets = real_targets(learner, real, settings, 0, 0)
    gradients = []
    for together in (1, 1000):
        monkeypatch.setitem(step.VIEWS_AT_ONCE, "cpu", together)
        gradients.append(matching_gradient(canvases, None, Age(learner, targets, 0, 0), real, settings)[0])
    scale = float(gradients[0].abs().max())
    assert scale > 0
    torch.testing.assert_close(gradients[1] / scale, gradients[0] / scale, rtol=1e-2, atol=1e-3)


def test_targets_are_the_same_however_many_classes_share_a_pass(monkeypatch):
    real = make_images(classes=5, side=16)
    settings = settings_for(network_data="matched")
    learner = learner_for(real, settings)
    alone = real_targets(learner, real, settings, 0, 0)
    for together in (12, 1000):
        monkeypatch.setitem(step.REAL_IMAGES_AT_ONCE, "cpu", together)
        shared = real_targets(learner, real, settings, 0, 0)
        torch.testing.assert_close(shared.centres, alone.centres, rtol=1e-4, atol=1e-5)
        for name, gradient in alone.gradients.items():
            torch.testing.assert_close(shared.gradients[name], gradient, rtol=1e-3, atol=1e-5)
        for one, other in zip(shared.descent, alone.descent, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_targets_are_gradients_of_the_mean_loss_and_their_mean_trains_the_network():
    real = make_images(side=16)
    settings = settings_for(network_data="matched", augment="none", batch_real=12)
    learner = learner_for(real, settings)
    targets = real_targets(learner, real, settings, 0, 0)
    assert list(targets.gradients) == matched_names(learner.net, "convolutions")
    whole = (real.images.float() / 255 - 0.5) / 0.25
    loss = cross_entropy(learner.net(whole), real.labels.long())
    for mean, expected in zip(targets.descent, torch.autograd.grad(loss, learner.weights), strict=True):
        torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-6)
    plain = real_targets(learner, real, replace(settings, network_data="real"), 0, 0)
    assert plain.descent == ()
    torch.testing.assert_close(plain.gradients, targets.gradients)


def test_matched_training_moves_the_network_between_steps_and_not_after_the_last():
    real = make_images(side=16)
    settings = settings_for(network_data="matched", inner=2, outer=1, network_lr=0.1)
    loop = advance(initial_state(real, settings), real, settings, None)
    weights = [[w.detach().clone() for w in state.learner.weights] for state in loop]
    fresh = fresh_learner("convnet2", 8, real, device="cpu", seed=settings.seed, address=("network", 0))
    descent = real_targets(fresh, real, settings, 0, 0).descent
    for moved, before, gradient in zip(weights[0], fresh.weights, descent, strict=True):
        expected = before - 0.1 * (gradient + settings.network_weight_decay * before)
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("network_data", ["real", "matched", "none"])
def test_targets_of_all_ages_serve_several_steps_in_random_order(network_data):
    real = make_images(side=16)
    settings = settings_for(target_updates=3, inner=4, network_data=network_data)
    *_, state = advance(initial_state(real, settings), real, settings, None)
    assert state.step == 12
    learner = fresh_learner("convnet2", 8, real, device="cpu", seed=settings.seed, address=("network", 0))
    ages = []
    plain = replace(settings, target_updates=1)
    for before in advance(initial_state(real, plain), real, plain, None):
        ages.append((learner.frozen(), real_targets(learner, real, settings, 0, before.step - 1)))
        learner = before.learner.frozen()
    canvases, seen = initial_state(real, settings).canvases, []
    momentum = torch.zeros_like(canvases)
    for visit in range(3):
        for inner in torch.randperm(4, generator=stream(settings.seed, "visit", 0, visit)).tolist():
            old, targets = ages[inner]
            gradient, _ = matching_gradient(canvases, None, Age(old, targets, 0, inner), real, settings)
            momentum = settings.momentum_image * momentum + gradient
            canvases = canvases - settings.lr_image * momentum
            seen.append(inner)
    assert seen != sorted(seen)
    torch.testing.assert_close(state.canvases, canvases.clamp(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", ["real", "synthetic", "real_network_synthetic"])
def test_bfloat16_is_near_float32_and_is_used(stage):
    real = make_images(side=16, each=30)
    settings = settings_for(width=16, batch_real=30)
    canvases = initial_state(real, settings).canvases
    gradients = []
    for bfloat16 in ("none", stage):
        changed = replace(settings, bfloat16=bfloat16)
        learner = learner_for(real, changed, bfloat16=True)
        targets = real_targets(learner, real, changed, 0, 0)
        gradient, _ = matching_gradient(canvases, None, Age(learner, targets, 0, 0), real, changed)
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
        *_, state = advance(initial_state(real, settings), real, settings, None)
        ends.append(state.learner)
    start = fresh_learner("convnet2", 8, real, device="cpu", seed=0, address=("network", 0)).weights
    moved = [torch.cat([(w - s).detach().flatten() for w, s in zip(e.weights, start, strict=True)]) for e in ends]
    assert not torch.equal(*moved)
    assert float(torch.cosine_similarity(*moved, dim=0)) > 0.95
    for weight, low in zip(ends[1].weights, ends[1].low.parameters(), strict=True):
        assert weight.dtype == torch.float32
        assert torch.equal(weight.to(torch.bfloat16), low)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bfloat16": "real_views"}, "--bfloat16 real_views names no stage 'views'"),
        ({"bfloat16": ""}, "names no stage"),
        ({"target_updates": 0}, "--target-updates is 0"),
        ({"network_data": "matched", "objective": "feature"}, "--network-data matched"),
        ({"network_data": "synthetic", "target_updates": 2}, "--target-updates 2 computes"),
    ],
)
def test_what_cannot_be_computed_is_refused(changes, said):
    with pytest.raises(DistilError, match=said):
        check_settings(replace(preset("idc", "custom", 1), **changes))


def test_the_cosine_schedule_starts_at_the_learning_rate_and_ends_near_zero():
    settings = settings_for(lr_schedule="cosine", lr_image=0.4, outer=10, inner=10)
    rates = [lr_image_at(step, settings) for step in range(100)]
    assert rates[0] == 0.4
    assert rates[50] == pytest.approx(0.2)
    assert 0 < rates[-1] < 0.001
    assert rates == sorted(rates, reverse=True)
    assert lr_image_at(99, replace(settings, lr_schedule="constant")) == 0.4


def test_the_schedule_moves_the_canvases():
    real = make_images(side=16)
    ends = []
    for schedule in ("constant", "cosine"):
        settings = settings_for(lr_schedule=schedule, inner=2, augment="none")
        states = [s.canvases.clone() for s in advance(initial_state(real, settings), real, settings, None)]
        ends.append(states)
    assert torch.equal(ends[0][0], ends[1][0])
    assert not torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_a_scaled_gradient_moves_every_canvas_by_the_learning_rate(monkeypatch, weight):
    real = make_images(side=16)
    settings = settings_for(gradient_scale="canvas", lr_image=0.002, momentum_image=0.0, inner=1, outer=1)
    original = matching.matching_gradient
    monkeypatch.setattr(matching, "matching_gradient", lambda *a: (weight * original(*a)[0], original(*a)[1]))
    state = initial_state(real, settings)
    state.canvases = state.canvases.clamp(0.1, 0.9)
    before = state.canvases.clone()

    for _ in advance(state, real, settings, None):
        moved = (state.canvases - before).square().mean((1, 2, 3)).sqrt()

    torch.testing.assert_close(moved, torch.full_like(moved, 0.002), rtol=1e-3, atol=0)


def test_a_canvas_without_gradient_stays(monkeypatch):
    real = make_images(side=16)
    settings = settings_for(gradient_scale="canvas", inner=1, outer=1)
    nothing = lambda canvases, *_: (torch.zeros_like(canvases), {})  # noqa: E731
    monkeypatch.setattr(matching, "matching_gradient", nothing)
    state = initial_state(real, settings)
    before = state.canvases.clone()
    list(advance(state, real, settings, None))
    assert torch.equal(state.canvases, before)


def test_windows_matched_jointly_are_views_like_cells():
    real = make_images(side=16)
    settings = settings_for(factor=2, windows_loss="joint", policy="random", batch_real=4, augment="none")
    state = initial_state(real, settings)
    learner = fresh_learner("convnet3", 8, real, device="cpu", seed=0, address=("network", 0))
    age = Age(learner, real_targets(learner, real, settings, 0, 0), 0, 0)
    cells = grid_regions(2, real.size)
    mined = Mined(cells[None, :1].expand(len(state.canvases), -1, -1), torch.zeros(len(state.canvases), *real.size))

    joint, losses = matching_gradient(state.canvases, mined, age, real, settings)

    twice = torch.cat([cells, cells[:1]])[None]
    expected, loss = step._views_gradient(state.canvases, twice, age, real, settings)
    torch.testing.assert_close(joint, expected)
    assert losses.keys() == {"loss"}
    torch.testing.assert_close(losses["loss"], loss)


def test_new_windows_begin_with_real_images_of_their_class_and_old_ones_stay(monkeypatch):
    real = make_images(side=16)
    settings = settings_for(
        factor=2, policy="random", windows=2, windows_factor=4, windows_init="real", windows_start=0.0, inner=1, outer=2
    )
    settings = replace(settings, refresh=1, windows_freeze=0.0, lr_image=1e-12)
    state = initial_state(real, settings)
    run = advance(state, real, settings, None)
    seen = [(at.canvases.clone(), at.mined.windows.clone()) for at in run if at.mined is not None]
    first = initial_state(real, settings).canvases
    for canvases, windows in seen:
        for row, own in enumerate(windows):
            inside = torch.zeros(real.size, dtype=torch.bool)
            for x1, y1, x2, y2 in own.int().tolist():
                inside[y1:y2, x1:x2] = True
                assert not torch.allclose(canvases[row, :, y1:y2, x1:x2], first[row, :, y1:y2, x1:x2], atol=1e-3)
            if windows is seen[0][1]:
                assert torch.allclose(canvases[row][:, ~inside], first[row][:, ~inside], atol=1e-6)
    x1, y1, x2, y2 = seen[0][1][0, 0].int().tolist()
    images = real.images[real.labels == 0].float() / 255
    shrunk = interpolate(images, size=(4, 4), mode="bilinear", antialias=True)
    gaps = (shrunk - seen[0][0][0, :, y1:y2, x1:x2]).abs().amax((1, 2, 3))
    assert float(gaps.min()) < 1e-5


def test_runs_can_share_networks_and_targets():
    real = make_images(side=16)
    settings = settings_for(target_updates=2, inner=2, outer=2, width=8)
    alone = [state.canvases.clone() for state in advance(initial_state(real, settings), real, settings, None)][-1]
    shared = {outer: matching.all_ages(real, settings, outer) for outer in range(2)}
    for _ in range(2):
        run = advance(initial_state(real, settings), real, settings, None, shared.__getitem__)
        assert torch.equal([state.canvases.clone() for state in run][-1], alone)
