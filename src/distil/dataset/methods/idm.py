"""IDM: mean features and a class term in networks of every age, with the cells of each item enlarged."""

from dataclasses import replace

from distil.dataset import config
from distil.dataset.methods.dsa import operations
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL


def by_ipc(key: str, ipc: int) -> tuple[int, int, int, float]:
    """(real images of a class in a step, steps between two new networks, updates of a network, weight of the class
    term), as published for the nearest of 1, 10 and 50 images per class."""
    nearest = min((1, 10, 50), key=lambda known: abs(known - ipc))
    if nearest == 1:
        return {"cifar100": 500, "custom": 256}.get(key, 5000), 5, 10, 0.5
    many = key == "cifar100" and nearest == 10
    return 256, 30, 50 if many else 10, 0.1 if many or nearest == 50 else 0.5


def settings(key: str, ipc: int) -> config.Matching:
    batch, every, steps, weight = by_ipc(key, ipc)
    made = config.Matching(
        method="idm",
        ipc=ipc,
        outer=20000,
        inner=1,
        parameterization=config.Grid(factor=2, init="mix"),
        objective=config.FeatureMatching(),
        classification=config.Classification(weight=weight, by_accuracy=True),
        sampler=config.Uniform(batch=batch),
        batch_synthetic=256,
        optimizer=config.ImageSGD(lr=0.2, lr_space="normalized", momentum=0.5),
        networks=config.Pool(every=every, steps=steps, batch=256, lr=0.01, momentum=0.9, weight_decay=5e-4),
        augment=operations(key),
        augment_one=True,
    )
    return _for_digits(made) if key == "digits" else made


def _for_digits(made: config.Matching) -> config.Matching:
    networks = replace(made.networks, batch=64, steps=5, every=15)
    return replace(made, width=32, outer=200, sampler=config.Uniform(64), networks=networks)


SOURCES = GENERAL | {
    "factor": "IDM, section 3.2: factor 2 for 32 x 32 images",
    "init": "IDM's released code: real images shrunk into the cells",
    "objective": "IDM's released code: mean of the flattened last feature map",
    "classification": "IDM, section 3.4",
    "ce_weight": "IDM's released code: 0.5; 0.1 at 50 images per class and, on CIFAR-100, at 10",
    "ce_by_accuracy": "IDM's released code: times the network's training accuracy, in percent",
    "outer": "IDM's released code: Iteration 20000",
    "inner": "IDM's released code: a network from the queue in each iteration",
    "batch": "IDM's released code: batch_real 5000, so all images of the class, at 1 image per class; 256 at 10 and 50",
    "batch_synthetic": "not limited in IDM's code",
    "lr": "IDM's released code: lr_img 0.2",
    "lr_space": "IDM's code learns normalized pixels",
    "momentum": "IDM's released code: momentum 0.5",
    "networks": "IDM, section 3.3: a queue of networks of every age",
    "network_first": "IDM's released code: net_begin 3 networks",
    "network_most": "IDM's released code: 100 networks at most",
    "network_every": "IDM's released code: net_generate_interval 5 at 1 image per class, 30 at 10 and 50",
    "network_trained": "IDM's released code: 2 networks are trained in each iteration",
    "network_steps": "IDM's released commands: 10 updates each; 50 for CIFAR-100 at 10 images per class",
    "network_batch": "IDM's released code: batch_train 256",
    "network_lr": "IDM's released code: lr_net 0.01",
    "network_momentum": "IDM's released code: 0.9",
    "network_weight_decay": "IDM's released code: 5e-4",
    "network_cutmix": "IDM's released code: none",
    "network_augment": "IDM's released code: none in the networks' training",
    "augment": "IDM's released code: color_crop_cutout_flip_scale_rotate; no flip for MNIST and SVHN: DSA",
    "augment_one": "IDM's released code: one operation a call",
}

METHOD = Method(
    name="idm",
    title="IDM, improved distribution matching",
    kind="matching",
    paper="Zhao et al.: Improved Distribution Matching for Dataset Condensation. CVPR 2023",
    description="Matches mean features, beside a class term, in a queue of networks that are trained on real images.",
    cost="about 30 (20,000 steps without second derivatives and 400,000 updates of networks)",
    settings=settings,
    sources=SOURCES,
    published={"cifar10": (45.6, 58.6, 67.5), "cifar100": (20.1, 45.1, 50.0)},
    has_fast=True,
)
