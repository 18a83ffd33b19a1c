"""NCFM: characteristic functions of embeddings, beside a class term, in networks between an expert's first weights and
its last."""

from dataclasses import replace
from math import sqrt

from distil.dataset import config
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, OWN

EXPERTS = config.Experts(
    runs=20,
    epochs=60,
    every=60,
    lr=0.01,
    lr_decay="steps",
    momentum=0.9,
    weight_decay=5e-4,
    batch=128,
    cutmix=0.5,
    augment="color_crop",
    augment_one=False,
)
"""The networks that are trained beforehand."""


def settings(key: str, ipc: int) -> config.Matching:
    made = config.Matching(
        method="ncfm",
        ipc=ipc,
        outer=20000,
        inner=1,
        parameterization=config.Grid(factor=2, init="mix"),
        objective=config.CharacteristicMatching(frequencies=4096, amplitude=0.5, phase=0.5, scale=300.0),
        classification=config.Classification(weight=1.0),
        sampler=config.Uniform(batch=500 if key == "cifar100" else 1024),
        batch_synthetic=256,
        optimizer=_optimizer(key, ipc),
        networks=config.Interpolated(EXPERTS),
        augment="color_crop_cutout",
        augment_one=False,
    )
    return _for_digits(made) if key == "digits" else made


def _optimizer(key: str, ipc: int) -> config.ImageSGD | config.ImageAdam:
    """In the released code AdamW steps after each class and each of the two losses, so that an item has a gradient in
    two of 2 k steps, k the classes: its mean square is a (2 k)th of that of one step for all, and its moves are sqrt(2
    k) times as long, while the decay acts 2 k times."""
    if key == "cifar100" and 5 < ipc < 30:
        return config.ImageSGD(lr=0.01, lr_schedule="cosine", momentum=0.5)
    longer = sqrt(2 * (100 if key == "cifar100" else 10))
    return config.ImageAdam(lr=1e-3 * longer, lr_schedule="cosine", weight_decay=5e-4 * longer)


def _for_digits(made: config.Matching) -> config.Matching:
    networks = config.Interpolated(replace(EXPERTS, runs=3, epochs=12, every=12))
    objective = config.CharacteristicMatching(frequencies=1024)
    return replace(made, width=32, outer=200, objective=objective, networks=networks, sampler=config.Uniform(64))


SOURCES = GENERAL | {
    "factor": "NCFM's released code: factor 2",
    "init": "NCFM's released code: mix whenever factor > 1",
    "objective": "NCFM, section 3.2",
    "frequencies": "NCFM's released code: num_freqs 4096; 1,024 in the paper",
    "amplitude": "NCFM's released code: alpha_for_loss 0.5",
    "phase": "NCFM's released code: beta_for_loss 0.5",
    "scale": "NCFM's released code: 300",
    "classification": "NCFM's released code: iter_calib 1, in the trained network",
    "ce_weight": "NCFM's released code: calib_weight 1",
    "ce_by_accuracy": "NCFM's released code: a constant weight",
    "outer": "NCFM's released code: niter 20000",
    "inner": "NCFM's released code: another network in each iteration",
    "batch": "NCFM's released code: batch_real 1024, and a class of CIFAR-100 has 500",
    "batch_synthetic": "not limited in NCFM's code",
    "optimizer": "NCFM's released code: adamw; sgd for CIFAR-100 at 10 images per class",
    "lr": "NCFM's released code: lr_img 0.01 times lr_scale_adam 0.1; here times sqrt(2 classes), since it steps after "
    "each class and each loss",
    "lr_schedule": f"{OWN}; the released code halves it where the loss has not fallen for 500 steps",
    "betas": "NCFM's released code: PyTorch's",
    "weight_decay": "NCFM's released code: 5e-4; here times sqrt(2 classes), as for the learning rate",
    "lr_space": "NCFM's code learns pixels in [0, 1]",
    "momentum": "NCFM's released code: mom_img 0.5",
    "networks": "NCFM's released code: l first weights + (1 - l) last ones of one of 20 networks, l uniform in [0, 1]",
    "expert_runs": "NCFM's released code: num_premodel 20",
    "expert_epochs": "NCFM's released code: pertrain_epochs 60",
    "expert_every": "NCFM's released code keeps the first and the last weights",
    "expert_lr": "NCFM's released code: lr 0.01",
    "expert_lr_decay": "NCFM's released code: a fifth at 2/3 and 5/6 of the epochs",
    "expert_momentum": "NCFM's released code: 0.9",
    "expert_weight_decay": "NCFM's released code: 5e-4",
    "expert_batch": "NCFM's released code: batch_size 128",
    "expert_cutmix": "NCFM's released code: mix_p 0.5",
    "expert_augment": "NCFM's released code: color_crop_cutout without cutout",
    "expert_augment_one": "NCFM's released code: color, flip and cutout always, plus one of the rest",
    "augment": "NCFM's released code: color_crop_cutout",
    "augment_one": "NCFM's released code: color, flip and cutout always, plus one of the rest",
}

METHOD = Method(
    name="ncfm",
    title="NCFM, neural characteristic function matching",
    kind="matching",
    paper="Wang et al.: Dataset Distillation with Neural Characteristic Function: A Minmax Perspective. CVPR 2025",
    description="Matches the characteristic functions of embeddings, beside a class term, in networks between random "
    "and trained weights.",
    cost="about 20 (20,000 steps without second derivatives, and 1,200 epochs of networks beforehand)",
    settings=settings,
    sources=SOURCES,
    published={"cifar10": (49.5, 71.8, 77.4), "cifar100": (34.4, 48.7, 54.7)},
    has_fast=True,
)
