"""`distil experts`: networks trained beforehand, whose weights are kept along the way."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from distil.cli.flags import Device, device_named, flag_of, option, parse, scan
from distil.cli.set_words import Download, Root, Size, SourceWord, in_bytes, opened, short_name
from distil.dataset.config import Experts, Learning, Selection, Settings, experts_of, with_experts
from distil.dataset.methods import METHODS, preset, source_key
from distil.errors import DistilError
from distil.fields import from_dict, leaves
from distil.runs import EXPERTS_FOLDER, Events, Interrupted

if TYPE_CHECKING:
    from distil.data.images.image_set import ImageSet, Source

USING = tuple(name for name in METHODS if experts_of(preset(name, "custom", 1, "published")) is not None)
"""Methods that need experts."""


@dataclass(frozen=True)
class ExpertsFlags:
    """Whose networks are trained, on which images, and where they go."""

    method: Annotated[
        str, option("|".join(USING), "The method whose settings for the training of experts are the defaults below.")
    ] = "mtt"
    out: Annotated[Path | None, option("DIR", "Folder of the experts; runs/SOURCE-METHOD-experts unless given.")] = None
    network: Annotated[str | None, option("NAME", "The network; convnet3 unless given.")] = None
    width: Annotated[int | None, option("N", "Channels of its layers; those of the method unless given.")] = None
    validation: float = 0.1
    """Share of the training images that is held out, as in the runs that are to use the experts."""
    seed: int = 0
    """Seed of the experts and of what is held out."""
    root: Root = None
    size: Size = None
    download: Download = False
    device: Device = "auto"


def experts() -> None:
    """Train networks on the training images of SOURCE and keep their weights after every epoch.

    Methods that follow networks along their training (mtt, datm, fred) or match images in
    trained ones (ncfm) use them: distil dataset mtt SOURCE --experts DIR. How long it takes
    and how large it becomes is said first. Ctrl-C saves; the same command continues, and with
    more --runs it adds experts.

    Examples:
    distil experts digits
    distil experts cifar10 --runs 20 --epochs 20 --width 32 --out experts/cifar10
    distil dataset mtt cifar10 --width 32 --experts experts/cifar10
    """


def experts_command(words: list[str]) -> None:
    """The defaults are those of --method for SOURCE, so both are read first."""
    positional, values = scan(words, {"-h", "--help", "--download", "--augment-one", "--no-augment-one"})
    method = values.get("--method", "mtt")
    default = _using(method, positional[0] if positional else "custom")
    found = experts_of(default)
    assert found is not None

    def train(
        source: Positional[SourceWord],
        run: Annotated[ExpertsFlags, arg(name="")],
        training: Annotated[Experts, arg(name="")] = found,
    ) -> None:
        _train(source, run, training, default)

    parse(train, "experts", words, experts)


def _using(method: str, word: str) -> Learning:
    """The settings of a method that uses experts."""
    found = preset(method, source_key(word), 1, "published")
    if isinstance(found, Selection) or experts_of(found) is None:
        raise DistilError(f"--method {method} uses no experts: choose from {', '.join(USING)}.")
    return found


def _train(word: str, run: ExpertsFlags, training: Experts, default: Learning) -> None:
    from distil.dataset.estimate import seconds_of_experts
    from distil.dataset.experts import describe_experts, train_experts
    from distil.report.progress import show_progress, spoken

    network, width = run.network or default.network, run.width or default.width
    folder = run.out or Path("runs") / f"{short_name(word)}-{run.method}-experts"
    device = device_named(run.device)
    with show_progress(f"experts on {short_name(word)}") as shown:
        source = opened(word, run.root, run.size, run.download, shown)
        real = kept_images(source.train, run.validation, run.seed).to(device)
        size = describe_experts(real, training, network, width, run.seed).bytes
        refuse_without_space(folder, size)
        seconds = seconds_of_experts(real, training, network, width)
        print(
            f"Experts: {training.runs} x {training.epochs} epochs, about {spoken(seconds)} here, and {in_bytes(size)} "
            f"in {folder}.",
            flush=True,
        )
        try:
            train_experts(real, training, folder, network=network, width=width, seed=run.seed, events=shown)
        except Interrupted as stop:
            raise Interrupted(f"{stop}; the same command continues", stop.number) from stop
    chosen = {"network": network, "width": width, "validation": run.validation, "seed": run.seed, "size": run.size}
    usual = {"size": None, **{name: getattr(default, name) for name in ("network", "width", "validation", "seed")}}
    flags = "".join(f" {flag_of(name)} {value}" for name, value in chosen.items() if value != usual[name])
    flags += "" if run.root is None else f" --root {shlex.quote(str(run.root))}"
    flags += f" --experts {shlex.quote(str(folder))}"
    print(f"{folder}\nNext:\n  distil dataset {run.method} {shlex.quote(word)}{flags}")


def kept_images(train: "ImageSet", validation: float, seed: int) -> "ImageSet":
    """The training images without those that a run holds out. Raises: DistilError on a share that is none."""
    if not 0 <= validation < 1:
        raise DistilError(
            f"{{validation}} is {validation}: it is the share of images held out, at least 0 and below 1.",
            field="validation",
        )
    return train.split(validation, seed)[0] if validation else train


def refuse_without_space(folder: Path, needed: int, prefix: str = "") -> None:
    """Raises: DistilError if the disk has less than `needed` bytes left beside what the folder holds. prefix: of the
    flags of the experts' settings."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    there = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free = shutil.disk_usage(place).free + there
    if needed > free:
        raise DistilError(
            f"the experts take {in_bytes(needed)} in {folder}, where {in_bytes(free)} are free: lower "
            f"--{prefix}runs, keep fewer of their weights (--{prefix}every), or choose another folder (--out)."
        )


def with_trained(settings: Settings, values: dict[str, str]) -> Settings:
    """The settings with the experts that --experts names, as far as they use experts."""
    if "--experts" not in values or isinstance(settings, Selection) or experts_of(settings) is None:
        return settings
    for leaf in leaves(Experts()):
        if flag_of(leaf.name) in values:
            raise DistilError(
                f"{flag_of(leaf.name)} is a setting of the training of experts, and --experts names trained ones: "
                "leave one of them out."
            )
    from distil.networks.experts import read_description

    described = read_description(Path(values["--experts"]))
    return with_experts(settings, from_dict(Experts, {**described.training, "runs": described.runs}))


def tell_experts(source: "Source", settings: Learning, device: str, folder: Path, shown: Events) -> None:
    """Print how long the training of experts will take, and how large they are, where a run needs some."""
    if (wanted := experts_of(settings)) is None:
        return
    from distil.dataset.estimate import seconds_of_experts
    from distil.dataset.experts import describe_experts
    from distil.report.progress import spoken

    shown("preparing", what="measuring the training of experts")
    real = kept_images(source.train, settings.validation, settings.seed).to(device)
    size = describe_experts(real, wanted, settings.network, settings.width, settings.seed).bytes
    refuse_without_space(folder / EXPERTS_FOLDER, size, "expert-")
    seconds = seconds_of_experts(real, wanted, settings.network, settings.width)
    print(
        f"First {wanted.runs} experts are trained for {wanted.epochs} epochs: about {spoken(seconds)} here, and "
        f"{in_bytes(size)} in {folder / EXPERTS_FOLDER}. Other runs can share them: distil experts.",
        flush=True,
    )
