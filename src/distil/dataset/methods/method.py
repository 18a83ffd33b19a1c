"""What a method's file says: its composition, where each number comes from, what its paper reached."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from distil.dataset.config import Settings
from distil.dataset.methods.measured import Measured

Accuracies = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Method:
    """One method."""

    name: str
    title: str
    kind: Literal["selection", "matching"]
    """`selection` chooses real images, `matching` learns synthetic ones."""
    paper: str
    description: str
    cost: str
    """What a run costs, in words."""
    settings: Callable[[str, int], Settings] = field(repr=False)
    """(data set, images per class) -> settings."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where the value of each setting comes from."""
    published: dict[str, Accuracies] = field(default_factory=dict)
    """Test accuracy (%) with ConvNet-3 at 1, 10 and 50 images per class, as published."""
    measured: dict[str, tuple[Measured, ...]] = field(default_factory=dict)
    """What this library measured, by data set: `distil.dataset.methods.measured`."""
    recipe: Literal["published", "fast"] = "published"
    """The recipe that is taken where none is asked for: of a method without a published recipe, that of this
    library."""
    has_fast: bool = False
    """Whether there is a recipe for little time."""
