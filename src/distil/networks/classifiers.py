"""Trained classifiers: one network, or several as an ensemble, with all that it takes to ask them about an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distil.checks import check_class_names, check_statistics, is_integer, shown
from distil.errors import DistilError
from distil.files import checksum, load_tensors, read_json, save_tensors
from distil.lookup import unknown
from distil.networks import DEFAULT_WIDTHS, NETWORKS, build_network
from distil.networks.backbones import COUNTER, download, load_strictly, read_weights
from distil.networks.experts import is_experts, open_experts

FORMAT_VERSION = 1
"""Version of a classifier's file; a reader refuses a newer one."""
KIND = "classifier"
TIMM = "timm:"
SUFFIX = ".safetensors"


class Classifier(nn.Module):
    """A trained network that is only asked: in eval mode for good, without gradients to its weights.

    network: normalized images [n c h w] -> logits [n k]. architecture, width: what it was built as: a name of NETWORKS,
    or "timm:" and a name of timm, whose width is None.
    mean, std: per channel, what it was trained with. size: height and width of the images that it was trained on.
    classes: names by class index; or their number, where nobody told the names.
    word: how the user calls it.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        architecture: str,
        classes: Sequence[str] | int,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int],
        width: int | None = None,
        word: str = "",
    ):
        super().__init__()
        self.network, self.architecture, self.width = network.eval().requires_grad_(False), architecture, width
        self.classes = None if isinstance(classes, int) else check_class_names(classes)
        self.class_count = classes if isinstance(classes, int) else len(classes)
        self.mean, self.std = check_statistics(mean, std, len(mean))
        self.size, self.word = (int(size[0]), int(size[1])), word or architecture

    def train(self, mode: bool = True) -> "Classifier":
        """Nothing: a batch norm that follows the batch would give other logits."""
        return self

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def bytes(self) -> int:
        """Bytes of its weights."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _weights(self.network).values())

    def fingerprint(self) -> str:
        """A hash of the weights and of all that decides what they say to an image; the word does not count."""
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in _weights(self.network).items()}
        return checksum(weights, _header(self)).partition(":")[2]

    def describe(self) -> str:
        """What it is and how it sees an image, in words."""
        height, width = self.size
        return f"{self.word} ({self.architecture}; images resized bilinearly to {width} x {height} if they are not)"

    def logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class logits of images in [0, 1], of any size."""
        return self.network(self._seen(images))

    forward = logits

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What its last layer gets, of images in [0, 1]."""
        network: Any = self.network
        seen = self._seen(images)
        if not self.architecture.startswith(TIMM):
            return network.embed(seen)
        return network.forward_head(network.forward_features(seen), pre_logits=True)

    def _seen(self, images: Tensor) -> Tensor:
        """Resized, grey repeated for a network of color images, and normalized."""
        if tuple(images.shape[2:]) != self.size:
            images = interpolate(images, self.size, mode="bilinear", antialias=True)
        if images.shape[1] == 1:
            images = images.expand(-1, self.channels, -1, -1)
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def check_matches(self, classes: Sequence[str], channels: int, what: str) -> None:
        """Nothing, if it tells the classes of `what` apart, in this order, and sees images of so many channels.

        Names that nobody told are not compared. what: as the message names it: "digits train".
        Raises: DistilError that names both sides.
        """
        if channels not in (1, self.channels):
            raise DistilError(
                f"the classifier {self.word} sees images of {self.channels} channels, and {what} has {channels}: give "
                "a classifier of such images."
            )
        if self.class_count != len(classes):
            raise DistilError(
                f"the classifier {self.word} tells {self.class_count} classes apart, and {what} has {len(classes)}: "
                "give a classifier that was trained on these classes."
            )
        if self.classes is not None and self.classes != (others := check_class_names(classes)):
            index = next(i for i, pair in enumerate(zip(self.classes, others, strict=True)) if pair[0] != pair[1])
            raise DistilError(
                f"the classifier {self.word} and {what} have different classes: class {index} is "
                f"{self.classes[index]!r} against {others[index]!r}. Give a classifier that was trained on these "
                "classes in this order."
            )


