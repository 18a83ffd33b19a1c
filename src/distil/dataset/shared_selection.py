"""One choice for several processes: the first chooses, so that none can choose otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distil.dataset.protocols import Expected, Selection, Task
from distil.parameterizations.base import Parameterization
from distil.processes import Processes


@dataclass(frozen=True)
class SharedSelection:
    """A selection that is asked in the first of several processes; all get its parameterization, parameters and
    moments. Only the first needs what it looks at, such as the proxy network."""

    selection: Selection
    processes: Processes
    task: Task

    def initial(self) -> tuple[Parameterization, Tensor]:
        placed, params = self.selection.initial() if self.processes.first else (None, None)
        made = self._from_first(placed, None if params is None else {"canvases": params})
        return placed or self.selection.restored(made), made["canvases"] if params is None else params

    def refresh(
        self, outer: int, placed: Parameterization, params: Tensor, moments: Sequence[Tensor]
    ) -> Parameterization:
        after = self.selection.refresh(outer, placed, params, moments) if self.processes.first else placed
        made = self._from_first(None if after is placed else after, {})
        self.processes.same_([params, *moments])
        if made and not self.processes.first:
            return self.selection.restored({"canvases": params, **made})
        return after

    def finished(self, placed: Parameterization, params: Tensor) -> Parameterization:
        return self.selection.finished(placed, params)

    def expected(self, outer: int | None) -> dict[str, Expected]:
        return self.selection.expected(outer)

    def restored(self, tensors: Mapping[str, Tensor]) -> Parameterization:
        return self.selection.restored(tensors)

    def event(self, placed: Parameterization) -> tuple[str, dict[str, Any]] | None:
        return self.selection.event(placed)

    def _from_first(self, placed: Parameterization | None, more: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The state of the first process's parameterization, and more, on the device of each; empty for None."""
        own = {} if placed is None else {name: x.cpu() for name, x in {**placed.state(), **(more or {})}.items()}
        return {name: x.to(self.task.device) for name, x in self.processes.from_first(lambda: own).items()}
