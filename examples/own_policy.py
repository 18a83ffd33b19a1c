"""A policy of your own for UDD: keep the DCT coefficients that vary most among real images (the rule of FreD).

python examples/own_policy.py
"""

from dataclasses import replace

from distil import distil_dataset, evaluate, preset
from distil.functional.dct import coefficients


class Variance:
    """A coefficient is used as much as it varies; no proxy network is needed."""

    def scores(self, task, generator):
        """Before the first step: one number for each coefficient [c*h*w], on the CPU; the highest are kept."""
        return coefficients(task.real.images.float() / 255).var(0).cpu()

    def scores_again(self, images, kept, task, generator):
        """During the run, by the synthetic images [n, c, h, w] as they are; None: the choice stays."""
        return None


def main(outer: int = 10) -> float:
    settings = preset("udd", "digits", ipc=1)
    variance = replace(settings.parameterization, policy=Variance())
    made = distil_dataset("digits", replace(settings, method="fred-like", outer=outer, parameterization=variance))
    accuracy = evaluate(made, "digits", protocol="quick", width=32, runs=1).mean["convnet3"]
    print(f"{made.parameterization.describe()}: {accuracy:.1f}% on the test images")
    return accuracy


if __name__ == "__main__":
    main()
