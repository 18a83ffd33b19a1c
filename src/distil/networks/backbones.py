"""Backbones with a feature pyramid, for detectors: networks of torchvision and timm whose maps halve stage by stage."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import gcd
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.errors import DistilError
from distil.files import UNREADABLE, checked_header, read_safetensors
from distil.lookup import unknown
from distil.memory import free_memory

Norm = Literal["frozen", "batch", "group"]
ExtraLevels = Literal["pool", "pyramid", "body"]

TIMM = "timm:"
GIANT = 800_000_000
"""Bytes of a network's weights from which it is first tried without memory."""
PROBE = 128
"""Side of the black image whose maps tell a network's strides."""
CLASSIFIERS = ("fc.", "classifier.", "head.", "heads.")
"""Beginnings of the names of weights that only classify images."""
COUNTER = ".num_batches_tracked"
WEIGHTS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of numbers that weights may be stored as."""


class TimmPyramid(nn.Module):
    """Some maps of a timm network, through a feature pyramid network."""

    def __init__(self, body: nn.Module, picks: Sequence[int], fpn: nn.Module, channels: int):
        super().__init__()
        self.body, self.fpn = body, fpn
        self.picks, self.out_channels = tuple(picks), channels

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        maps = self.body(images)
        return self.fpn(OrderedDict((str(i), maps[pick]) for i, pick in enumerate(self.picks)))


def build_backbone(
    name: str,
    strides: Sequence[int],
    *,
    channels: int,
    norm: Norm,
    extra: ExtraLevels,
    pyramid_norm: Callable[[int], nn.Module] | None = None,
    weights: Path | str | None = None,
) -> nn.Module:
    """A network with a feature pyramid, as torchvision's detectors take it: images -> {name: (n, channels, h, w)}.

    name: of a torchvision network, or of a timm network after "timm:". strides: of the maps taken from the network.
    norm: what its batch norms become (see `replace_norms`). extra: coarser levels than those: "pool", one, every second
    cell of the last level; "pyramid" or "body", two, by convolutions of the last level or of the network's last map.
    pyramid_norm: of the pyramid's convolutions. weights: of the network as a classifier of images: None for random
    ones, "download", or a .safetensors file. Random weights are drawn from torch's global generator.

    Raises: DistilError on an unknown network, one without such maps, and weights that do not fit.
    Source: Lin et al. 2017 (feature pyramid networks), in torchvision's modules.
    """
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

    _refuse_giant(name, strides)
    body: Any = _network(name, weights)
    found = _stage_maps(name, body, strides)
    replace_norms(body, norm)
    widths = [width for _, width in found]
    blocks = (
        LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(widths[-1] if extra == "body" else channels, channels)
    )
    if name.startswith(TIMM):
        fpn = FeaturePyramidNetwork(widths, channels, blocks, norm_layer=pyramid_norm)
        return TimmPyramid(body, [index for index, _ in found], fpn, channels)
    names = [child for child, _ in body.named_children()]
    returned = {names[index]: str(i) for i, (index, _) in enumerate(found)}
    return BackboneWithFPN(body, returned, widths, channels, blocks, norm_layer=pyramid_norm)


def replace_norms(network: nn.Module, norm: Norm) -> None:
    """Replace every batch norm inside a network, in place.

    "frozen": the affine map that the batch norm is now in eval mode, none of it trained. "group": a fresh group norm
    of at most 32 groups. "batch": left as it is.
    """
    if norm == "batch":
        return
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, _replaced(child, norm))
        else:
            replace_norms(child, norm)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with 32 groups, or with the most that divide both 32 and the channels."""
    return nn.GroupNorm(gcd(32, channels), channels)


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file that any program wrote.

    Raises: DistilError when it is missing, cut short, or of a kind that can run code when it is opened; and when distil
    wrote it and it is damaged.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DistilError(
            f"{path} is no .safetensors file, and pickled weights can run code when they are opened. If you trust it, "
            "convert it once: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('"
            f"{path}', map_location='cpu', weights_only=True), '{path.with_suffix('.safetensors')}')\""
        )
    if not path.is_file():
        raise DistilError(f"no such file: {path}. Check the path.")
    try:
        tensors, metadata = read_safetensors(path)
    except UNREADABLE as error:
        raise DistilError(f"{path} is not a whole safetensors file ({error}). Download or convert it again.") from error
    if "distil" in metadata:
        checked_header(tensors, metadata["distil"], path)
    return tensors


