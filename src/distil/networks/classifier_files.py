"""Classifiers by the words that users have for them: files of this library, timm's, and folders of experts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.checks import is_integer, shown
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.networks import build_network
from distil.networks.backbones import load_strictly
from distil.networks.classifiers import TIMM, AnyClassifier, Classifier, Ensemble, header_of, weights_of
from distil.networks.experts import is_experts, open_experts
from distil.networks.timm_classifiers import timm_network, timm_of_file, timm_pretrained

FORMAT_VERSION = 1
"""Version of a classifier's file; a reader refuses a newer one."""
KIND = "classifier"
SUFFIX = ".safetensors"


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
        return timm_of_file(name, Path(file), text)
    return timm_pretrained(name, text, fetch=download)


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
        path, weights_of(classifier.network), {"kind": KIND, "format_version": FORMAT_VERSION, **header_of(classifier)}
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
        network = timm_network(name.removeprefix(TIMM), num_classes=count, in_chans=len(header["mean"]))
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
