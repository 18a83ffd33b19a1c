"""Items of DCT coefficients: what their numbers mean, how they begin, which are kept, and their gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from distil.dataset.distil import distil_dataset
from distil.dataset.proxies import trained_proxy
from distil.dataset.selection.coefficients import coefficients_of_an_image
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.functional.dct import GREY, coefficients, from_kept_coefficients, lowest_frequencies
from distil.parameterizations.dct import Dct
from distil.runs import RESULT

from .conftest import finished_loop, loop_of, make_images, stage_of, tiny
from .test_distil import Recorder

SHAPE = (1, 8, 8)


def spectral(**changes):
    given = {"parameterization": "dct", "images": 4, "bits": 8, "init": "real"}
    return tiny(**(given | changes))


def kept_of(real, settings, proxy=None):
    return loop_of(real, settings, proxy).placed.kept


class SeesThree(torch.nn.Module):
    def forward(self, x):
        return 5 * coefficients(x)[:, 40:43]


def test_numbers_move_their_image_by_as_much_as_they_change():
    placed = Dct(torch.tensor([0, 3, 9]), SHAPE)
    params = torch.zeros(2, *SHAPE)
    assert placed.images_per_item == 21
    moved = params.clone().flatten(1)
    moved[1, 3:6] = 0.2
    images = placed.decode(moved.view_as(params))
    changed = (images - GREY).square().mean((1, 2, 3)).sqrt()
    assert changed.nonzero().flatten().tolist() == [21 + 1]
    torch.testing.assert_close(changed[22], torch.tensor(0.2), rtol=1e-5, atol=0)


def test_items_begin_as_real_images_of_their_class_seen_through_the_frequencies(real):
    loop = loop_of(real, spectral(ipc=2, policy="fixed"))
    kept = loop.placed.kept
    assert loop.params.shape == (6, *SHAPE)
    images = loop.placed.decode(loop.params).view(3, 8, *SHAPE)
    for label in range(3):
        of_class = real.images[real.by_class[label]].float() / 255
        seen = from_kept_coefficients(coefficients(of_class)[:, kept], kept, SHAPE)
        gaps = (images[label][:, None] - seen[None]).abs().amax((2, 3, 4)).amin(1)
        assert float(gaps.max()) < 1e-5


def test_each_policy_keeps_what_it_says(real):
    proxy = trained_proxy("convnet2", 4, real, 2, device="cpu", seed=0)
    policies = ("fixed", "random", "response", "jitter")
    chosen = {policy: kept_of(real, spectral(policy=policy), proxy).tolist() for policy in policies}
    assert all(len(set(kept)) == 16 and kept == sorted(kept) for kept in chosen.values())
    order = lowest_frequencies(SHAPE).argsort(descending=True, stable=True)
    assert chosen["fixed"] == sorted(order[:16].tolist())
    assert chosen["random"] != kept_of(real, spectral(policy="random", seed=1)).tolist()
    assert chosen["random"] == kept_of(real, spectral(policy="random")).tolist()
    for policy in ("response", "jitter"):
        assert chosen[policy] == kept_of(real, spectral(policy=policy), proxy).tolist()
        with pytest.raises(ValueError, match="needs a proxy"):
            kept_of(real, spectral(policy=policy))


def test_the_proxys_blind_spots_are_not_kept(real):
    for policy in ("response", "jitter"):
        assert {40, 41, 42} <= set(kept_of(real, spectral(policy=policy), SeesThree()).tolist())


@pytest.mark.parametrize("policy", ["response", "jitter"])
def test_a_proxy_that_went_wrong_is_refused(real, policy):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * float("nan")

    with pytest.raises(DistilError, match=r"predictions are not finite.*use policy fixed"):
        kept_of(real, spectral(policy=policy), Broken())


@pytest.mark.parametrize("policy", ["response", "jitter"])
def test_coefficients_are_mined_from_any_to_those_that_the_proxy_uses(real, policy):
    """A proxy that sees three finds those that the images lack; all other numbers and momenta stay."""
    settings = spectral(policy=policy, start="random", refresh=1, ipc=2, outer=5)
    loop = loop_of(real, settings, SeesThree())
    before = loop.placed.kept
    assert before.tolist() == kept_of(real, spectral(policy="random")).tolist()
    assert not {40, 41, 42} <= set(before.tolist())
    loop.params += torch.rand(loop.params.shape, generator=torch.Generator().manual_seed(0))
    loop.moments["momentum"] += torch.rand(loop.params.shape, generator=torch.Generator().manual_seed(1))
    numbers, momenta = (x.flatten(1).view(6, 4, 16).clone() for x in (loop.params, loop.moments["momentum"]))
    after = loop.selection.refresh(1, loop.placed, loop.params, [loop.moments["momentum"]])

    kept = after.kept
    assert {40, 41, 42} <= set(kept.tolist())
    assert kept.tolist() == sorted(set(kept.tolist()))
    first = after.decode(loop.selection.first_params(after))
    for place, position in enumerate(kept.tolist()):
        now = [x.flatten(1).view(6, 4, 16)[..., place] for x in (loop.params, loop.moments["momentum"])]
        if position in before.tolist():
            was = before.tolist().index(position)
            assert torch.equal(now[0], numbers[..., was])
            assert torch.equal(now[1], momenta[..., was])
        else:
            begun = coefficients(first)[:, position].view(6, 4) / after.unit
            torch.testing.assert_close(now[0], begun, rtol=1e-4, atol=1e-5)
            assert not now[1].any()


@pytest.mark.parametrize("policy", ["response", "jitter"])
@pytest.mark.parametrize("value", [float("nan"), 1e38])
def test_images_that_ran_away_choose_nothing(real, policy, value):
    loop = loop_of(real, spectral(policy=policy, start="random", refresh=1, outer=5), SeesThree())
    loop.params[0] = value
    assert loop.selection.refresh(1, loop.placed, loop.params, [loop.moments["momentum"]]) is loop.placed


def test_frequencies_are_chosen_again_as_often_as_asked_and_not_at_the_end(real):
    def choices(**changes):
        log = Recorder()
        settings = spectral(policy="response", start="random", outer=5, inner=1, proxy_steps=5, **changes)
        distil_dataset(real, settings, events=log)
        return [told["step"] for told in log.of("cosines")]

    assert choices() == [0]
    assert choices(refresh=2, freeze=1.0) == [0]
    assert {0, 3} <= set(choices(refresh=2, freeze=0.0)) <= {0, 3, 5}
    assert 2 in choices(refresh=1, freeze=0.6)
    assert max(choices(refresh=1, freeze=0.6)) <= 2


def test_choosing_again_needs_a_policy_that_asks_a_network(real):
    with pytest.raises(DistilError, match=r"refresh 2 chooses frequencies again by a network's response: use policy"):
        distil_dataset(real, spectral(refresh=2, policy="fixed"))


def test_more_images_than_numbers_is_refused(real):
    def of_an_image(images, bits):
        return coefficients_of_an_image(SHAPE, spectral(images=images, bits=bits).parameterization)

    assert [of_an_image(64, 8), of_an_image(64, 4), of_an_image(1, 4)] == [1, 2, 64]
    with pytest.raises(DistilError, match=r"images 65 is more than an item has numbers, 64"):
        distil_dataset(real, spectral(images=65))
    with pytest.raises(DistilError, match=r"images is 0: it must be above 0"):
        distil_dataset(real, spectral(images=0))


@pytest.mark.parametrize("ipc", [1, 2])
def test_the_gradient_is_that_of_the_pixels_along_the_frequencies(real, ipc):
    loop = loop_of(real, spectral(ipc=ipc, augment="none", policy="fixed"))
    stage = stage_of(loop, loop.networks.fresh(0))
    found, losses = loop.gradient(stage)

    plain = loop_of(real, tiny(factor=1, ipc=4 * ipc, init="noise", augment="none"))
    plain.params = loop.placed.decode(loop.params)
    pixels, expected_losses = plain.gradient(stage)
    along = coefficients(pixels + GREY)[:, loop.placed.kept]
    expected = (loop.placed.unit * along).reshape(loop.params.shape)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(losses["loss"], expected_losses["loss"])


def test_the_contrastive_loss_sees_the_images(real):
    settings = {"policy": "fixed", "contrastive": "cfc", "cfc_share": 0.3, "cfc_temperature": 1.0}
    loop, alone = loop_of(real, spectral(**settings)), loop_of(real, spectral(policy="fixed"))
    state = loop.networks.fresh(0)
    both, losses = loop.gradient(stage_of(loop, state))
    plain, _ = alone.gradient(stage_of(alone, state))
    assert losses["contrast"].isfinite()
    torch.testing.assert_close((both - plain).norm(), 0.3 * plain.norm(), rtol=1e-3, atol=0)


def test_a_finished_set_shows_what_was_learned(real):
    changes = {"policy": "fixed", "gradient_scale": "item", "lr": 0.02}
    fine: Any = distil_dataset(real, spectral(bits=32, **changes))
    coarse = distil_dataset(real, spectral(**changes))
    assert (fine.images_per_item, coarse.images_per_item) == (4, 4)
    assert coarse.params.dtype == torch.uint8
    gap = (fine.decoded().images - coarse.decoded().images).abs().max()
    assert 0 < float(gap) < 0.05
    halves: Any = distil_dataset(real, spectral(bits=4, **changes))
    assert (halves.images_per_item, halves.params.shape) == (4, coarse.params.shape)
    assert len(halves.parameterization.kept) == 32
    loop = loop_of(real, spectral(**changes))
    start = loop.placed.decode(loop.params)
    assert 0.01 < float((fine.decoded().images - start).square().mean().sqrt()) < 0.3


@pytest.mark.parametrize(("channels", "side"), [(1, 9), (3, 9), (1, 8)])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_items_of_an_odd_number_of_values_are_finished(channels, side, bits, tmp_path):
    real = make_images(channels=channels, side=side)
    made: Any = distil_dataset(real, spectral(policy="fixed", bits=bits, images=5), folder=tmp_path)
    numbers = channels * side * side * (2 if bits == 4 else 1)
    kept = len(made.parameterization.kept)
    assert (made.images_per_item, kept) == (numbers // (numbers // 5), min(numbers // 5, numbers))
    assert torch.equal(DistilledSet.load(tmp_path / RESULT).decoded().images, made.decoded().images)


@pytest.mark.parametrize("channels", [1, 3])
def test_two_coefficients_in_a_byte_are_as_good_as_four_bits_allow(channels):
    real = make_images(channels=channels)
    settings = spectral(policy="fixed", gradient_scale="item", lr=0.02, bits=4, images=8)
    assert loop_of(real, settings).params.shape == (3, 2 * channels, 8, 8)
    loop = finished_loop(real, settings)
    learned = loop.placed.decode(loop.params)
    made = distil_dataset(real, settings)
    assert made.params.shape == (3, channels, 8, 8)
    error = (made.decoded().images - learned).square().mean().sqrt()
    assert 0 < float(error) < 0.15 * float((learned - GREY).square().mean().sqrt()) + 0.01


def test_images_of_a_class_with_fewer_images_than_it_needs_begin_apart():
    real = make_images(each=3)
    loop = loop_of(real, spectral(images=8, policy="fixed"))
    images = loop.placed.decode(loop.params).flatten(1)
    apart = torch.cdist(images[:8], images[:8]) + torch.eye(8)
    assert apart.min() > 1e-3


def test_the_policy_of_variance_keeps_what_varies_within_classes():
    """Position 7 differs between classes only, and most: it is not kept."""
    varying = torch.tensor([1, 8, 9, 19, 33, 42, 50, 51, 60, 3, 5, 24, 12, 40, 45, 63])
    generator = torch.Generator().manual_seed(0)
    numbers = torch.zeros(3, 12, 64)
    numbers[..., varying] = 0.1 * torch.randn(3, 12, 16, generator=generator)
    numbers[..., 7] = torch.tensor([-0.8, 0.0, 0.8])[:, None]
    images = from_kept_coefficients(numbers.flatten(0, 1), torch.arange(64), SHAPE)
    assert float(images.min()) > 0
    assert float(images.max()) < 1
    real = replace(make_images(), images=(255 * images).round().to(torch.uint8))
    assert kept_of(real, spectral(policy="variance")).tolist() == sorted(varying.tolist())
    assert 7 in kept_of(real, spectral(policy="response"), SeesSeven()).tolist()


class SeesSeven(torch.nn.Module):
    def forward(self, x):
        return 5 * coefficients(x)[:, 7:10]


def test_the_policy_of_variance_needs_no_proxy_and_asks_once(real, tmp_path):
    made: Any = distil_dataset(real, spectral(policy="variance", outer=3), folder=tmp_path)
    assert not (tmp_path / "proxy.safetensors").exists()
    assert made.parameterization.kept.tolist() == kept_of(real, spectral(policy="variance")).tolist()