def load_strictly(network: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Load weights, every one of them and no other; batch norms' counters of batches may be there or not.

    Names of older torchvision versions are understood as torchvision understands them.
    Raises: DistilError that names the first weight that is missing, left over, of another shape or type, or not finite
    as a 32-bit number.
    """
    weights = network.state_dict()
    outline = any(x.is_meta for x in weights.values())  # holds no values to copy into
    problems = [
        f"{key} is {x.dtype}, expected {weights[key].dtype}"
        for key, x in tensors.items()
        if key in weights and weights[key].is_floating_point() and x.dtype not in WEIGHTS
    ]
    problems = problems or [
        f"{key} is not finite" for key, x in tensors.items() if x.dtype in WEIGHTS and not x.float().isfinite().all()
    ]
    if not problems:
        try:
            missing, left_over = network.load_state_dict(tensors, strict=False, assign=outline)
        except RuntimeError as error:
            problems = [line.strip() for line in str(error).splitlines()[1:]]
        else:
            problems = [f"{key} is missing" for key in missing if not key.endswith(COUNTER)]
            problems += [f"{key} is left over" for key in left_over if not key.endswith(COUNTER)]
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise DistilError(
            f"the weights in {source} do not fit {type(network).__name__}: {problems[0].rstrip('.')}{more}. Give the "
            "file of this very architecture and of as many classes, from a finished run."
        )


def download(what: str, make: Callable[[], Any]) -> Any:
    """What `make` returns after it fetched weights. Raises: DistilError when they cannot be had."""
    try:
        return make()
    except (OSError, RuntimeError, ValueError) as error:
        raise DistilError(
            f"the weights of {what} cannot be downloaded ({error}). Check the connection, or give a .safetensors file."
        ) from error


def _replaced(old: nn.BatchNorm2d, norm: Norm) -> nn.Module:
    from torchvision.ops import FrozenBatchNorm2d

    if norm == "group":
        new: nn.Module = group_norm(old.num_features)
    else:
        new = FrozenBatchNorm2d(old.num_features, old.eps)
        new.load_state_dict(old.state_dict())
    activation = getattr(old, "act", None)  # timm's batch norms hold the activation that follows them
    return new if activation is None else nn.Sequential(new, getattr(old, "drop", nn.Identity()), activation)


def _network(name: str, weights: Path | str | None) -> nn.Module:
    """The network without its classifier where that is easy: a timm network of features, or a torchvision network."""
    return _timm_network(name, weights) if name.startswith(TIMM) else _torchvision_network(name, weights)


def _refuse_giant(name: str, strides: Sequence[int]) -> None:
    """Refuse a large network that is no backbone, or that does not fit, before its weights take memory."""
    try:
        with torch.device("meta"):
            body = _network(name, None)
    except DistilError:
        raise
    except Exception:  # a network that cannot be built without memory
        return
    needed = sum(weight.numel() * weight.element_size() for weight in body.parameters())
    if needed < GIANT:
        return
    _stage_maps(name, body, strides)
    free = free_memory()
    if free is not None and needed > free:
        raise DistilError(
            f"the weights of {name} take {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} are free: choose a "
            "smaller backbone."
        )


def _torchvision_network(name: str, weights: Path | str | None) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(name, known, "a torchvision network, as resnet50, or a timm network, as timm:resnet10t")
    network: Any
    if weights == "download":
        network = download(name, lambda: models.get_model(name, weights="DEFAULT"))
    else:
        network = models.get_model(name, weights=None)
        if weights is not None:
            _load_classifier(network, weights)
    return network.features if isinstance(getattr(network, "features", None), nn.Sequential) else network


def _timm_network(name: str, weights: Path | str | None) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise DistilError(f"the backbone {name} needs timm: pip install timm.") from error

    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain):
        raise _unknown(
            name, [TIMM + known for known in timm.list_models()], "a name from timm.list_models() after timm:"
        )
    given: dict[str, Any] = {"features_only": True, "pretrained": weights is not None}
    if weights not in (None, "download"):
        _load_classifier(timm.create_model(plain), weights)  # timm itself passes over weights that do not fit
        given["pretrained_cfg_overlay"] = {"file": str(weights)}
    if weights == "download":
        return download(name, lambda: timm.create_model(plain, **given))
    try:
        return timm.create_model(plain, **given)
    except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
        raise _mapless(name, error) from error


def _load_classifier(network: nn.Module, path: Path | str) -> None:
    """Load all but the classifier of a network, whose number of classes may be another."""
    classifier = {key: tensor for key, tensor in network.state_dict().items() if key.startswith(CLASSIFIERS)}
    tensors = {key: tensor for key, tensor in read_weights(path).items() if not key.startswith(CLASSIFIERS)}
    load_strictly(network, tensors | classifier, path)


@torch.no_grad()
def _stage_maps(name: str, body: nn.Module, strides: Sequence[int]) -> list[tuple[int, int]]:
    """For each stride the index of the network's last map (or child that makes it) of that stride, and its channels.

    Found with an image: timm's feature_info does not tell whether maps have their channels first, and torchvision's
    create_feature_extractor needs to be told the nodes, which have other names in each network.
    """
    modes = [(module, module.training) for module in body.modules()]
    body.eval()
    try:
        image = torch.zeros(1, 3, PROBE, PROBE, device=next(body.parameters()).device)
        maps = body(image) if name.startswith(TIMM) else _children_maps(body, image)
    except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
        raise _mapless(name, error) from error
    finally:
        for module, mode in modes:
            module.training = mode
    last = {PROBE // x.shape[2]: (index, x.shape[1]) for index, x in enumerate(maps) if x.shape[2] == x.shape[3]}
    if missing := [stride for stride in strides if stride not in last]:
        raise _mapless(name, f"none with a stride of {missing[0]} pixels")
    return [last[stride] for stride in strides]


def _children_maps(body: nn.Module, image: Tensor) -> list[Tensor]:
    maps = []
    for child in body.children():
        if isinstance(child, nn.AdaptiveAvgPool2d | nn.Linear):
            break
        image = child(image)
        maps.append(image)
    return maps


def _unknown(name: str, known: Sequence[str], wanted: str) -> DistilError:
    return unknown("backbone", name, known, wanted=f"Give {wanted}.", field="backbone")


def _mapless(name: str, why: object) -> DistilError:
    return DistilError(
        f"{name} cannot be a backbone: it gives no square maps, channels first, that halve stage by stage ({why}). "
        "Choose a convolutional network, as resnet18 or timm:resnet10t."
    )
