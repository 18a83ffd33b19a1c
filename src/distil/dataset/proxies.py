"""The proxy network of a run, kept in its folder; how the time before the first step is told."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.network_state import Progress, Training, fresh_network, train_batch
from distil.dataset.restoring import LARGEST_WEIGHT
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.rng import stream
from distil.runs import Events


def preparing(events: Events, what: str, unit: str, **more: Any) -> Progress:
    """Progress that is told as events "preparing", some hundred of them."""

    def tell(done: int, of: int) -> None:
        if done == of or done % max(1, of // 100) == 0:
            events("preparing", what=what, unit=unit, done=done, of=of, **more)

    return tell


def trained_proxy(
    network: str,
    width: int,
    real: ImageSet,
    steps: int,
    *,
    device: torch.device | str,
    seed: int,
    progress: Progress | None = None,
) -> nn.Module:
    """A network trained on the real images, which then measures utilization and embeds images.

    steps: updates of 64 images, SGD with momentum .9 and weight decay 5e-4, learning rate .01 falling to a tenth for
    the last quarter; augmented by color and crop. progress: called after each.
    """
    state = fresh_network(network, width, real, device=device, seed=seed, address=("proxy",))
    for step in range(steps):
        lr = 0.01 if step < 0.75 * steps else 0.001
        training = Training(lr, 0.9, 5e-4, augment="color_crop")
        generator = stream(seed, "proxy", step)
        train_batch(state, real.sample(64, generator), training, real, generator)
        if progress:
            progress(step + 1, steps)
    return state.net.requires_grad_(False).eval()


def kept_proxy(
    made_by: dict[str, Any],
    real: ImageSet,
    path: Path | None,
    events: Events,
    *,
    resume: bool,
) -> nn.Module:
    """The proxy network of a run: read from `path` when a run is resumed, else trained and written there.

    made_by: network, width, proxy_steps and seed. A damaged file is no loss: training is addressed by the seed, so that
    the network that is trained again has, on the CPU, the bytes that the file had.
    """
    made_by = {**made_by, "images": real.fingerprint()}

    def trained(steps: int, progress: Progress | None = None) -> nn.Module:
        options: dict[str, Any] = {"device": real.images.device, "seed": made_by["seed"], "progress": progress}
        return trained_proxy(made_by["network"], made_by["width"], real, steps, **options)

    if resume and path is not None and path.is_file():
        net = trained(0)
        try:
            net.load_state_dict(_proxy_weights(path, made_by, net))
            return net
        except DistilError as damage:
            events("damaged", message=f"{damage} The proxy network is trained again.")
    net = trained(made_by["proxy_steps"], preparing(events, "training the proxy network", "update"))
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
