"""Canvases of coefficients: what their numbers mean, how they begin, which cosines are kept, and their gradient."""

import math
from dataclasses import replace

import pytest
import torch

from distil.dataset.distilling import distil_dataset
from distil.dataset.formation import Spectrum, cosines_of_a_view, spectral_canvases, views_of, views_on
from distil.dataset.matching import advance, choose_cosines_again, initial_state
from distil.dataset.networks import fresh_learner, trained_proxy
from distil.dataset.policies import kept_cosines
from distil.dataset.step import Age, matching_gradient, real_targets
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.functional.dct import GREY, coefficients, from_kept_coefficients, lowest_frequencies
from distil.runs import RESULT

from .conftest import make_images
from .test_distilling import Recorder, tiny

SHAPE = (1, 8, 8)


def spectral(**changes):
    return tiny(**({"formation": "spectrum", "spectral_views": 4} | changes))


class SeesThree(torch.nn.Module):
    def forward(self, x):
        return 5 * coefficients(x)[:, 40:43]


def test_numbers_move_their_own_view_by_as_much_as_they_change():
    spectrum = Spectrum(torch.tensor([0, 3, 9]), SHAPE)
    canvases = torch.zeros(2, *SHAPE)
    assert views_on(canvases, spectrum) == 21
    moved = canvases.clone().flatten(1)
    moved[1, 3:6] = 0.2
    views = views_of(moved.view_as(canvases), spectrum, (8, 8))
    changed = (views - GREY).square().mean((1, 2, 3)).sqrt()
    assert changed.nonzero().flatten().tolist() == [21 + 1]
    torch.testing.assert_close(changed[22], torch.tensor(0.2), rtol=1e-5, atol=0)


def test_canvases_begin_as_real_images_of_their_class_seen_through_the_cosines(real):
    kept = torch.arange(16)
    spectrum = Spectrum(kept, SHAPE)
    canvases = spectral_canvases(real, spectrum, spectral(ipc=2))
    assert canvases.shape == (6, *SHAPE)
    views = views_of(canvases, spectrum, real.size).view(3, 8, *SHAPE)
    for label in range(3):
        mine = real.images[real.by_class[label]].float() / 255
        seen = from_kept_coefficients(coefficients(mine)[:, kept], kept, SHAPE)
        gaps = (views[label][:, None] - seen[None]).abs().amax((2, 3, 4)).amin(1)
        assert float(gaps.max()) < 1e-5


def test_each_policy_keeps_what_it_says(real):
    proxy = trained_proxy("convnet2", 4, real, 2, device="cpu", seed=0)
    chosen = {
        policy: kept_cosines(real, spectral(policy=policy), proxy).tolist()
        for policy in ("fixed", "random", "response", "jitter")
    }
    assert all(len(set(kept)) == 16 and kept == sorted(kept) for kept in chosen.values())
    order = lowest_frequencies(SHAPE).argsort(descending=True, stable=True)
    assert chosen["fixed"] == sorted(order[:16].tolist())
    assert chosen["random"] != kept_cosines(real, spectral(policy="random", seed=1), None).tolist()
    assert chosen["random"] == kept_cosines(real, spectral(policy="random"), None).tolist()
    for policy in ("response", "jitter"):
        assert chosen[policy] == kept_cosines(real, spectral(policy=policy), proxy).tolist()
        with pytest.raises(ValueError, match="needs a proxy"):
            kept_cosines(real, spectral(policy=policy), None)


def test_the_proxys_blind_spots_are_not_kept(real):
    for policy in ("response", "jitter"):
        kept = kept_cosines(real, spectral(policy=policy), SeesThree())
        assert {40, 41, 42} <= set(kept.tolist())


@pytest.mark.parametrize("policy", ["response", "jitter"])
def test_a_proxy_that_went_wrong_is_refused(real, policy):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * float("nan")

    with pytest.raises(DistilError, match=r"predictions are not finite.*use --policy fixed"):
        kept_cosines(real, spectral(policy=policy), Broken())


