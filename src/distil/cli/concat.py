"""`distil concat`: sets of different classes become one."""

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from distil.cli.flags import option, switch
from distil.cli.set_words import class_names, in_bytes
from distil.errors import DistilError


def concat(
    files: Annotated[Positional[tuple[Path, ...]], option("FILE [FILE ...]", "Distilled sets of different classes.")],
    out: Annotated[Path, arg(metavar="OUT", help="File to write (.safetensors).")],
    classes: Annotated[str | None, option("A,B,...", "Keep the items of these classes alone, in this order.")] = None,
    as_images: Annotated[
        FlagCreatePairsOff[bool], switch("Join the decoded images, whatever the sets store, each in bytes of its own.")
    ] = False,
    overwrite: Annotated[FlagCreatePairsOff[bool], switch("Replace OUT if it is a distilled set.")] = False,
) -> None:
    """Join sets of different classes in one file, in the order given.

    Stored numbers stay as they are. The sets must have one image size and store
    their items alike; images per class may differ. The file tells what made each set.

    Examples:
    distil concat first.safetensors second.safetensors --out both.safetensors
    distil concat set.safetensors --classes 3,5 --out two.safetensors
    """
    from distil.distilled_set.parts import provenance
    from distil.distilled_set.record import DistilledSet

    if not files:
        raise DistilError("give the files to join: distilled sets of different classes.")
    if out.suffix != ".safetensors":
        raise DistilError(f"--out {out}: give a name that ends in .safetensors.")
    if out.exists():
        if not overwrite:
            raise DistilError(f"{out} exists: give another name, or {{overwrite=True}}.", field="overwrite")
        DistilledSet.load(out)  # refuses to replace another file
    sets = [DistilledSet.load(file) for file in files]
    made = DistilledSet.concat(sets, as_images=as_images)
    if classes is not None:
        made = made.only(class_names(classes, made.classes))
    made.save(out)
    count = len(made.params)
    print(f"{out}")
    print(f"{count} images of {len(made.classes)} classes, {in_bytes(made.bytes['total'])}")
    for part in provenance(made):
        print(f"  {', '.join(part.classes)}: {part.method} of {part.source}, seed {part.seed}")
    if any((one.mean, one.std) != (made.mean, made.std) for one in sets):
        print("Note: the sets had other means and deviations; those of all images together are in the file.")
