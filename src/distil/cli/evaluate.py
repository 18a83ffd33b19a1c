"""`distil evaluate`: fresh networks are trained on a set, or on real images, and tested."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from distil.cli.flags import Device, console, device_named, option, versions
from distil.cli.set_words import (
    Classes,
    Download,
    Memory,
    Root,
    Size,
    SourceWord,
    class_names,
    of_classes,
    opened,
    short_name,
)
from distil.data.catalog import MEMORY
from distil.errors import DistilError
from distil.runs import Events, Interrupted
from distil.stopping import number_of

if TYPE_CHECKING:
    from distil.data.images.opener import Source
    from distil.distilled_set.record import DistilledSet
    from distil.evaluation.evaluator import Scores
    from distil.evaluation.protocols import Protocol
    from distil.report.unfinished import Unfinished


def evaluate(
    file: Annotated[
        Positional[str],
        arg(metavar="FILE", help="A distilled set; or whole: all real images; or random:N: N real images per class."),
    ],
    source: Positional[SourceWord],
    protocol: Annotated[str, arg(metavar="idc|dc|rded|quick|medium", help="How the networks are trained.")] = "idc",
    networks: Annotated[
        str,
        arg(metavar="NAME,NAME", help="convnet3, resnet10, resnet18, resnet18_bn, vgg11, alexnet, densenet121, vit."),
    ] = "convnet3",
    width: Annotated[int | None, option("N", "Channels of the networks' layers, if not their own.")] = None,
    runs: Annotated[int, arg(metavar="N", help="Networks trained of each kind.")] = 5,
    at_once: Annotated[
        int | None, option("N", "Networks of a kind trained together; all of them on a GPU, else 1, unless given.")
    ] = None,
    seed: Annotated[int, arg(metavar="N", help="Seed of every draw.")] = 0,
    classes: Classes = None,
    device: Device = "auto",
    root: Root = None,
    size: Size = None,
    memory: Memory = MEMORY,
    download: Download = False,
    json: Annotated[
        Path | None, option("OUT", "Score file; FILE.scores.json beside a distilled set unless given.")
    ] = None,
) -> None:
    """Train fresh networks on FILE and report their accuracy on SOURCE's test images.

    Reported: the last epoch, mean and standard deviation over the runs. The same
    command scores real images: all of them (whole), or a fresh random draw for each
    run (random:N). A set of some classes is scored with --classes. Scores of
    different protocols cannot be compared. A stopped evaluation continues from its
    finished networks when it is given again.

    Examples:
    distil evaluate runs/digits-idc-ipc1-seed0/distilled.safetensors digits --protocol quick
    distil evaluate set.safetensors cifar10 --networks convnet3,resnet18,vit --runs 3
    distil evaluate random:10 cifar10 --json random10.json
    distil evaluate whole digits --protocol quick --json whole.json
    distil evaluate first.safetensors digits --classes 0,1,2
    """
    per_class = _images_per_class(file)
    names = [name.strip() for name in networks.split(",") if name.strip()]
    if width is not None and width < 1:
        raise DistilError(f"{{width}} is {width}: it must be at least 1.", field="width")

    from distil.distilled_set.parts import made_from
    from distil.distilled_set.record import DistilledSet
    from distil.evaluation.compare import compare_table
    from distil.evaluation.protocols import protocol_for
    from distil.report.progress import show_progress
    from distil.report.scores import add_scores, file_hash, read_scores, scores_beside, set_name
    from distil.report.unfinished import Unfinished

    protocol_for(protocol, "custom")
    distilled = None if per_class is not None else DistilledSet.load(file)
    digest = None if distilled is None else file_hash(Path(file))
    out = json or (None if distilled is None else scores_beside(Path(file)))
    lasting = None if out is None else out.absolute()  # that is found again if the working folder is deleted
    path = str(Path(file).absolute())
    if out is not None and out.exists():
        read_scores(out)  # refuses another file before the work, not after it
    where = device_named(device)
    with show_progress(f"{protocol} on {short_name(source)}", unit="network") as shown:
        whole = real = opened(source, root, size, download, shown, memory)
        if classes is not None:
            wanted = class_names(classes, whole.train.classes)
            real = of_classes(whole, [name for name in whole.train.classes if name in wanted])
        if real.test is None:
            raise DistilError(f"{real.name} has no test images to evaluate on: give a source that has a test split.")
        rules = protocol_for(protocol, real.key)
        options = {"networks": names, "width": width, "runs": runs, "seed": seed, "device": where, "at_once": at_once}
        kept = None if lasting is None else Unfinished(lasting, _deciding(digest, per_class, real, rules, **options))
        scores = _evaluated(distilled, per_class, real, rules, options, kept, shown)
    row = {
        **scores.to_dict(),
        "file_sha256": digest,
        "test_fingerprint": real.test.fingerprint(),
        "versions": versions(),
    }
    if distilled is not None:
        row |= {"name": set_name(Path(file)), "path": path}
    console().print(compare_table([row]))
    if distilled is not None and not made_from(distilled, whole.train):
        print(f"Note: this set was made from other images than the training images of {real.name}.")
    if real.note:
        print(f"Note: {real.note}")
    if lasting is not None:
        try:
            add_scores(lasting, row)
        except DistilError as error:
            raise error.within(after=" Another place is given with {json}.", field="json") from error
        print(f"Scores: {out}")
    if kept is not None:
        kept.remove()


def _deciding(
    digest: str | None,
    per_class: int | None,
    real: "Source",
    rules: "Protocol",
    *,
    width: int | None,
    runs: int,
    seed: int,
    device: str,
    at_once: int | None,
    networks: list[str],
) -> dict[str, Any]:
    """All that the accuracy of a network depends on: an evaluation that was stopped continues if this is equal."""
    import torch

    from distil.evaluation.evaluator import trained_at_once

    assert real.test is not None
    together = trained_at_once(at_once, runs, device)
    return {
        "file_sha256": digest,
        "real": None if digest else [real.train.fingerprint(), per_class],
        "test": real.test.fingerprint(),
        "protocol": asdict(rules),
        "width": width,
        "seed": seed,
        "together": [together, runs if together > 1 else None],
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "arithmetic": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        "versions": versions(),
    }


def _evaluated(
    distilled: "DistilledSet | None",
    per_class: int | None,
    real: "Source",
    rules: "Protocol",
    options: dict[str, Any],
    kept: "Unfinished | None",
    shown: Events,
) -> "Scores":
    """The scores, from the networks that an earlier call has trained on. Raises: Interrupted that says what is kept."""
    from distil.evaluation.evaluator import evaluate_distilled, evaluate_real
    from distil.report.progress import both

    assert real.test is not None
    total = options["runs"] * len(options["networks"])
    earlier: dict[tuple[str, int], float] = {}
    if kept is not None:
        asked = {(network, run) for network in options["networks"] for run in range(options["runs"])}
        earlier = {which: value for which, value in kept.accuracies.items() if which in asked}
    if earlier:
        print(f"Note: {len(earlier)} of {total} networks were trained before this command was stopped; it continues.")
    done = len(earlier)
    shown("start", step=done, steps=max(1, total))

    def keep(name: str, **fields: Any) -> None:
        nonlocal done
        if name == "evaluate":
            done += 1
            if kept is not None:
                kept.add(fields["network"], fields["run"], fields["accuracy"])

    options = {**options, "events": both(keep, shown), "finished": earlier}
    try:
        if distilled is None:
            return evaluate_real(real.train, real.test, rules, images_per_class=per_class or None, **options)
        return evaluate_distilled(distilled, real.test, rules, **options)
    except KeyboardInterrupt as stop:
        told = "no network was finished"
        if done and kept is None:
            told = f"{done} of {total} networks were finished and are lost: with --json they would have been kept"
        elif done:
            told = f"{done} of {total} networks are finished and kept: the same command continues with the others"
        raise Interrupted(f"interrupted: {told}", number_of(stop)) from stop


def _images_per_class(file: str) -> int | None:
    """Real images per class that the FILE word of evaluate asks for: 0 for all of them, None if it names a file."""
    if file == "whole":
        return 0
    if not file.startswith("random:"):
        return None
    count = file.removeprefix("random:")
    if not count.isdecimal() or int(count) < 1:
        raise DistilError(f"{file!r} should be random:N with N real images per class, at least 1, as in random:10.")
    return int(count)