class Ensemble(nn.Module):
    """Several classifiers of the same classes as one, with the same methods: its logits are the mean of theirs.

    words: that open it, as the user gave them; those of the members unless given.

    Raises: DistilError when there are none, or when their classes differ.
    """

    def __init__(self, members: Sequence[Classifier], words: Sequence[str] = ()):
        super().__init__()
        if not members:
            raise DistilError("an ensemble needs at least one classifier.")
        self.members = nn.ModuleList(members)
        self.words = tuple(words) or tuple(member.word for member in members)
        named = [member for member in members if member.classes is not None]
        self.classes = named[0].classes if named else None
        self.class_count, self.channels = members[0].class_count, max(member.channels for member in members)
        for member in members:
            if self.classes is not None:
                member.check_matches(self.classes, 1, f"the classifier {named[0].word}")
            elif member.class_count != self.class_count:
                raise DistilError(
                    f"the classifiers {members[0].word} and {member.word} tell {self.class_count} and "
                    f"{member.class_count} classes apart: an ensemble needs the same classes."
                )

    @property
    def all(self) -> list[Classifier]:
        """Its members."""
        return list(self.members)  # pyright: ignore[reportReturnType]

    @property
    def bytes(self) -> int:
        return sum(member.bytes for member in self.all)

    def fingerprint(self) -> str:
        return checksum({}, {"members": [member.fingerprint() for member in self.all]}).partition(":")[2]

    def describe(self) -> str:
        return f"mean logits of {len(self.members)} classifiers of {', '.join(self.words)}"

    def logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The mean of the members' logits."""
        return torch.stack([member.logits(images) for member in self.all]).mean(0)

    forward = logits

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The members' embeddings, one after another."""
        return torch.cat([member.embed(images) for member in self.all], 1)

    def check_matches(self, classes: Sequence[str], channels: int, what: str) -> None:
        """Every member's. Raises: DistilError as they do."""
        for member in self.all:
            member.check_matches(classes, channels, what)


AnyClassifier = Classifier | Ensemble


def open_classifier(word: str | Path, *, download: bool = False) -> AnyClassifier:
    """The classifier that a word names, on the CPU.

    word: FILE.safetensors that `save_classifier` wrote; NAME@FILE.safetensors, the weights of the timm network NAME
    as timm or anything else wrote them (a config.json beside the file, as the Hugging Face hub has it, tells mean,
    standard deviation, size and class names; timm's own of the name otherwise); a name of timm, with or without
    "timm:" before it, for its pretrained weights; or a folder of expert networks, which become an ensemble.
    download: allow the network, which pretrained weights are fetched from.

    Raises: DistilError on a word that names nothing, and on files that are damaged or do not fit.
    """
    text = str(word)
    if Path(word).is_dir():
        return _experts(Path(word))
    name, at, file = text.partition("@")
    if isinstance(word, Path) or Path(word).is_file() or (text.endswith(SUFFIX) and not at):
        return read_classifier(word)
    name = name.removeprefix(TIMM)
    if at:
        return _timm_of_file(name, Path(file), text)
    return _timm_pretrained(name, text, fetch=download)


def open_ensemble(words: Sequence[str | Path], *, download: bool = False) -> AnyClassifier:
    """The classifier of one word, or the ensemble of several.

    Raises: DistilError as `open_classifier` and `Ensemble` do.
    """
    opened = [open_classifier(word, download=download) for word in words]
    if len(opened) == 1:
        return opened[0]
    members = [member for one in opened for member in (one.all if isinstance(one, Ensemble) else [one])]
    return Ensemble(members, [str(word) for word in words])


def save_classifier(path: Path | str, classifier: Classifier) -> None:
    """Write one classifier as a safetensors file that explains itself, atomically.

    Raises: DistilError that names the path when it cannot be written.
    """
    save_tensors(
        path, _weights(classifier.network), {"kind": KIND, "format_version": FORMAT_VERSION, **_header(classifier)}
    )


def read_classifier(path: Path | str) -> Classifier:
    """What `save_classifier` wrote, on the CPU.

    Raises: DistilError that names the file when it is missing, damaged, of something else, or from a newer distil.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != KIND:
        what = header.get("kind", "a distilled set" if "label_kind" in header else "something else")
        raise DistilError(f"{path} holds {shown(what)}, not a classifier: give a file that save_classifier wrote.")
    version = header.get("format_version")
    if not is_integer(version) or version < 1 or version > FORMAT_VERSION:
        raise DistilError(
            f"{path}: format {shown(version)}, and this distil reads up to {FORMAT_VERSION}: upgrade with pip install "
            "-U distil"
        )
    try:
        return _read(tensors, header, path)
    except (KeyError, TypeError, ValueError) as error:
        raise DistilError(f"{path}: its header is damaged ({error!r}). Copy or make the file again.") from error


def _read(tensors: dict[str, Tensor], header: dict[str, Any], path: Path | str) -> Classifier:
    name, width, (height, across) = header["network"], header["width"], header["size"]
    count = header["classes"] if is_integer(header["classes"]) else len(header["classes"])
    if name.startswith(TIMM):
        network = _timm_network(name.removeprefix(TIMM), num_classes=count, in_chans=len(header["mean"]))
    else:
        network = build_network(
            name, channels=len(header["mean"]), size=(height, across), classes=count, width=width, seed=0
        )
    load_strictly(network, tensors, path)
    return Classifier(
        network,
        architecture=name,
        classes=header["classes"],
        mean=header["mean"],
        std=header["std"],
        size=(height, across),
        width=width,
        word=str(path),
    )


def _header(classifier: Classifier) -> dict[str, Any]:
    width = classifier.width
    if width is None:
        width = DEFAULT_WIDTHS.get(classifier.architecture)
    return {
        "network": classifier.architecture,
        "width": width,
        "classes": classifier.class_count if classifier.classes is None else list(classifier.classes),
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "size": list(classifier.size),
    }


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Its weights and buffers, but for batch norms' counters."""
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}


