"""Finite differences for everything in distil.functional that has gradients, and a list that must be complete."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import distil.functional as functional
from distil.functional import (
    augment,
    characteristic,
    contrast,
    dct,
    distances,
    regions,
    resized_crop,
    temperature,
    utilization,
)
from distil.rng import stream


def draws(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


BOXES = torch.tensor([[[0.3, 0.6, 3.2, 4.1], [1.1, 0.2, 4.7, 3.9]]], dtype=torch.float64)
WINDOWS = torch.tensor([[0.0, 0, 2, 2], [1, 1, 4, 3]], dtype=torch.float64)

CHECKED = {
    "interpolation_weights": (
        lambda a, b: regions.interpolation_weights(a, b, 5, 4),
        (torch.tensor([0.3], dtype=torch.float64), torch.tensor([4.1], dtype=torch.float64)),
    ),
    "crop_resize": (lambda x: regions.crop_resize(x, BOXES, (3, 4)), (draws(1, 2, 5, 5),)),
    "paste_back": (lambda m: regions.paste_back(m, BOXES, (5, 5))[0], (draws(1, 2, 3, 3),)),
    "window_means": (lambda m: regions.window_means(m, WINDOWS), (draws(2, 4, 4),)),
    "stretch": (utilization.stretch, (draws(2, 3, 3),)),
    "response_map": (
        lambda a: utilization.response_map(a, regions.grid_regions(2, (4, 4))[None], (4, 4), (4, 4)),
        (draws(4, 2, 2, 2),),
    ),
    "jitter_divergence": (utilization.jitter_divergence, (draws(3, 4), draws(3, 4, seed=1))),
    "spread_scores": (lambda s: utilization.spread_scores(s, WINDOWS, (4, 4)), (draws(2, 2),)),
    "utilization_entropy": (utilization.utilization_entropy, (draws(2, 3, 3) + 0.1,)),
    "contrastive_loss": (lambda z: contrast.contrastive_loss(z, draws(3, 4, seed=1), 0.3), (draws(3, 4),)),
    "cosine_distance": (lambda g: distances.cosine_distance(draws(3, 4, seed=1), g), (draws(3, 4),)),
    "squared_distance": (lambda g: distances.squared_distance(draws(3, 4, seed=1), g), (draws(3, 4),)),
    "l1_distance": (lambda g: distances.l1_distance(draws(3, 4, seed=1), g), (draws(3, 4),)),
    "gradient_distance": (
        lambda g: distances.gradient_distance([draws(3, 4, seed=1)], [g], "cosine"),
        (draws(3, 4),),
    ),
    "mean_embedding_distance": (distances.mean_embedding_distance, (draws(3, 4), draws(2, 4, seed=1))),
    "characteristic_function": (
        lambda rows: torch.stack(characteristic.characteristic_function(rows, draws(5, 4, seed=1))),
        (draws(3, 4),),
    ),
    "characteristic_distance": (
        lambda a, b: characteristic.characteristic_distance(a, b, draws(5, 4, seed=2)),
        (draws(3, 4), draws(2, 4, seed=1)),
    ),
    "distance_to": (
        lambda b: characteristic.distance_to(draws(5, seed=3) / 2, draws(5, seed=4) / 2, b, draws(5, 4, seed=2)),
        (draws(2, 4, seed=1),),
    ),
    "coefficients": (dct.coefficients, (draws(2, 3, 4, 5),)),
    "from_coefficients": (lambda a: dct.from_coefficients(a, (3, 2, 2)), (draws(2, 12),)),
    "from_kept_coefficients": (
        lambda a: dct.from_kept_coefficients(a, torch.tensor([7, 0, 3]), (3, 2, 2)),
        (draws(2, 3),),
    ),
    "shared_among_views": (lambda a: dct.shared_among_views(a, 2), (draws(2, 5),)),
    "normalize": (lambda x: augment.normalize(x, (0.4, 0.5), (0.2, 0.3)), (draws(1, 2, 3, 3),)),
    "augment": (
        lambda x: augment.augment(x, "color_crop_cutout_flip_scale_rotate", stream(0), shared=True, one=False),
        (draws(2, 2, 4, 4),),
    ),
    "cutmix": (
        lambda x: augment.cutmix(x, torch.eye(3, dtype=torch.float64), stream(2), probability=1.0)[0],
        (draws(3, 1, 4, 4),),
    ),
    "random_resized_crop": (
        lambda x: resized_crop.random_resized_crop(x, stream(0), smallest=0.3),
        (draws(2, 2, 4, 5),),
    ),
    "divergence_at": (lambda z: temperature.divergence_at(z, draws(3, 4, seed=1), 4.0), (draws(3, 4),)),
}

ELSEWHERE = {
    "class_gradient": "test_gradients.py",
    "class_gradients_batched": "test_gradients.py",
    "mean_over_boxes": "test_boxes.py",
    "nearest_cosine": "test_prototypes.py",
    "paint_boxes": "test_boxes.py",
    "projection": "test_prototypes.py",
    "student_weights": "test_trajectory.py",
    "trajectory_distance": "test_trajectory.py",
    "trajectory_gradient": "test_trajectory.py",
}
NOT_DIFFERENTIABLE = {
    "whole_region",
    "grid_regions",
    "candidate_windows",
    "intersection_over_union",
    "lowest_apart",
    "operations_of",
    "matched_names",
    "sgd_step",
    "adamw_step",
    "pyramid_levels",
    "released_levels",
    "mean_weights",
    "dense_enough",
    "select_prototypes",
    "reliability",
    "cosines",
    "information_about_cosines",
    "jitter_of_cosines",
    "lowest_frequencies",
    "response_to_cosines",
}


@pytest.mark.parametrize("name", CHECKED)
def test_gradcheck(name):
    function, inputs = CHECKED[name]
    assert torch.autograd.gradcheck(function, tuple(x.clone().requires_grad_() for x in inputs))


def test_nothing_in_functional_is_forgotten():
    public = set()
    for module in pkgutil.iter_modules(functional.__path__):
        loaded = importlib.import_module(f"distil.functional.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__ and not name.startswith("_"):
                public.add(name)
    assert public == CHECKED.keys() | ELSEWHERE.keys() | NOT_DIFFERENTIABLE
