"""DM, distribution matching: mean embeddings in fresh random networks."""

from distil.dataset import config
from distil.dataset.methods.dsa import operations
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, for_digits


def settings(key: str, ipc: int) -> config.Matching:
    made = config.Matching(
        method="dm",
        ipc=ipc,
        outer=20000,
        inner=1,
        parameterization=config.Grid(init="real"),
        objective=config.FeatureMatching(),
        sampler=config.Uniform(batch=256),
        batch_synthetic=256,
        optimizer=config.ImageSGD(lr=1.0 if ipc < 100 else 10.0, lr_space="normalized", momentum=0.5),
        networks=config.Fresh(),
        augment=operations(key),
        augment_one=True,
    )
    return for_digits(made) if key == "digits" else made


METHOD = Method(
    name="dm",
    title="DM, distribution matching",
    kind="matching",
    paper="Zhao, Bilen: Dataset Condensation with Distribution Matching. WACV 2023",
    description="Matches mean embeddings in fresh random networks; no second-order gradients, so it is cheap.",
    cost="about 9 (20,000 steps, each about half of a gradient-matching step)",
    settings=settings,
    sources=GENERAL
    | {
        "factor": "no multi-formation",
        "init": "DM's released code: --init real",
        "objective": "DM, equation 4",
        "outer": "DM's released code: Iteration 20000",
        "inner": "DM's released code: a fresh network each iteration",
        "batch": "DM's released code: batch_real 256",
        "batch_synthetic": "not limited in DM's code",
        "lr": "DM's readme: --lr_img 1 at 1, 10 and 50 images per class, 10 at 100 and more",
        "lr_space": "DM's code learns normalized pixels",
        "momentum": "DM's released code: momentum 0.5",
        "networks": "DM's released code: networks stay random",
        "augment": "DM's released code: color_crop_cutout_flip_scale_rotate; no flip for MNIST and SVHN",
        "augment_one": "DM's released code: one operation a call",
    },
    published={"cifar10": (26.0, 48.9, 63.0), "cifar100": (11.4, 29.7, 43.6)},
    has_fast=True,
)
