"""Twenty thousand pictures of 224 pixels, which would take 3 GB decoded, distilled by rded and by random choice.

The pictures are crops around the objects of photographs in PASCAL VOC's layout, classed by their object; those of one
photograph are in one split. Recorded: peak memory of the process, times, and accuracies of networks trained from
scratch on the sets. The observer is a trained classifier (`lite_weights.py` makes one). Controls: random images; the
same tiles scored by an untrained network.

    python benchmarks/large_images.py VOC PICTURES --model tf_efficientnet_lite0@lite0.safetensors
"""

import argparse
import json
import platform
import resource
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image

from distil import DistilledSet, Source, distil_dataset, evaluate_distilled, open_source, preset, protocol_for
from distil.dataset.config import Observer, PretrainedObserver, Selection

SIDE = 224
CLASSES = 10
TRAIN = 20_000
TEST = 1_000
LEAST_SIDE = 48
"""Pixels of the longer side of an object that becomes a picture."""
RESULT = Path(__file__).parent / "results" / "large-images.json"


def objects(voc: Path) -> list[tuple[Path, str, tuple[int, ...]]]:
    """(photograph, class, box) of every object that is large enough."""
    found = []
    for path in sorted((voc / "Annotations").glob("*.xml")):
        root = ElementTree.parse(path).getroot()
        for thing in root.iter("object"):
            box = tuple(int(float(thing.findtext(f"bndbox/{side}", "0"))) for side in ("xmin", "ymin", "xmax", "ymax"))
            if max(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE:
                photograph = voc / "JPEGImages" / f"{path.stem}.jpg"
                found.append((photograph, thing.findtext("name", ""), box))
    return found


def make_pictures(voc: Path, folder: Path) -> None:
    """train/CLASS/*.jpg and test/CLASS/*.jpg, square crops about the objects of the classes with most photographs."""
    found = objects(voc)
    common = Counter(name for _, name in {(photograph, name) for photograph, name, _ in found})
    classes = sorted(name for name, _ in common.most_common(CLASSES))
    photographs = sorted({photograph for photograph, name, _ in found if name in classes})
    draws = np.random.default_rng(0)
    held_out = {photographs[i] for i in draws.permutation(len(photographs))[: len(photographs) // 4]}
    for split, total in (("train", TRAIN), ("test", TEST)):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            mine = [thing for thing in found if thing[1] == name and (thing[0] in held_out) == (split == "test")]
            for index in range(total // CLASSES):
                photograph, _, box = mine[index % len(mine)]
                with Image.open(photograph) as image:
                    picture = crop(image, box, draws)
                picture.save(folder / split / name / f"{index:05}.jpg", quality=90)


def crop(image: Image.Image, box: tuple[int, ...], draws: np.random.Generator) -> Image.Image:
    """A square of .8 to 1.4 times the object's longer side, inside the photograph, near the object's middle."""
    longer = max(box[2] - box[0], box[3] - box[1])
    side = min(int(longer * draws.uniform(0.8, 1.4)), *image.size)
    corner = []
    for low, high, length in ((box[0], box[2], image.width), (box[1], box[3], image.height)):
        middle = (low + high) / 2 + 0.15 * longer * draws.uniform(-1, 1)
        corner.append(int(np.clip(middle - side / 2, 0, length - side)))
    x, y = corner
    square = image.convert("RGB").crop((x, y, x + side, y + side))
    return square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def peak() -> float:
    """Gigabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, help="a VOCdevkit's folder of one year")
    parser.add_argument("pictures", type=Path, help="folder of the pictures, which is made if it is missing")
    parser.add_argument("--model", required=True, help="the observer")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--images", type=int, default=300, help="images of a class that rded looks at")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--memory", type=float, default=1.0, help="gigabytes of decoded images that stay in memory")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if not args.pictures.exists():
        make_pictures(args.voc, args.pictures)
    began = time.monotonic()
    source = open_source(args.pictures, memory=args.memory)
    assert source.test is not None
    made = {
        "pictures": {
            "train": len(source.train),
            "test": len(source.test),
            "side": SIDE,
            "classes": source.train.classes,
        },
        "decoded_gigabytes": (len(source.train) + len(source.test)) * 3 * SIDE**2 / 1e9,
        "settings": {name: value for name, value in vars(args).items() if isinstance(value, (int, float))},
        "observer": args.model.partition("@")[0],
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "opening": {"seconds": time.monotonic() - began, "peak_gigabytes": peak()},
        "sets": {},
    }
    print(source.inventory, json.dumps(made["opening"]), flush=True)
    tiles: Selection = preset("rded", "custom", args.ipc)  # pyright: ignore[reportAssignmentType]
    assert tiles.tiles is not None
    tiles = replace(tiles, tiles=replace(tiles.tiles, images=args.images), validation=0.0)
    settings = {
        "random": replace(preset("random", "custom", args.ipc), validation=0.0),
        "rded": replace(tiles, observer=PretrainedObserver(args.model)),
        "rded, untrained observer": replace(tiles, observer=Observer("convnet1", 2, network_epochs=0)),
    }
    for name, chosen in settings.items():
        began = time.monotonic()
        distilled = distil_dataset(source.train, chosen)
        row = {"seconds": time.monotonic() - began, "bytes": distilled.bytes["total"]}
        row |= judged(distilled, source, args)
        made["sets"][name] = {**row, "peak_gigabytes": peak()}
        print(name, json.dumps(made["sets"][name]), flush=True)
        args.out.write_text(json.dumps(made, indent=1) + "\n")


def judged(distilled: DistilledSet, source: Source, args: argparse.Namespace) -> dict[str, object]:
    protocol = replace(
        protocol_for("rded", "custom"),
        epochs=args.updates,
        max_updates=args.updates,
        batch=args.batch,
        name="rded, short",
    )
    began = time.monotonic()
    assert source.test is not None
    options = {"networks": ("resnet18_bn",), "width": args.width, "runs": args.runs}
    scores = evaluate_distilled(distilled, source.test, protocol, **options)
    return {
        "images": scores.views,
        "accuracies": scores.accuracies["resnet18_bn"],
        "mean": scores.mean["resnet18_bn"],
        "updates": scores.updates,
        "seconds_judged": time.monotonic() - began,
    }


if __name__ == "__main__":
    main()
