"""DREAM's batches: of the images of a class, those nearest to k-means centers in the network's embedding.

python examples/dream_sampler.py
"""

from dataclasses import dataclass, replace

import torch
from sklearn.cluster import KMeans

from distil import distil_dataset, preset


@dataclass(frozen=True)
class KMeansBatches:
    """`batch` images of a class that cover it, among `pool` that are drawn. Source: Liu et al., DREAM, ICCV 2023."""

    batch: int = 64
    pool: int = 256

    def __call__(self, real, label, net, generator, inner):
        images = real.sample_class(label, min(self.pool, real.counts[label]), generator)
        with torch.no_grad():
            embedding = net.embed((images - images.new_tensor(real.mean).view(-1, 1, 1)).to(next(net.parameters())))
        rows = embedding.flatten(1).float().cpu()
        seed = int(torch.randint(2**31, (1,), generator=generator))
        centers = KMeans(min(self.batch, len(rows)), n_init=1, random_state=seed).fit(rows.numpy()).cluster_centers_
        return images[torch.cdist(torch.from_numpy(centers), rows).argmin(1)]


def main(outer: int = 10):
    settings = preset("idc", "digits", ipc=1)
    return distil_dataset("digits", replace(settings, method="dream", outer=outer, sampler=KMeansBatches(32, 128)))


if __name__ == "__main__":
    print(main().method)