def _experts(folder: Path) -> AnyClassifier:
    """The ensemble of a folder of expert networks, as they are at the end of their training."""
    if not is_experts(folder):
        raise DistilError(f"{folder} holds no experts: give the file of one classifier, or a folder of experts.")
    experts = open_experts(folder)
    described = experts.description
    assert described is not None
    members = []
    for run in range(experts.runs):
        network = described.network_at(0)
        with torch.no_grad():
            for weight, value in zip(network.parameters(), experts.last(run), strict=True):
                weight.copy_(value)
        members.append(
            Classifier(
                network,
                architecture=described.network,
                classes=described.classes,
                mean=described.mean,
                std=described.std,
                size=described.size,
                width=described.width,
                word=f"{folder}, expert {run + 1}",
            )
        )
    if len(members) == 1:
        members[0].word = str(folder)
    return members[0] if len(members) == 1 else Ensemble(members, [str(folder)])


def _timm_network(name: str, **options: Any) -> Any:
    import timm

    if not timm.is_model(name):
        if name in NETWORKS:
            raise DistilError(
                f"{name} alone has no weights: give the file of a trained one, FILE.safetensors.", field="teacher"
            )
        wanted = (
            "Give FILE.safetensors of a trained classifier, a name from timm.list_models(), or NAME@FILE.safetensors."
        )
        raise unknown("classifier", name, timm.list_models(), wanted=wanted)
    return timm.create_model(name, **options)


def _timm_of_file(name: str, file: Path, word: str) -> Classifier:
    tensors = read_weights(file)
    found: Any = _timm_network(name).pretrained_cfg
    told = _config_beside(file, name)
    last = found["classifier"] if isinstance(found["classifier"], str) else found["classifier"][0]
    first = found["first_conv"] if isinstance(found["first_conv"], str) else found["first_conv"][0]
    for layer in (last, first):
        if f"{layer}.weight" not in tensors:
            raise DistilError(
                f"{file} has no weight {layer}.weight, which timm's {name} has: give the file of this architecture."
            )
    count, channels = len(tensors[f"{last}.weight"]), tensors[f"{first}.weight"].shape[1]
    network = _timm_network(name, num_classes=count, in_chans=channels)
    load_strictly(network, tensors, file)
    return _timm_classifier(network, name, {**found, **told}, count, channels, word)


def _config_beside(file: Path, name: str) -> dict[str, Any]:
    """What a config.json beside a file of timm weights says of these, if it is of the same architecture."""
    try:
        content = read_json(file.with_name("config.json"))
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict) or content.get("architecture") != name.partition(".")[0]:
        return {}
    told = content.get("pretrained_cfg")
    return told if isinstance(told, dict) else {}


def _timm_pretrained(name: str, word: str, *, fetch: bool) -> Classifier:
    network = _timm_network(name)
    if not fetch:
        raise DistilError(
            f"the pretrained weights of {name} may have to be fetched: {{download=True}} allows it, or give them as "
            f"{name}@FILE.safetensors.",
            field="download",
        )
    network = download(name, lambda: _timm_network(name, pretrained=True))
    found = network.pretrained_cfg
    return _timm_classifier(network, name, found, found["num_classes"], found["input_size"][0], word)


def _timm_classifier(network: Any, name: str, told: dict[str, Any], count: int, channels: int, word: str) -> Classifier:
    mean, std = ([float(x) for x in told[key]] for key in ("mean", "std"))
    if channels != len(mean):  # a grey network of a color architecture
        mean, std = ([sum(values) / len(values)] * channels for values in (mean, std))
    names = told.get("label_names")
    named = isinstance(names, list) and len(names) == count and all(isinstance(one, str) for one in names)
    return Classifier(
        network,
        architecture=f"{TIMM}{name}",
        classes=names if named and isinstance(names, list) else count,
        mean=mean,
        std=std,
        size=(int(told["input_size"][1]), int(told["input_size"][2])),
        word=word,
    )
