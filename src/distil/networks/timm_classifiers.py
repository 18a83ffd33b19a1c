"""Classifiers of timm: their pretrained weights, or weights in a file."""

from pathlib import Path
from typing import Any

from distil.errors import DistilError
from distil.files import read_json
from distil.lookup import unknown
from distil.networks import NETWORKS
from distil.networks.backbones import download, load_strictly, read_weights
from distil.networks.classifiers import TIMM, Classifier


def timm_network(name: str, **options: Any) -> Any:
    """A network of timm. Raises: DistilError on a name that timm does not know."""
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


def timm_of_file(name: str, file: Path, word: str) -> Classifier:
    """timm's network of this name with the weights in a file, which tell its classes and channels.

    Raises: DistilError on a file that is missing, damaged or of another architecture.
    """
    tensors = read_weights(file)
    found: Any = timm_network(name).pretrained_cfg
    told = _config_beside(file, name)
    last = found["classifier"] if isinstance(found["classifier"], str) else found["classifier"][0]
    first = found["first_conv"] if isinstance(found["first_conv"], str) else found["first_conv"][0]
    for layer in (last, first):
        if f"{layer}.weight" not in tensors:
            raise DistilError(
                f"{file} has no weight {layer}.weight, which timm's {name} has: give the file of this architecture."
            )
    count, channels = len(tensors[f"{last}.weight"]), tensors[f"{first}.weight"].shape[1]
    network = timm_network(name, num_classes=count, in_chans=channels)
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


def timm_pretrained(name: str, word: str, *, fetch: bool) -> Classifier:
    """timm's network with its pretrained weights. Raises: DistilError if they may not be fetched, or cannot."""
    network = timm_network(name)
    if not fetch:
        raise DistilError(
            f"the pretrained weights of {name} may have to be fetched: {{download=True}} allows it, or give them as "
            f"{name}@FILE.safetensors.",
            field="download",
        )
    network = download(name, lambda: timm_network(name, pretrained=True))
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
