"""DREAM: IDC whose real images, and the images that cells begin as, cover the clusters of their class."""

from dataclasses import replace

from distil.dataset import config
from distil.dataset.methods import idc
from distil.dataset.methods.method import Method


def settings(key: str, ipc: int) -> config.Matching:
    made = idc.settings(key, ipc)
    return replace(
        made,
        method="dream",
        parameterization=replace(made.parameterization, init_from="kmeans"),
        sampler=config.KMeans(batch=32 if key == "digits" else 128),
    )


SOURCES = idc.SOURCES | {
    "sampler": "DREAM, section 3.2: the images nearest to k-means centers in the network's embedding",
    "batch": "DREAM's released code: batch_real 128, which is the number of clusters",
    "cluster_every": "DREAM's released code: interval 10",
    "cluster_pool": "DREAM's released code: all images of the class",
    "init_from": "DREAM's released code, f2_init kmean: k-means of all cells' images in a random network's embedding",
    "lr": "DREAM's released code: as IDC, 5e-3 (mse) or 1e-4 (l1), times ipc / 10",
}

METHOD = Method(
    name="dream",
    title="DREAM, representative matching",
    kind="matching",
    paper="Liu et al.: DREAM: Efficient Dataset Distillation by Representative Matching. ICCV 2023",
    description="IDC whose real images are those nearest to the k-means centers of their class.",
    cost="about 220 (IDC with twice the real images; on a CPU clustering comes on top, see --cluster-pool)",
    settings=settings,
    sources=SOURCES,
    published={"cifar10": (51.1, 69.4, None), "cifar100": (29.5, 46.8, None)},
    has_fast=True,
)
