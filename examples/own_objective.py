"""An objective of your own: match the mean and the spread of a network's features, class by class.

python examples/own_objective.py
"""

from dataclasses import dataclass, replace

import torch

from distil import distil_dataset, evaluate, preset


@dataclass(frozen=True)
class MomentMatching:
    """sum over classes of ||mean - mean'||^2 + weight ||std - std'||^2 of the embeddings."""

    weight: float = 1.0

    def targets(self, net, images, labels, seed):
        """What the real images [classes, n, c, h, w] ask for: tensors with one row a class, constant."""
        with torch.no_grad():
            return dict(zip(("mean", "std"), self.moments(net, images), strict=True))

    def loss(self, net, images, labels, targets):
        """How far the synthetic images [classes, v, c, h, w] are from that; differentiable in the images."""
        mean, std = self.moments(net, images)
        return (mean - targets["mean"]).square().sum() + self.weight * (std - targets["std"]).square().sum()

    def moments(self, net, images):
        embedding = net.embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return embedding.mean(1), embedding.std(1)


def main(outer: int = 200) -> float:
    settings = preset("dm", "digits", ipc=10)
    settings = replace(settings, method="moments", objective=MomentMatching(0.5), outer=outer)
    made = distil_dataset("digits", settings)
    accuracy = evaluate(made, "digits", protocol="quick", width=32, runs=1).mean["convnet3"]
    print(f"{len(made.params)} images, {accuracy:.1f}% on the test images")
    return accuracy


if __name__ == "__main__":
    main()
