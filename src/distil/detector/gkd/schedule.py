"""When prototypes are chosen during a training, from which features, and in which files they are kept."""

import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from distil.detector.gkd.feature_bank import FeatureBank
from distil.detector.gkd.generation import choose_candidates, generate_prototypes, prototypes_among
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.losses.base import TrainingContext
from distil.detector.settings import PrototypeSettings
from distil.runs import CHECKPOINT

FILES = "prototypes-*.safetensors"
LARGEST_BATCH = 8
"""Images in one pass of a trial."""


class PrototypeSchedule:
    """The choices of prototypes of one training: before the epochs start, start + every, start + 2 every, ...

    bank: what gathers features in the epoch before a choice, where the settings want those of the training steps.
    restored: the state of such a bank in the checkpoint that the run continues from, until the next epoch begins.
    """

    def __init__(self, settings: PrototypeSettings) -> None:
        self.settings = settings
        self.bank: FeatureBank | None = None
        self.restored: dict[str, Tensor] = {}
        self.chosen_at: int | None = None
        self.saved_at: int | None = None
        self.context: TrainingContext | None = None

    def generate(self, context: TrainingContext) -> PrototypeSet:
        """Prototypes of a trial: of all images of the context, without a file."""
        batch = min(context.batch, LARGEST_BATCH)
        return generate_prototypes(
            context.student, context.teacher, context.data, self.settings, seed=context.seed, batch=batch
        )

    def before_epoch(
        self, context: TrainingContext, strides: tuple[int, ...], channels: tuple[int, int]
    ) -> PrototypeSet | None:
        """The prototypes that an epoch begins with, chosen now or read; None where they are those of the epoch before,
        or there are none yet. Then features are gathered if the next epoch begins with a choice.

        strides: of the levels that both detectors have. channels: of the student's and the teacher's maps.
        """
        self.context = context
        if self.restored:
            self.bank = self._new_bank(context, len(strides), channels)
            self.bank.restore(self.restored)
            self.restored = {}
        chosen = None
        if context.epoch >= self.settings.start and self._choice_before(context.epoch) != self.chosen_at:
            chosen = self._chosen(context, strides)
        wanted = self.settings.features == "training" and self._due(context.epoch + 1)
        if not (wanted and context.epoch + 1 < context.epochs):
            self.bank = None
        elif context.position == 0 or self.bank is None:
            self.bank = self._new_bank(context, len(strides), channels)
        return chosen

    def _chosen(self, context: TrainingContext, strides: tuple[int, ...]) -> PrototypeSet:
        self.chosen_at = self._choice_before(context.epoch)
        path = prototypes_file(context.folder, self.chosen_at)
        if self.chosen_at < context.epoch or context.position > 0:
            return context.on_first(lambda: PrototypeSet.load(path))
        began = time.monotonic()
        gathered = self.bank and self.bank.together(context.fabric)

        def choose() -> PrototypeSet:
            epoch, data = context.epoch, context.data
            if gathered is not None and len(gathered[0].labels):
                made = prototypes_among(*gathered, data, strides, self.settings, epoch=epoch, device=context.device)
            else:
                context.events("preparing", what=f"features of candidate prototypes for epoch {epoch + 1}")
                pair = context.student, context.teacher
                made = generate_prototypes(
                    *pair, data, self.settings, seed=context.seed, epoch=epoch, batch=context.batch
                )
            made.save(path)
            return made

        made = context.on_first(choose)
        seconds = round(time.monotonic() - began, 3)
        facts = {"epoch": context.epoch, "count": len(made), "file": path.name, "seconds": seconds}
        context.events("prototypes", step=context.step, **facts)
        return made

    def _due(self, epoch: int) -> bool:
        """Whether prototypes are chosen before this epoch."""
        since = epoch - self.settings.start
        return since >= 0 and since % self.settings.every == 0

    def _choice_before(self, epoch: int) -> int:
        """The epoch before which the prototypes of an epoch, at or after the first choice, are chosen."""
        return epoch - (epoch - self.settings.start) % self.settings.every

    def _new_bank(self, context: TrainingContext, levels: int, channels: tuple[int, int]) -> FeatureBank:
        return FeatureBank(choose_candidates(context.data, self.settings, context.seed), levels, channels)

    def state(self) -> dict[str, Tensor]:
        """What all processes together have gathered so far."""
        if self.bank is None or self.context is None:
            return self.restored
        return self.bank.tensors(self.context.fabric)

    def check_state(
        self, tensors: Mapping[str, Tensor], context: TrainingContext, levels: int, channels: tuple[int, int]
    ) -> None:
        """Refuse features that another run gathered, and a folder that lacks the prototypes of the epoch under way.

        Raises: DistilError that names the file.
        """
        if tensors:
            self._new_bank(context, levels, channels).restore(tensors, context.folder / CHECKPOINT)
        if self.settings.start <= context.epoch < context.epochs:
            chosen_at = self._choice_before(context.epoch)
            if chosen_at < context.epoch or context.position > 0:
                PrototypeSet.load(prototypes_file(context.folder, chosen_at))

    def after_save(self, context: TrainingContext) -> None:
        """Remove prototypes that neither this checkpoint nor the one before it needs."""
        before, self.saved_at = self.saved_at, self.chosen_at
        for old in sorted(context.folder.glob(FILES))[:-1]:
            if before is not None and old.name < prototypes_file(context.folder, before).name:
                old.unlink(missing_ok=True)


def prototypes_file(folder: Path, epoch: int) -> Path:
    """Where the prototypes are kept that were chosen before an epoch."""
    return folder / f"prototypes-{epoch:04d}.safetensors"
