"""`distil evaluate`: fresh networks are trained on a set, or on real images, and tested."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from distil.cli.dataset_processes import met, open_quietly
from distil.cli.flags import Device, console, device_named, option, switch, versions
from distil.cli.label_words import LabelsWord, Teachers, Temperature, own_labels, random_labels
from distil.cli.set_words import (
    Classes,
    Download,
    Memory,
    Root,
    Size,
    SourceWord,
    class_names,
    of_classes,
    open_images,
    opened,
    short_name,
)
from distil.data.catalog import MEMORY
from distil.errors import DistilError
from distil.processes import Lost
from distil.runs import Events, Interrupted, silent
from distil.stopping import number_of

if TYPE_CHECKING:
    from distil.data.images.opener import Source
    from distil.distilled_set.record import DistilledSet
    from distil.evaluation.evaluator import Scores
    from distil.evaluation.labels import Labels
    from distil.evaluation.protocols import Protocol
    from distil.report.unfinished import Unfinished


def evaluate(
    file: Annotated[
        Positional[str],
        arg(metavar="FILE", help="A distilled set; or whole: all real images; or random:N: N real images per class."),
    ],
    source: Positional[SourceWord],
    protocol: Annotated[str, arg(metavar="idc|dc|rded|quick|medium", help="How the networks are trained.")] = "idc",
    labels: LabelsWord = None,
    temperature: Temperature = None,
    teacher: Teachers = (),
    with_random: Annotated[
        FlagCreatePairsOff[bool], switch("Random real images, as many and with the same labels, beside FILE.")
    ] = False,
    ranking: Annotated[
        FlagCreatePairsOff[bool], switch("DD-Ranking: the scores without the help of soft labels and augmentation.")
    ] = False,
    keep_networks: Annotated[
        Path | None, option("DIR", "Folder for the trained networks, as classifiers that --teacher takes.")
    ] = None,
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
    different protocols, or with labels of different regimes, cannot be compared. A
    stopped evaluation continues from its finished networks when it is given again.
    Several processes or GPUs: torchrun --nproc-per-node N -m distil evaluate ...

    Examples:
    distil evaluate runs/digits-idc-ipc1-seed0/distilled.safetensors digits --protocol quick
    distil evaluate set.safetensors cifar10 --networks convnet3,resnet18,vit --runs 3
    distil evaluate set.safetensors cifar10 --labels teacher:resnet.safetensors --with-random
    distil evaluate set.safetensors digits --protocol quick --ranking
    distil evaluate random:10 cifar10 --json random10.json
    distil evaluate whole digits --protocol quick --json whole.json
    distil evaluate first.safetensors digits --classes 0,1,2
    """
    per_class = _images_per_class(file)
    names = [name.strip() for name in networks.split(",") if name.strip()]
    if width is not None and width < 1:
        raise DistilError(f"{{width}} is {width}: it must be at least 1.", field="width")
    if per_class is not None and (with_random or ranking):
        raise DistilError(
            f"{{with_random}} and {{ranking}} compare a distilled set with real images, and {file} is real images: "
            "leave them out.",
            field=("with_random", "ranking"),
        )

    from distil.distilled_set.parts import made_from
    from distil.distilled_set.record import DistilledSet
    from distil.evaluation.compare import compare_table
    from distil.evaluation.protocols import protocol_for
    from distil.report.progress import show_progress
    from distil.report.scores import file_hash, read_scores, scores_beside

    protocol_for(protocol, "custom")
    distilled = None if per_class is not None else DistilledSet.load(file)
    digest = None if distilled is None else file_hash(Path(file))
    out = json or (None if distilled is None else scores_beside(Path(file)))
    lasting = None if out is None else out.absolute()  # that is found again if the working folder is deleted
    path = Path(file).absolute()
    if out is not None and out.exists():
        read_scores(out)  # refuses another file before the work, not after it
    processes = met(device)
    where = device_named(device) if processes.count == 1 else str(processes.device)
    own = own_labels(labels, temperature, teacher, distilled, download=download)
    real_labels = own
    if distilled is not None and (with_random or ranking):
        real_labels = random_labels(own, distilled, teacher, download=download)
    options = {"networks": names, "width": width, "runs": runs, "seed": seed, "device": where, "at_once": at_once}
    options["processes"] = processes

    def asked_of(bench: _Bench) -> dict[str, _Asked]:
        rules = protocol_for(protocol, bench.real.key)
        if ranking:
            return _ranking_parts(bench, rules, own, real_labels)
        asked = {"own": _Asked(distilled, per_class, own, rules)}
        if with_random and distilled is not None:
            asked["random"] = _Asked(None, distilled.images_per_class, real_labels, rules)
        return asked

    if not processes.first:
        with open_quietly():
            begun, whole = processes.follow(), open_images(source, root, size, False, memory)
            real = _of_classes(whole, classes)
        bench = _Bench(real, options, silent, distilled, digest, path, None, keep_networks)
        bench.followed(asked_of(bench), begun, f"{file} or {source}")
        return
    with processes.leading() as tell, show_progress(f"{protocol} on {short_name(source)}", unit="network") as shown:
        whole = opened(source, root, size, download, shown, memory)
        real = _of_classes(whole, classes)
        bench = _Bench(real, options, shown, distilled, digest, path, lasting, keep_networks)
        rows = bench.evaluated(asked_of(bench), tell)
    shown_rows = [rows["own"], *([rows["random"]] if "random" in rows else [])]
    console().print(compare_table(shown_rows))
    if ranking:
        _rank(rows)
    if distilled is not None and not made_from(distilled, whole.train):
        print(f"Note: this set was made from other images than the training images of {real.name}.")
    if real.note:
        print(f"Note: {real.note}")
    bench.keep(rows)
    if keep_networks is not None:
        print(f"Networks: {keep_networks}")
    if out is not None:
        print(f"Scores: {out}")


