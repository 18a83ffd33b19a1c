"""Adapters: how distillation sees a detector, whichever it is."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar

from jaxtyping import Float
from torch import Tensor

from distil.errors import DistilError
from distil.types import Trace, View

MEMBERS = (
    "model", "strides", "channels", "activation", "classes", "view", "restyle", "pyramid", "trace", "predict"
)  # fmt: skip


class DetectorAdapter(Protocol):
    """What distillation asks of a detector. To distil one of your own, write a class with these members.

    It need not inherit from this one. `view` is called on the student's adapter alone; `trace` with `regions` and
    `restyle` on the teacher's alone; both serve to choose prototypes by `view`, `restyle` and `pyramid`. An adapter
    holds no tensors: the model may move to another device after it was adapted.
    """

    @property
    def model(self) -> Any:
        """The nn.Module whose parameters train and whose mode, training or eval, is the caller's."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the view between two cells of each map of the pyramid, finest first."""
        ...

    @property
    def channels(self) -> int:
        """Channels of every map of the pyramid."""
        ...

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """What turns its class logits into probabilities."""
        ...

    @property
    def classes(self) -> int:
        """How many classes it knows, without the background."""
        ...

    def view(
        self,
        images: Sequence[Float[Tensor, "3 _h _w"]],
        targets: Sequence[dict[str, Tensor]],
        *,
        seeds: Sequence[int] | None = None,
    ) -> View:
        """Images in [0, 1] and their targets (boxes in the image's pixels, labels from 1) as the detector sees them.

        All random choices for an image, here and in `trace`, must come from its seed; without seeds from torch's global
        generator. The boxes keep their order.
        """
        ...

    def restyle(self, view: View) -> View:
        """Another adapter's view with this detector's mean and std; sizes and boxes stay, the padding stays 0."""
        ...

    def pyramid(self, view: View) -> tuple[Tensor, ...]:
        """The feature maps (n, channels, h, w) of any adapter's view, one for each of `strides`."""
        ...

    def trace(self, view: View, *, regions: Trace | None = None) -> Trace:
        """Without regions a student's training pass, with gradients: pyramid, losses, counts, and its instances with
        their logits. With regions, a student's trace of this view, a teacher's pass in eval mode without gradients:
        pyramid, and logits for the student's instances."""
        ...

    def predict(self, images: Sequence[Float[Tensor, "3 _h _w"]]) -> list[dict[str, Tensor]]:
        """Detections of each image in eval mode: boxes (m, 4) in its pixels, scores (m,) and labels (m,)."""
        ...


Detector = TypeVar("Detector", bound=DetectorAdapter)


def freeze(adapter: Detector) -> Detector:
    """Put a teacher in eval mode and take the gradients of its parameters away; gives the adapter back."""
    adapter.model.eval().requires_grad_(False)
    return adapter


def common_levels(student: Sequence[int], teacher: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Pairs (student's level, teacher's level) of equal stride, in the student's order. Each level is paired once.

    Raises: DistilError when no stride is common.
    """
    pairs, free = [], list(enumerate(teacher))
    for index, stride in enumerate(student):
        match = next((pair for pair in free if pair[1] == stride), None)
        if match is not None:
            free.remove(match)
            pairs.append((index, match[0]))
    if not pairs:
        raise DistilError(
            f"the student's levels have strides {', '.join(map(str, student))} and the teacher's "
            f"{', '.join(map(str, teacher))}: none is common, so no features can be compared. Choose a student "
            "with another backbone or another finest stride."
        )
    return tuple(pairs)
