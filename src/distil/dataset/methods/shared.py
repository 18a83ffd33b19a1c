"""What several methods have in common: citations, data sets that are treated apart, sizes for two cores."""

from dataclasses import replace

from distil.data.catalog import NAMES
from distil.dataset import config

DATASETS = NAMES
"""Data sets with settings of their own; any other source uses those of CIFAR-10 (color or larger) as "custom"."""

OWN = "this library's choice"
RECONSTRUCTION = "a reconstruction, see docs/methods/udd.md"

GENERAL = {
    "network": "ConvNet-3 in all the papers",
    "width": "128 channels in all the papers",
    "validation": f"{OWN}; the papers learn from every training image, as --validation 0 does",
    "validations": OWN,
    "observer": f"{OWN}: trained on the images; --model gives a trained one",
    "optimizer": "the released codes of all these papers: SGD",
    "sampler": "the released codes of all these papers: random real images of the class",
    "init_from": "the released codes of all these papers: random real images",
    "storage": f"{OWN}; the papers keep four bytes a value",
    "target_reuse": "one in all the papers",
    "lr_schedule": "constant in all the papers",
    "gradient_scale": "as it is in all the papers",
    "bfloat16": "none in all the papers",
    "seed": OWN,
}

SCALED = {"gradient_scale": "item", "lr": 0.018, "lr_space": "pixel", "lr_schedule": "cosine"}
"""Steps in units of pixels (docs/results/speed.md)."""


def fast(settings: config.Matching) -> config.Matching:
    """This library's settings for minutes, not days: those of gradient matching were chosen on held-out training images
    (docs/results/speed.md), those of the other methods are the same where they can be, with smaller real batches."""
    objective, sampler, networks = settings.objective, settings.sampler, settings.networks
    gradients = isinstance(objective, config.GradientMatching)
    if gradients and objective.distance == "l1":
        objective = replace(objective, distance="squared")
    if isinstance(sampler, config.KMeans):
        sampler = replace(sampler, cluster_pool=512)
    if isinstance(sampler, config.Uniform):
        sampler = replace(sampler, batch=min(sampler.batch, 64 if gradients else 256))
    if isinstance(networks, config.Pool):
        networks = replace(networks, batch=64)
    if isinstance(networks, config.Interpolated):
        networks = replace(networks, experts=replace(networks.experts, runs=3, epochs=4, every=4))
    outer, inner, reuse = 20, 20, 5
    if isinstance(networks, (config.Fresh, config.Pool, config.Interpolated)):  # another network in every step
        outer, inner = 100, 1
    if isinstance(networks, config.TrainedOnSynthetic):
        outer, inner, reuse = max(1, 200 // settings.inner), settings.inner, 1
    return replace(
        settings,
        objective=objective,
        sampler=sampler,
        networks=networks,
        outer=min(settings.outer, outer),
        inner=inner,
        target_reuse=reuse,
        bfloat16="real_network_synthetic",
        optimizer=scaled(settings.optimizer),
    )


def scaled(optimizer: config.ImageSGD | config.ImageAdam) -> config.ImageSGD | config.ImageAdam:
    """The optimizer with steps in units of pixels, falling to zero over the run."""
    if isinstance(optimizer, config.ImageAdam):
        return replace(optimizer, lr_schedule="cosine")
    return replace(optimizer, **SCALED)


def for_digits(settings: config.Matching) -> config.Matching:
    """This library's settings for the embedded digits, sized for two CPU cores: about a minute a run."""
    if isinstance(settings.objective, config.FeatureMatching):
        return replace(
            settings, width=32, outer=300, sampler=config.Uniform(64), optimizer=replace(settings.optimizer, lr=0.3)
        )
    if getattr(settings.objective, "distance", "") == "cosine":
        outer = max(1, 200 // settings.inner)
        optimizer = replace(settings.optimizer, lr=0.3)
        return replace(settings, width=32, outer=outer, sampler=config.Uniform(64), optimizer=optimizer)
    optimizer = replace(settings.optimizer, lr=0.02 * settings.ipc)
    networks = replace(settings.networks, samples=256)
    return replace(settings, width=32, outer=10, inner=10, optimizer=optimizer, networks=networks)