@pytest.mark.parametrize("policy", ["response", "jitter"])
def test_cosines_are_mined_from_any_to_those_that_the_proxy_uses(real, policy):
    """A proxy that sees three cosines finds those that the views lack; all other numbers and momenta stay."""
    settings = spectral(policy=policy, spectral_start="random", spectral_refresh=1, ipc=2)
    state = initial_state(real, settings, SeesThree())
    before = state.spectrum.kept
    assert before.tolist() == kept_cosines(real, spectral(policy="random"), None).tolist()
    assert not {40, 41, 42} <= set(before.tolist())
    state.canvases += torch.rand(state.canvases.shape, generator=torch.Generator().manual_seed(0))
    state.momentum += torch.rand(state.canvases.shape, generator=torch.Generator().manual_seed(1))
    numbers, momenta = (x.flatten(1).view(6, 4, 16).clone() for x in (state.canvases, state.momentum))
    choose_cosines_again(state, real, settings, SeesThree(), 1)

    kept = state.spectrum.kept
    assert {40, 41, 42} <= set(kept.tolist())
    assert kept.tolist() == sorted(set(kept.tolist()))
    first = views_of(spectral_canvases(real, state.spectrum, settings), state.spectrum, real.size)
    for place, position in enumerate(kept.tolist()):
        now = [x.flatten(1).view(6, 4, 16)[..., place] for x in (state.canvases, state.momentum)]
        if position in before.tolist():
            was = before.tolist().index(position)
            assert torch.equal(now[0], numbers[..., was])
            assert torch.equal(now[1], momenta[..., was])
        else:
            begun = coefficients(first)[:, position].view(6, 4) / state.spectrum.unit
            torch.testing.assert_close(now[0], begun, rtol=1e-4, atol=1e-5)
            assert not now[1].any()


@pytest.mark.parametrize("policy", ["response", "jitter"])
@pytest.mark.parametrize("value", [float("nan"), 1e38])
def test_views_that_ran_away_choose_nothing(real, policy, value):
    settings = spectral(policy=policy, spectral_start="random", spectral_refresh=1)
    state = initial_state(real, settings, SeesThree())
    before = state.spectrum.kept
    state.canvases[0] = value
    choose_cosines_again(state, real, settings, SeesThree(), 1)
    assert torch.equal(state.spectrum.kept, before)


def test_cosines_are_chosen_again_as_often_as_asked_and_not_at_the_end(real):
    def choices(**changes):
        log = Recorder()
        settings = spectral(policy="response", spectral_start="random", outer=5, inner=1, proxy_steps=5, **changes)
        distil_dataset(real, settings, events=log)
        return [told["step"] for told in log.of("cosines")]

    assert choices() == [0]
    assert choices(spectral_refresh=2, windows_freeze=1.0) == [0]
    assert {0, 3} <= set(choices(spectral_refresh=2, windows_freeze=0.0)) <= {0, 3, 5}
    assert 2 in choices(spectral_refresh=1, windows_freeze=0.6)
    assert max(choices(spectral_refresh=1, windows_freeze=0.6)) <= 2


@pytest.mark.parametrize("changes", [{"policy": "fixed"}, {"formation": "grid", "policy": "response"}])
def test_choosing_again_needs_a_policy_that_asks_a_network(real, changes):
    with pytest.raises(DistilError, match=r"--spectral-refresh 2 chooses cosines again by a network's response: use"):
        distil_dataset(real, spectral(spectral_refresh=2, **changes))


def test_more_views_than_numbers_is_refused(real):
    assert cosines_of_a_view(SHAPE, spectral(spectral_views=64)) == 1
    assert cosines_of_a_view(SHAPE, spectral(spectral_views=64, storage="uint4")) == 2
    assert cosines_of_a_view(SHAPE, spectral(spectral_views=1, storage="uint4")) == 64
    with pytest.raises(DistilError, match=r"--spectral-views 65 is more than a canvas has numbers, 64"):
        distil_dataset(real, spectral(spectral_views=65))
    with pytest.raises(DistilError, match=r"--spectral-views is 0: it must be above 0"):
        distil_dataset(real, spectral(spectral_views=0))