@dataclass(frozen=True, eq=False)
class _Asked:
    """One evaluation: of a set, or of `per_class` real images a class, 0 for all of them."""

    distilled: "DistilledSet | None"
    per_class: int | None
    labels: "Labels"
    rules: "Protocol"


def _ranking_parts(bench: "_Bench", rules: "Protocol", own: "Labels", real_labels: "Labels") -> dict[str, _Asked]:
    """The evaluations that a ranking needs, by name; those that are the same are one object."""
    from distil.evaluation.ranking import parts

    distilled = bench.distilled
    assert distilled is not None
    made: dict[tuple[Any, ...], _Asked] = {}
    asked = {}
    for name, part in parts(rules, own, real_labels).items():
        per_class = {"set": None, "whole": 0, "random": distilled.images_per_class}[part.of]
        new = _Asked(distilled if part.of == "set" else None, per_class, part.labels, part.protocol)
        asked[name] = made.setdefault(part.key(), new)
    return asked


def _rank(rows: dict[str, dict[str, Any]]) -> None:
    """Add the ranking to the row of the set, and print it."""
    from distil.evaluation.ranking import ranking_of, ranking_table

    accuracies = {
        name: {network: values["accuracies"] for network, values in row["networks"].items()}
        for name, row in rows.items()
    }
    ranked = ranking_of(accuracies)
    rows["own"]["ranking"] = {network: one.to_dict() for network, one in ranked.items()}
    console().print(ranking_table(ranked))


