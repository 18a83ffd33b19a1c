"""`distil label`: soft labels of a teacher for a finished set."""

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from distil.cli.flags import Device, device_named, switch
from distil.cli.label_words import MODELS
from distil.cli.set_words import ArtifactFile, in_bytes
from distil.errors import DistilError


def label(
    file: Positional[ArtifactFile],
    teacher: UseAppendAction[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="MODEL", help=f"{MODELS[0].upper()}{MODELS[1:]}. Given several times: the mean of their logits."
            ),
        ]
    ],
    out: Annotated[Path, arg(metavar="FILE", help="The labeled set to write.")],
    temperature: Annotated[float, arg(metavar="T", help="Labels are softmax(logits / T).")] = 1.0,
    download: Annotated[FlagCreatePairsOff[bool], switch("Fetch the pretrained weights of a timm network.")] = False,
    device: Device = "auto",
) -> None:
    """Store a teacher's soft labels for every decoded image of a distilled set.

    The labels take 2 bytes for each class and decoded image, which are counted in
    the file. Evaluation learns them unless it is told --labels hard.

    Examples:
    distil label set.safetensors --teacher resnet18.safetensors --out soft.safetensors
    distil label set.safetensors --teacher a.safetensors --teacher b.safetensors --out soft.safetensors
    """
    from distil.distilled_set.labeling import labeled_by
    from distil.distilled_set.record import DistilledSet
    from distil.networks.classifier_files import open_ensemble

    if not teacher:
        raise DistilError("{teacher} is missing: name the classifier that gives the labels.", field="teacher")
    if out.suffix != ".safetensors":
        raise DistilError(f"{{out}} is {out}: a distilled set is a .safetensors file.", field="out")
    if out.exists() and out.resolve() == file.resolve():
        raise DistilError(f"{{out}} is {out}, the set itself: give the labeled set another name.", field="out")
    made, known = DistilledSet.load(file), open_ensemble(teacher, download=download)
    labeled = labeled_by(made, known, temperature=temperature, device=device_named(device))
    labeled.save(out)
    agreed = (labeled.decoded().labels.argmax(1) == labeled.class_of.repeat_interleave(labeled.images_per_item)).float()
    print(f"Teacher: {known.describe()}, {in_bytes(known.bytes)}")
    print(f"It gives {100 * float(agreed.mean()):.1f}% of the {len(agreed)} decoded images their class.")
    before, after = made.bytes, labeled.bytes
    print(f"Labels: {in_bytes(after['labels'])} ({before['labels']:,} before), {in_bytes(after['total'])} in all")
    print(f"Written: {out}")