@pytest.mark.parametrize("ipc", [1, 2])
def test_the_gradient_is_that_of_the_pixels_along_the_cosines(real, ipc):
    settings = spectral(ipc=ipc, augment="none", policy="fixed")
    state = initial_state(real, settings)
    learner = fresh_learner("convnet2", 4, real, device="cpu", seed=0, address=("t",))
    age = Age(learner, real_targets(learner, real, settings, 0, 0), 0, 0)
    found, losses = matching_gradient(state.canvases, None, age, real, settings, state.spectrum)

    views = views_of(state.canvases, state.spectrum, real.size)
    plain = replace(settings, formation="grid", factor=1, ipc=4 * ipc)
    pixels, expected_losses = matching_gradient(views, None, age, real, plain)
    along = coefficients(pixels + GREY)[:, state.spectrum.kept]
    expected = (state.spectrum.unit * along).reshape(state.canvases.shape)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(losses["loss"], expected_losses["loss"])


def test_the_contrastive_loss_sees_the_views(real):
    settings = spectral(policy="fixed", cfc_share=0.3, cfc_temperature=1.0)
    state = initial_state(real, settings)
    learner = fresh_learner("convnet2", 4, real, device="cpu", seed=0, address=("t",))
    age = Age(learner, real_targets(learner, real, settings, 0, 0), 0, 0)
    both, losses = matching_gradient(state.canvases, None, age, real, settings, state.spectrum)
    plain, _ = matching_gradient(state.canvases, None, age, real, replace(settings, cfc_share=0.0), state.spectrum)
    assert math.isfinite(losses["contrast"])
    torch.testing.assert_close((both - plain).norm(), 0.3 * plain.norm(), rtol=1e-3, atol=0)


def test_a_finished_set_shows_what_was_learned(real):
    settings = spectral(policy="fixed", gradient_scale="canvas", lr_image=0.02)
    fine = distil_dataset(real, replace(settings, storage="float32"))
    coarse = distil_dataset(real, settings)
    assert (fine.views, coarse.views) == (4, 4)
    assert coarse.canvases.dtype == torch.uint8
    gap = (fine.decoded().images - coarse.decoded().images).abs().max()
    assert 0 < float(gap) < 0.05
    halves = distil_dataset(real, replace(settings, storage="uint4"))
    assert (halves.views, halves.canvases.shape, len(halves.cosines.kept)) == (4, coarse.canvases.shape, 32)
    start = views_of(initial_state(real, settings).canvases, initial_state(real, settings).spectrum, real.size)
    assert 0.01 < float((fine.decoded().images - start).square().mean().sqrt()) < 0.3


@pytest.mark.parametrize(("channels", "side"), [(1, 9), (3, 9), (1, 8)])
@pytest.mark.parametrize("storage", ["uint4", "uint8", "float32"])
def test_canvases_of_an_odd_number_of_values_are_finished(channels, side, storage, tmp_path):
    real = make_images(channels=channels, side=side)
    made = distil_dataset(real, spectral(policy="fixed", storage=storage, spectral_views=5), folder=tmp_path)
    numbers = channels * side * side * (2 if storage == "uint4" else 1)
    assert (made.views, len(made.cosines.kept)) == (numbers // (numbers // 5), min(numbers // 5, numbers))
    assert torch.equal(DistilledSet.load(tmp_path / RESULT).decoded().images, made.decoded().images)


@pytest.mark.parametrize("channels", [1, 3])
def test_two_coefficients_in_a_byte_are_as_good_as_four_bits_allow(channels):
    real = make_images(channels=channels)
    settings = spectral(policy="fixed", gradient_scale="canvas", lr_image=0.02, storage="uint4", spectral_views=8)
    state = initial_state(real, settings)
    assert state.canvases.shape == (3, 2 * channels, 8, 8)
    for _ in advance(state, real, settings, None):
        pass
    learned = views_of(state.canvases, state.spectrum, real.size)
    made = distil_dataset(real, settings)
    assert made.canvases.shape == (3, channels, 8, 8)
    error = (made.decoded().images - learned).square().mean().sqrt()
    assert 0 < float(error) < 0.15 * float((learned - GREY).square().mean().sqrt()) + 0.01
    with pytest.raises(DistilError, match="--storage uint4 is for coefficients"):
        distil_dataset(real, tiny(storage="uint4"))


def test_views_of_a_class_with_fewer_images_than_views_begin_apart():
    real = make_images(each=3)
    spectrum = Spectrum(torch.arange(8), SHAPE)
    views = views_of(spectral_canvases(real, spectrum, spectral(spectral_views=8)), spectrum, real.size).flatten(1)
    apart = torch.cdist(views[:8], views[:8]) + torch.eye(8)
    assert apart.min() > 1e-3
