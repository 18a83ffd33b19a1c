"""`distil compare`, `show` and `export`: what is done with a finished set."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from distil.cli.flags import console, option, switch
from distil.cli.set_words import ArtifactFile, in_bytes
from distil.errors import DistilError


def compare(
    files: Annotated[
        Positional[tuple[Path, ...]],
        option("FILE [FILE ...]", "Distilled sets that were evaluated, or score files (.json)."),
    ],
    markdown: Annotated[FlagCreatePairsOff[bool], switch("Print Markdown.")] = False,
) -> None:
    """Print the scores of several sets as one table.

    Sets evaluated by different protocols, with labels of different regimes (hard, stored,
    a teacher's) or on different test images get a table each.

    Examples:
    distil compare idc.safetensors dsa.safetensors random10.json whole.json
    distil compare runs/*/distilled.safetensors --markdown
    """
    from distil.evaluation.compare import compare_table, to_markdown
    from distil.report.scores import by_table, scores_of

    if not files:
        raise DistilError("give the files to compare: distilled sets that were evaluated, or score files (.json).")
    tables = by_table([row for file in files for row in scores_of(file)])
    for rows in tables:
        if markdown:
            print(to_markdown(rows))
        else:
            console().print(compare_table(rows))
    if len(tables) > 1:
        print(
            "Scores of different protocols, label regimes or test images are not comparable, so they are in tables of "
            "their own."
        )


def show(
    file: Positional[ArtifactFile],
    out: Annotated[Path | None, option("PNG", "Picture file; FILE with .png unless given.")] = None,
) -> None:
    """Draw a distilled set: its items, their regions and the decoded images that a network sees.

    Examples:
    distil show runs/digits-idc-ipc1-seed0/distilled.safetensors
    distil show set.safetensors --out set.png
    """
    import torch

    from distil.distilled_set.record import DistilledSet
    from distil.functional.utilization import utilization_entropy
    from distil.report.pictures import draw_set, save_figure

    distilled = DistilledSet.load(file)
    out = out or file.with_suffix(".png")
    if out.suffix.lower() != ".png":
        raise DistilError(f"--out {out}: pictures are PNG files: give a name that ends in .png.")
    save_figure(draw_set(distilled), out)
    size = in_bytes(distilled.bytes["total"])
    print(f"{distilled.method} of {distilled.source}, {distilled.images_per_class} per class, {size}")
    print(f"Each item is {distilled.parameterization.describe()}.")
    if distilled.student_lr is not None:
        print(f"Learning rate of gradient descent that was learned with the images: {distilled.student_lr:.4g}.")
    maps = [distilled.parameterization.pictured(distilled.params, i).utilization for i in range(len(distilled.params))]
    if used := [one for one in maps if one is not None]:
        entropy = float(utilization_entropy(torch.stack(used)))
        print(f"mUE {entropy:.3f} (entropy of the utilization; 1 when every pixel is used alike)")
    print(f"Picture: {out}")


def export(
    file: Positional[ArtifactFile],
    to: Annotated[Literal["folder", "npz", "parquet"], arg(help="Layout.")],
    out: Annotated[Path, arg(metavar="PATH", help="Folder or file to write.")],
    overwrite: Annotated[FlagCreatePairsOff[bool], switch("Replace what an earlier export wrote.")] = False,
) -> None:
    """Write the views of a distilled set in a layout that other programs read.

    Layouts:
    folder   PNG files, one folder per class
    npz      arrays x_train, y_train, classes, mean, std
    parquet  columns image and label, as Hugging Face datasets reads them
    The images are not normalized: subtract mean and divide by std before a network.

    Examples:
    distil export set.safetensors --to folder --out set/
    distil export set.safetensors --to npz --out set.npz
    """
    from distil.distilled_set.export import export as write
    from distil.distilled_set.record import DistilledSet

    notes = write(DistilledSet.load(file), to, out, overwrite=overwrite)
    print(f"Written: {out}")
    for note in notes:
        print(f"Note: {note}")
