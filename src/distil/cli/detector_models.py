"""`distil detector evaluate`, `show` and `export`: what is done with a finished model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from distil.cli.detector_flags import DataFlags, Download, FixBoxes, ModelWord, Root, SourceWord, Split
from distil.cli.detector_words import (
    STUDENT,
    adapter_named,
    model_file,
    open_boxes,
    refuse_among_data,
    split_named,
)
from distil.cli.flags import Device, console, device_named, option, versions
from distil.errors import DistilError
from distil.files import load_tensors, write_atomic

if TYPE_CHECKING:
    from distil.data.detection.detection_set import DetectionSet


def evaluate(
    model: Positional[ModelWord],
    source: Positional[SourceWord],
    split: Split = "test",
    root: Root = None,
    fix_boxes: FixBoxes = False,
    download: Download = False,
    device: Device = "auto",
    json: Annotated[Path | None, option("OUT", "Write the figures here as JSON.")] = None,
) -> None:
    """Average precision of MODEL on the images of SOURCE.

    COCO: AP over overlaps .50 to .95, AP50, AP75, and by size of object; PASCAL VOC: AP50. In percent.

    Examples:
    distil detector evaluate runs/scenes-gkd-faster-rcnn-seed0 scenes
    distil detector evaluate torchvision:retinanet_resnet50_fpn coco:data/coco --split val --download
    """
    from distil.detector.training.setup import class_match, in_data_labels
    from distil.evaluation.precision import average_precision

    if json is not None:
        refuse_among_data(json.parent, source, root, "--json")
    place = DataFlags(root, fix_boxes, download, device)
    data = split_named(open_boxes(source, root, fix_boxes), split, source)
    adapter, classes = adapter_named(model, place)
    match = class_match(adapter, classes, data)
    adapter.model.to(device_named(device))
    found = in_data_labels(_predict(adapter, data, f"evaluate {_short(model)}"), match)
    scores = average_precision(found, [data.annotations(i) for i in range(len(data))], data.classes)
    if not match.complete:
        print(f"Note: {match.describe()}")
    console().print(_precision_table({_short(model): scores}, data))
    if json is not None:
        import json as text

        row = {"model": model, "source": source, "split": split, **scores.to_dict(), "versions": versions()}
        write_atomic(json, lambda temporary: temporary.write_text(text.dumps(row, indent=2) + "\n"))
        print(f"Scores: {json}")


def show(
    file: Annotated[
        Positional[str], arg(metavar="FILE", help="A model as for evaluate, or a file of prototypes (.safetensors).")
    ],
    source: Positional[SourceWord],
    split: Annotated[
        Literal["train", "val", "test"] | None, option("SPLIT", "test for a model, train for prototypes unless given.")
    ] = None,
    images: Annotated[int, arg(metavar="N", help="Images shown.")] = 6,
    least_score: Annotated[float, arg(metavar="SCORE", help="Detections below it are not drawn.")] = 0.5,
    out: Annotated[Path | None, option("PNG", "Picture; beside FILE unless given.")] = None,
    root: Root = None,
    fix_boxes: FixBoxes = False,
    download: Download = False,
    device: Device = "auto",
) -> None:
    """Draw what a model finds beside the true boxes, or the objects that became prototypes.

    Examples:
    distil detector show runs/scenes-gkd-faster-rcnn-seed0 scenes
    distil detector show runs/scenes-gkd-faster-rcnn-seed0/prototypes-0004.safetensors scenes
    """
    from distil.report.pictures import save_figure

    if images < 1:
        raise DistilError(f"--images is {images}: it must be at least 1.")
    if out is not None:
        refuse_among_data(out.parent, source, root)
    opened = open_boxes(source, root, fix_boxes)
    path = Path(file)
    if path.suffix == ".safetensors" and path.is_file() and load_tensors(path)[1].get("kind") == "prototypes":
        from distil.detector.gkd.prototypes import PrototypeSet
        from distil.report.detections import draw_prototypes

        prototypes, data = PrototypeSet.load(path), split_named(opened, split or "train", source)
        if prototypes.identifiers and not set(prototypes.identifiers) <= {data.identifier(i) for i in range(len(data))}:
            raise DistilError(f"{path} was made from other images than the {split or 'train'} images of {source}.")
        places = {data.identifier(i): i for i in range(len(data))}
        used = prototypes.images.tolist()
        if not prototypes.identifiers and max(used, default=0) >= len(data):
            raise DistilError(
                f"{path} names image {max(used)}, and {source} has {len(data)} {split or 'train'} images."
            )
        named = dict(zip(used, prototypes.identifiers or map(data.identifier, used), strict=True))
        print(prototypes.describe())
        for level, stride in enumerate(prototypes.strides):
            figure = draw_prototypes(prototypes, lambda index: data.image(places[named[index]]), level)
            picture = (out or path).with_suffix(f".stride{stride}.png")
            save_figure(figure, picture)
            print(f"Picture: {picture}")
        return
    from distil.detector.training.setup import class_match, in_data_labels
    from distil.report.detections import draw_detections

    data = split_named(opened, split or "test", source)
    some = data.subset(range(min(images, len(data))))
    adapter, classes = adapter_named(file, DataFlags(root, fix_boxes, download, device))
    adapter.model.to(device_named(device))
    found = in_data_labels(_predict(adapter, some, f"show {_short(file)}"), class_match(adapter, classes, data))
    truth = [some.annotations(i) for i in range(len(some))]
    columns = {"true": [{"boxes": one.boxes, "labels": one.labels} for one in truth], _short(file): found}
    beside = path.with_suffix(".png") if path.is_file() else Path(f"{_short(file)}.png")
    picture = out or (path / "detections.png" if path.is_dir() else beside)
    save_figure(
        draw_detections([some.image(i) for i in range(len(some))], columns, data.classes, least_score=least_score),
        picture,
    )
    print(f"Picture: {picture}")


def export(
    model: Annotated[Positional[str], arg(metavar="MODEL", help="A run folder, or a .safetensors file of distil.")],
    out: Annotated[Path, arg(metavar="FILE", help="File to write (.safetensors).")],
) -> None:
    """Write the weights of MODEL for plain torchvision, and print the lines that load them without distil.

    The file can also be given as MODEL or TEACHER to the other commands.

    Examples:
    distil detector export runs/scenes-gkd-faster-rcnn-seed0 --out student.safetensors
    """
    from distil.networks.detectors import load_detector, save_detector
    from distil.networks.plain import plain_lines

    if model.startswith("torchvision:"):
        raise DistilError(f"{model} is torchvision's own already: give a run folder or a .safetensors file of distil.")
    if out.suffix != ".safetensors":
        raise DistilError(f"--out {out}: weights are written as safetensors: give a name that ends in .safetensors.")
    detector, architecture, extra = load_detector(model_file(model, "a run folder or a .safetensors file of distil"))
    save_detector(detector, architecture, out, extra=extra)
    print(f"Written: {out}")
    print(f"A plain {type(detector).__name__} without distil:\n")
    for line in plain_lines(detector, architecture, str(out)):
        print(f"    {line}".rstrip())


def _predict(adapter: Any, data: "DetectionSet", title: str) -> list[dict[str, Any]]:
    """What a detector finds in all images; how far it is is shown."""
    from distil.detector.training.prediction import predict
    from distil.report.progress import show_progress

    with show_progress(title, unit="image") as shown:
        shown("start", step=0, steps=len(data))
        found = predict(adapter, data, done=lambda images: shown("step", step=images, steps=len(data)))
        shown("done", step=len(data), steps=len(data))
    return found


def _precision_table(rows: dict[str, Any], data: "DetectionSet") -> Any:
    from rich.table import Table

    first = next(iter(rows.values()))
    table = Table(title=f"Average precision (%) on {first.images} images, {first.objects} objects of {data.name}")
    names = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "small": "small", "medium": "medium", "large": "large"}
    names["VOC AP50"] = "voc50"
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right")
    for model, scores in rows.items():
        table.add_row(model, *(_number(getattr(scores, field)) for field in names.values()))
    if len(rows) == 1 and len(first.per_class) <= 20:
        table.caption = "AP by class: " + ", ".join(f"{name} {_number(ap)}" for name, ap in first.per_class.items())
    return table


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.1f}"


def _short(word: str) -> str:
    path = Path(word)
    return path.parent.name if path.name == STUDENT else path.name.removesuffix(".safetensors").replace(":", "-")
