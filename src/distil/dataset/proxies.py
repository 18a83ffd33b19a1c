"""The proxy network of a run, kept in its folder; how the time before the first step is told."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.networks import Progress, trained_proxy
from distil.dataset.restoring import LARGEST_WEIGHT
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.runs import PROXY, Events, silent
from distil.settings import MatchingSettings


def preparing(events: Events, what: str, unit: str, **more: Any) -> Progress:
    """Progress that is told as events "preparing", some hundred of them."""

    def tell(done: int, of: int) -> None:
        if done == of or done % max(1, of // 100) == 0:
            events("preparing", what=what, unit=unit, done=done, of=of, **more)

    return tell


def proxy_of(
    kept: ImageSet,
    settings: MatchingSettings,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    *,
    resume: bool = False,
    events: Events = silent,
) -> nn.Module | None:
    """The proxy network of a policy that needs one: read from the folder when a run is resumed, else trained.

    A damaged file is no loss: training is addressed by the seed, so that the network that is trained again has, on the
    CPU, the bytes that the file had.
    """
    if settings.policy not in ("response", "jitter"):
        return None
    path = None if folder is None else folder / PROXY
    made_by = {name: getattr(settings, name) for name in ("network", "width", "proxy_steps", "seed")}
    made_by["images"] = kept.fingerprint()

    def trained(steps: int, progress: Progress | None = None) -> nn.Module:
        options: dict[str, Any] = {"device": device, "seed": settings.seed, "progress": progress}
        return trained_proxy(settings.network, settings.width, kept, steps, **options)

    if resume and path is not None and path.is_file():
        net = trained(0)
        try:
            net.load_state_dict(_proxy_weights(path, made_by, net))
            return net
        except DistilError as damage:
            events("damaged", message=f"{damage} The proxy network is trained again.")
    net = trained(settings.proxy_steps, preparing(events, "training the proxy network", "update"))
    if path is not None:
        save_tensors(path, net.state_dict(), made_by)
    return net


def _proxy_weights(path: Path, made_by: dict[str, Any], net: nn.Module) -> dict[str, Tensor]:
    """The tensors of a proxy file. Raises: DistilError if they are damaged or of another network than `made_by`."""
    tensors, header = load_tensors(path)
    if header != made_by:
        raise DistilError(f"{path} is of another run.")
    wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in net.state_dict().items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != wanted:
        raise DistilError(f"{path} is damaged: its tensors are not those of {made_by['network']}.")
    for name, tensor in tensors.items():
        if not bool((tensor.abs() <= LARGEST_WEIGHT).all()):
            raise DistilError(f"{path} is damaged: {name} holds a number that no training reaches.")
    return tensors
