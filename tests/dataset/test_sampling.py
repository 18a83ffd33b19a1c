"""DREAM's real images: those nearest to the centers of a class's clusters."""

from typing import Any

import pytest
import torch
from torch import nn

from distil.dataset.config import KMeans
from distil.dataset.sampling import KMeansSampler
from distil.rng import stream

from .conftest import loop_of, make_images, stage_of, tiny


class Pixels(nn.Module):
    """Embeds images as their pixels, and counts them. scale: of the left half, to move the clusters."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.weight, self.scale, self.seen = nn.Parameter(torch.zeros(1)), scale, 0

    def embed(self, images):
        self.seen += len(images)
        return torch.cat([self.scale * images[..., :4], images[..., 4:] / self.scale], dim=-1).flatten(1)


def sampled(sampler, real, net, inner, label=0):
    return sampler(real, label, net, stream(0, "test", label), inner)


def three_clusters():
    """Images 0 to 3, 4 to 7 and 8 to 11 of each class are alike."""
    real: Any = make_images()
    bright = torch.tensor([20, 120, 220]).repeat_interleave(4).repeat(3)[:, None, None, None]
    return type(real)(
        images=(bright + torch.arange(36)[:, None, None, None] % 4).expand(36, 1, 8, 8).to(torch.uint8),
        labels=real.labels,
        classes=real.classes,
        mean=real.mean,
        std=real.std,
        name="clusters",
    )


def test_one_image_of_each_cluster_is_taken():
    real = three_clusters()
    sampler = KMeansSampler(KMeans(batch=3), real)
    for label in range(3):
        chosen = sampled(sampler, real, Pixels(), 0, label)
        assert chosen.shape == (3, 1, 8, 8)
        values = sorted((255 * chosen.mean((1, 2, 3))).round().int().tolist())
        assert [value // 100 for value in values] == [0, 1, 2]
        assert all(value % 100 - 20 in (1, 2) for value in values)  # the middle of 0, 1, 2, 3
        assert set(sampler.chosen[label].tolist()) <= set(range(12 * label, 12 * label + 12))


def test_the_same_images_serve_for_a_period_and_then_the_network_chooses_again(real):
    sampler, near, far = KMeansSampler(KMeans(batch=4, cluster_every=3), real), Pixels(9.0), Pixels(1 / 9)
    first = sampled(sampler, real, near, 0)
    assert all(torch.equal(sampled(sampler, real, far, inner), first) for inner in (1, 2))
    assert far.seen == 0
    again = sampled(sampler, real, far, 3)
    assert far.seen == 12
    assert not torch.equal(again, first)


def test_clusters_are_found_in_a_random_part_of_the_class_where_that_is_asked_for(real):
    net = Pixels()
    sampler = KMeansSampler(KMeans(batch=4, cluster_pool=6), real)
    chosen = sampled(sampler, real, net, 0)
    assert (net.seen, len(chosen), len(set(sampler.chosen[0].tolist()))) == (6, 4, 4)


def test_with_as_many_centers_as_images_dream_is_idc_on_whole_classes(real):
    dream = loop_of(real, tiny("dream", batch=12, init_from="random"))
    idc = loop_of(real, tiny("idc", batch=12))
    assert torch.equal(dream.params, idc.params)
    state = idc.networks.fresh(0)
    (found, losses), (expected, expected_losses) = (loop.gradient(stage_of(loop, state)) for loop in (dream, idc))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(losses, expected_losses)


def test_fewer_images_are_another_gradient(real):
    dream, idc = loop_of(real, tiny("dream", batch=4, init_from="random")), loop_of(real, tiny("idc", batch=12))
    state = idc.networks.fresh(0)
    found, expected = (loop.gradient(stage_of(loop, state))[0] for loop in (dream, idc))
    assert float((found - expected).norm()) > 0.01 * float(expected.norm())


@pytest.mark.parametrize("batch", [4, 30])
def test_a_state_is_what_a_checkpoint_expects_and_restores(real, batch):
    sampler = KMeansSampler(KMeans(batch=batch), real)
    for label in range(3):
        sampled(sampler, real, Pixels(), 0, label)
    state, expected = sampler.state(), sampler.expected(0)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()} == {
        name: (wanted.shape, wanted.dtype) for name, wanted in expected.items()
    }
    again = KMeansSampler(KMeans(batch=batch), real)
    again.restore(state)
    blind = Pixels()
    for label in range(3):
        assert torch.equal(sampled(again, real, blind, 1, label), sampled(sampler, real, blind, 1, label))
    assert blind.seen == 0
