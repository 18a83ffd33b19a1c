"""Real images to begin with: those nearest to k-means centers of their class."""

import pytest
import torch
from torch.nn.functional import interpolate

from distil.dataset.compose import task_of
from distil.dataset.selection.coresets import embedded, k_means
from distil.dataset.selection.first_images import chosen_images
from distil.functional.dct import coefficients, from_kept_coefficients
from distil.rng import seed_at, stream

from .conftest import loop_of, tiny


def nearest_to_centers(real, settings, label, count):
    members = real.by_class[label]
    network = task_of(real, settings).network
    assert network is not None
    rows = k_means(embedded(network(), real, members), count, seed_at(settings.seed, "initial", real.classes[label]))
    return real.images[members[rows]].float() / 255


@pytest.mark.parametrize("ipc", [1, 2])
def test_cells_begin_as_the_images_nearest_to_centers(real, ipc):
    settings = tiny("dream", ipc=ipc)
    loop = loop_of(real, settings)
    items = loop.params.unflatten(0, (3, ipc))
    for label in range(3):
        wanted = interpolate(
            nearest_to_centers(real, settings, label, 4 * ipc), size=(4, 4), antialias=True, mode="bilinear"
        )
        cells = torch.cat([items[label][..., y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)])
        gaps = (cells[:, None] - wanted[None]).abs().amax((2, 3, 4))
        assert float(gaps.amin(0).max()) < 1e-5
        assert float(gaps.amin(1).max()) < 1e-5
    assert not torch.equal(loop.params, loop_of(real, tiny("idc", ipc=ipc)).params)


def test_images_of_coefficients_begin_as_those_nearest_to_centers(real):
    settings = tiny("udd", policy="fixed", images=4, init_from="kmeans")
    loop = loop_of(real, settings)
    images = loop.placed.decode(loop.params).unflatten(0, (3, loop.placed.images_per_item))
    for label in range(3):
        begun = nearest_to_centers(real, settings, label, loop.placed.images_per_item)
        seen = from_kept_coefficients(coefficients(begun)[:, loop.placed.kept], loop.placed.kept, (1, 8, 8))
        torch.testing.assert_close(images[label], seen, rtol=0, atol=1e-5)


def test_a_class_that_is_needed_whole_has_no_clusters(real):
    settings = tiny("dream")
    task = task_of(real, settings)
    for count in (12, 15):
        found = [chosen_images(task, 0, count, how, stream(0, "x")) for how in ("kmeans", "random")]
        assert torch.equal(*found)


def test_the_network_that_embeds_is_always_the_same(real):
    one, other = (task_of(real, tiny("dream")) for _ in range(2))
    found = [chosen_images(task, 1, 5, "kmeans", stream(seed, "x")) for seed, task in enumerate((one, other))]
    assert torch.equal(*found)
    reseeded = chosen_images(task_of(real, tiny("dream", seed=1)), 1, 5, "kmeans", stream(0, "x"))
    assert not torch.equal(found[0], reseeded)
