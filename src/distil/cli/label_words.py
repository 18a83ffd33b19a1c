"""What words on labels and teachers mean."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

from distil.cli.flags import option
from distil.errors import DistilError

if TYPE_CHECKING:
    from distil.distilled_set.record import DistilledSet
    from distil.evaluation.labels import Labels

MODELS = (
    "a classifier's FILE.safetensors, NAME@FILE.safetensors with weights of timm's NAME, or a name of timm (with "
    "--download)"
)
LabelsWord = Annotated[
    str | None,
    option(
        "hard|stored|teacher:MODEL",
        f"Whose labels are learned: hard, stored in FILE, or a teacher's while networks train; stored where FILE has "
        f"soft labels, else hard, unless given. MODEL: {MODELS}.",
    ),
]
Teachers = UseAppendAction[
    Annotated[
        tuple[str, ...],
        arg(
            metavar="MODEL",
            help="Teacher, as in --labels; given several times, the mean of their logits. Needed where --labels says "
            "just teacher, and for soft labels of real images.",
            help_behavior_hint="",
        ),
    ]
]
Temperature = Annotated[
    float | None, option("T", "The teacher's: 20 while networks train, 1 for stored labels, unless given.")
]


def own_labels(
    word: str | None,
    temperature: float | None,
    teachers: Sequence[str],
    distilled: "DistilledSet | None",
    *,
    download: bool,
) -> "Labels":
    """The labels that networks learn from a set, or from real images where it is None.

    Raises: DistilError on a regime that is none, a teacher that is missing or not used, and one that cannot be opened.
    """
    from distil.evaluation.labels import Labels
    from distil.networks.classifier_files import open_ensemble

    soft = distilled is not None and distilled.labels.is_floating_point()
    regime, _, model = (word or ("stored" if soft else "hard")).partition(":")
    if regime == "teacher":
        models = ([model] if model else []) + list(teachers)
        return Labels(regime, open_ensemble(models, download=download) if models else None, temperature)
    if regime not in ("hard", "stored") or model:
        raise DistilError(f"{{labels}} is {word!r}: use hard, stored or teacher:MODEL.", field="labels")
    if regime == "stored" and distilled is None:
        teacher = open_ensemble(teachers, download=download) if teachers else None
        return Labels("stored", teacher, temperature)
    if temperature is not None:
        used = "hard labels have none" if regime == "hard" else "that of the stored labels is in the file"
        raise DistilError(
            f"{{temperature={temperature:g}}} is not used: {used}. Leave it out, or use {{labels=teacher:MODEL}}.",
            field=("temperature", "labels"),
        )
    if teachers and (regime == "hard" or not soft):
        raise DistilError(
            "{teacher} is not used with hard labels: add {labels=teacher} to let it label while networks train.",
            field=("teacher", "labels"),
        )
    return Labels(regime)  # pyright: ignore[reportArgumentType]


def random_labels(own: "Labels", distilled: "DistilledSet", teachers: Sequence[str], *, download: bool) -> "Labels":
    """The labels with which random real images stand beside a set: the same regime, from the same teacher.

    Raises: DistilError when the teacher of the stored labels is not known, is not there, or is another one now.
    """
    from distil.evaluation.labels import Labels
    from distil.networks.classifier_files import open_ensemble

    if own.regime != "stored":
        return own
    source = distilled.label_source or {}
    if not {"words", "sha256", "temperature"} <= source.keys():
        raise DistilError(
            f"the soft labels of this set by {distilled.method} come from no teacher that its file names, so random "
            "real images cannot have the same help: leave {with_random} and {ranking} out, or add {labels=hard}.",
            field=("with_random", "ranking", "labels"),
        )
    told = list(teachers) or source["words"]
    try:
        teacher = open_ensemble(told, download=download)
    except DistilError as error:
        before = f"random real images need the teacher of the stored labels ({', '.join(map(str, source['words']))}): "
        raise error.within(before, " Where it lies now is told with {teacher}.", field="teacher") from error
    if teacher.fingerprint() != source["sha256"]:
        raise DistilError(
            f"the teacher {', '.join(map(str, told))} is not the one that gave the stored labels (its weights or its "
            "mean, standard deviation, size or classes differ): give that one with {teacher}.",
            field="teacher",
        )
    return Labels("stored", teacher, source["temperature"])
