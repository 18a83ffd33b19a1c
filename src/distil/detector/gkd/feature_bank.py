"""Features of candidate prototypes, gathered from the training steps of an epoch, which compute them anyway."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distil.detector.gkd.generation import Candidates
from distil.errors import DistilError

STEPS_WAITING = 50
"""Features of so many steps stay on the device before they are fetched together: a fetch waits for the device."""


class FeatureBank:
    """What student and teacher last saw of every candidate, on every level, in training steps since it was made.

    An object counts as the augmented image of its step showed it, and the student as it was in that step: at most an
    epoch ago. A pass over the images at one moment (`generate_prototypes`) costs two forward passes of each image more.
    """

    def __init__(self, candidates: Candidates, levels: int, channels: tuple[int, int]):
        """candidates: whose features are wanted. levels: of both pyramids. channels: of the student's and the
        teacher's maps."""
        self.candidates = candidates
        count = len(candidates.labels)
        self.student = torch.zeros(levels, count, channels[0])
        self.teacher = torch.zeros(levels, count, channels[1])
        self.seen = torch.zeros(count, dtype=torch.bool)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        pairs = zip(candidates.images.tolist(), candidates.objects.tolist(), strict=True)
        self._places = {pair: place for place, pair in enumerate(pairs)}

    def add(
        self, targets: Sequence[Mapping[str, Tensor]], pooled: tuple[Float[Tensor, "l i s"], Float[Tensor, "l i t"]]
    ) -> None:
        """Keep what a step pooled over its targets' boxes, images one after another.

        targets: of each image `image_id` and `objects`, as `detection_transforms.prepare` gives them.
        """
        keys = [(int(each["image_id"]), place) for each in targets for place in each["objects"].tolist()]
        found = [(row, self._places[key]) for row, key in enumerate(keys) if key in self._places]
        if not found:
            return
        rows, places = torch.tensor(found).T
        student, teacher = (x[:, rows.to(x.device)].detach() for x in pooled)
        self._waiting.append((places, student, teacher))
        if len(self._waiting) == STEPS_WAITING:
            self._fetch()

    def _fetch(self) -> None:
        """Bring what waits on the device to the CPU, in the order in which it was seen."""
        for places, student, teacher in self._waiting:
            self.student[:, places], self.teacher[:, places] = student.float().cpu(), teacher.float().cpu()
            self.seen[places] = True
        self._waiting.clear()

    def together(self, fabric: Any) -> tuple[Candidates, tuple[Tensor, Tensor]]:
        """The candidates that any process has seen, and their features on the CPU."""
        tensors = self.tensors(fabric)
        rows = tensors["seen"].nonzero().flatten()
        return self.candidates.only(rows), (tensors["student"][:, rows], tensors["teacher"][:, rows])

    def tensors(self, fabric: Any) -> dict[str, Tensor]:
        """What all processes together have seen, the mean where several saw an object; the same for every process."""
        self._fetch()
        if fabric.world_size == 1:
            return {"student": self.student, "teacher": self.teacher, "seen": self.seen}

        def summed(x: Tensor) -> Tensor:
            return fabric.all_reduce(x.to(fabric.device), reduce_op="sum").cpu()

        seen = self.seen.float()
        count = summed(seen)
        student, teacher = (
            summed(x * seen[:, None]) / count.clamp_min(1)[:, None] for x in (self.student, self.teacher)
        )
        return {"student": student, "teacher": teacher, "seen": count > 0}

    def restore(self, tensors: Mapping[str, Tensor], source: Path | str = "the checkpoint") -> None:
        """Go on from what `tensors` gave. Raises: DistilError that names `source` when they are another gathering's."""
        wanted = {"student": self.student, "teacher": self.teacher, "seen": self.seen}
        for name, x in wanted.items():
            given = tensors.get(name)
            if given is None or given.shape != x.shape or given.dtype != x.dtype:
                raise DistilError(
                    f"{source}: the features gathered for prototypes are not those of this run ({name}). It is "
                    "damaged: start the run again in another folder."
                )
        self.student, self.teacher, self.seen = tensors["student"], tensors["teacher"], tensors["seen"]