@dataclass
class _Bench:
    """Where evaluations of one command are done and kept."""

    real: "Source"
    options: dict[str, Any]
    shown: Events
    distilled: "DistilledSet | None"
    digest: str | None
    path: Path
    lasting: Path | None
    networks_to: Path | None
    kept: list["Unfinished"] = field(default_factory=list)
    main: "_Asked | None" = None

    def followed(self, asked: dict[str, _Asked], begun: tuple[list[Any], list[Any]], what: str) -> None:
        """Take a process's part in what process 0 has begun. Raises: DistilError if it reads other files than that."""
        each = {id(one): one for one in asked.values()}
        self.main = asked["own"]
        if [self._deciding(one) for one in each.values()] != begun[0]:
            raise DistilError(
                f"process {self.options['processes'].rank} reads another {what} than process 0, or computes otherwise: "
                "give all processes the same files and one kind of machine."
            )
        counts = _Counts(sum(map(len, begun[1])), len(each) * self.options["runs"] * len(self.options["networks"]))
        for one, earlier in zip(each.values(), begun[1], strict=True):
            self._scores(one, None, earlier, counts)

    def evaluated(self, asked: dict[str, _Asked], tell: Callable[[Any], object]) -> dict[str, dict[str, Any]]:
        """The row of each; of those that are one object, one row. tell: called with what other processes need."""
        from distil.report.unfinished import Unfinished

        each = {id(one): one for one in asked.values()}
        held: dict[int, Unfinished | None] = dict.fromkeys(each)
        if self.lasting is not None:
            held = {key: Unfinished(self.lasting, self._deciding(one)) for key, one in each.items()}
            self.kept = [one for one in held.values() if one is not None]
        self.main = asked["own"]
        wanted = {(network, run) for network in self.options["networks"] for run in range(self.options["runs"])}
        earlier = {
            key: {}
            if one is None or (self.networks_to is not None and each[key] is self.main)
            else {which: value for which, value in one.accuracies.items() if which in wanted}
            for key, one in held.items()
        }
        counts = _Counts(sum(map(len, earlier.values())), len(each) * len(wanted))
        if counts.done:
            print(
                f"Note: {counts.done} of {counts.total} networks were trained before this command was stopped; it "
                "continues."
            )
        tell(([self._deciding(one) for one in each.values()], list(earlier.values())))
        self.shown("start", step=counts.done, steps=max(1, counts.total))
        made = {key: self._scores(one, held[key], earlier[key], counts) for key, one in each.items()}
        rows = {key: self._row(each[key], scores) for key, scores in made.items()}
        return {name: rows[id(one)] for name, one in asked.items()}

    def keep(self, rows: dict[str, dict[str, Any]]) -> None:
        """Write the rows into the score file, if there is one. Raises: DistilError if it cannot be written."""
        from distil.report.scores import add_scores

        if self.lasting is None:
            return
        try:
            for row in {id(row): row for row in rows.values()}.values():
                add_scores(self.lasting, row)
        except DistilError as error:
            raise error.within(after=" Another place is given with {json}.", field="json") from error
        for unfinished in self.kept:
            unfinished.remove()

    def _keep_network(self, network: str, run: int, trained: Any) -> None:
        """Write a network as a classifier."""
        from distil.networks.classifier_files import save_classifier
        from distil.networks.classifiers import Classifier

        assert self.networks_to is not None
        test, of = self.real.test, self.distilled or self.real.train
        assert test is not None
        classes, mean, std, size, width = test.classes, of.mean, of.std, test.size, self.options["width"]
        made = Classifier(trained, architecture=network, classes=classes, mean=mean, std=std, size=size, width=width)
        save_classifier(self.networks_to / f"{network}-run{run}.safetensors", made)

    def _row(self, asked: _Asked, scores: "Scores") -> dict[str, Any]:
        from distil.report.scores import set_name

        assert self.real.test is not None
        row = {
            **scores.to_dict(),
            "file_sha256": None if asked.distilled is None else self.digest,
            "test_fingerprint": self.real.test.fingerprint(),
            "versions": versions(),
        }
        if asked.distilled is not None:
            row |= {"name": set_name(self.path), "path": str(self.path)}
        elif self.distilled is not None:
            row |= {"beside": self.digest, "path": str(self.path)}
        return row

    def _deciding(self, asked: _Asked) -> dict[str, Any]:
        """All that the accuracy of a network depends on: an evaluation that was stopped continues if this is equal."""
        import torch

        from distil.evaluation.evaluator import trained_at_once

        assert self.real.test is not None
        options, labels = self.options, asked.labels
        device, runs = options["device"], options["runs"]
        together = trained_at_once(options["at_once"], runs, device, options["processes"].count)
        of_set = asked.distilled is not None
        return {
            "file_sha256": self.digest if of_set else None,
            "real": None if of_set else [self.real.train.fingerprint(), asked.per_class],
            "test": self.real.test.fingerprint(),
            "protocol": asdict(asked.rules),
            "labels": [
                labels.regime,
                None if labels.teacher is None else labels.teacher.fingerprint(),
                labels.temperature,
            ],
            "width": options["width"],
            "seed": options["seed"],
            "together": [together, runs if together > 1 else None],
            "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
            "arithmetic": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
            "versions": versions(),
        }

    def _scores(
        self, asked: _Asked, kept: "Unfinished | None", earlier: dict[tuple[str, int], float], counts: "_Counts"
    ) -> "Scores":
        """The scores, from the networks that an earlier call has trained on. Raises: Interrupted that says what is
        kept."""
        from distil.evaluation.evaluator import evaluate_distilled, evaluate_real
        from distil.report.progress import both

        assert self.real.test is not None

        def keep(name: str, **fields: Any) -> None:
            if name == "evaluate":
                counts.done += 1
                if kept is not None:
                    kept.add(fields["network"], fields["run"], fields["accuracy"])

        more = {**self.options, "labels": asked.labels, "events": both(keep, self.shown), "finished": earlier}
        if self.networks_to is not None and asked is self.main:
            more |= {
                "trained": self._keep_network,
            }
        train, test, rules = self.real.train, self.real.test, asked.rules
        try:
            if asked.distilled is None:
                return evaluate_real(train, test, rules, images_per_class=asked.per_class or None, **more)
            return evaluate_distilled(asked.distilled, test, rules, **more)
        except (KeyboardInterrupt, Lost) as stop:
            if isinstance(stop, Lost) and stop.explained:
                raise
            told = counts.told(kept is not None or not self.options["processes"].first)
            if isinstance(stop, Lost):
                raise Lost(f"another process of this evaluation has ended, so all have stopped: {told}") from stop
            raise Interrupted(f"interrupted: {told}", number_of(stop)) from stop


def _of_classes(whole: "Source", classes: str | None) -> "Source":
    """The images of the classes that a --classes word names. Raises: DistilError if there are none to test on."""
    real = whole
    if classes is not None:
        wanted = class_names(classes, whole.train.classes)
        real = of_classes(whole, [name for name in whole.train.classes if name in wanted])
    if real.test is None:
        raise DistilError(f"{real.name} has no test images to evaluate on: give a source that has a test split.")
    return real


@dataclass
class _Counts:
    """Networks that are trained, of all."""

    done: int
    total: int

    def told(self, kept: bool) -> str:
        """What becomes of them when the command is stopped."""
        if not self.done:
            return "no network was finished"
        finished = f"{self.done} of {self.total} networks"
        if not kept:
            return f"{finished} were finished and are lost: with --json they would have been kept"
        return f"{finished} are finished and kept: the same command continues with the others"


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
