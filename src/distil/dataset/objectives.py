"""What a matching step minimises: pure functions of a network and images, all classes at once or one by one."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.functional.distances import gradient_distance, mean_embedding_distance
from distil.functional.gradients import class_gradient, class_gradients_batched


def real_gradients(
    net: nn.Module, names: Sequence[str], images: Float[Tensor, "classes n c h w"], labels: Int[Tensor, " classes"]
) -> tuple[list[Float[Tensor, "classes ..."]], Float[Tensor, "classes d"]]:
    """The targets of gradient matching: (gradients of the loss on real images, mean embeddings), constant.

    names: of the weights whose gradients are wanted. labels: the class of each row of images. One gradient a class.
    """
    parameters = dict(net.named_parameters())
    if len(images) == 1:
        wanted = labels.expand(images.shape[1])
        embedding = net.embed(images[0])  # pyright: ignore[reportCallIssue]
        logits = net.classifier(embedding)  # pyright: ignore[reportCallIssue]
        gradients = class_gradient(logits, wanted, [parameters[name] for name in names], differentiable=False)
        return [gradient[None] for gradient in gradients], embedding.detach().mean(0, keepdim=True).float()
    constant = {name: weight.detach() for name, weight in parameters.items()}
    moving = {name: constant.pop(name) for name in names}
    every = labels[:, None].expand(-1, images.shape[1])
    gradients = class_gradients_batched(net, moving, images, every, others=constant)
    with torch.no_grad():
        embedding = net.embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])  # pyright: ignore[reportCallIssue]
    return [gradients[name] for name in names], embedding.mean(1).float()


def gradient_matching(
    net: nn.Module,
    target: Mapping[str, Tensor],
    views: Float[Tensor, "classes n c h w"],
    labels: Int[Tensor, " classes"],
    distance: str,
) -> Float[Tensor, ""]:
    """Distance between real gradients and those of synthetic views, summed over classes; differentiable in the views.

    target: gradients of the matched weights by name, one a class stacked. labels: [classes], the class of each row.
    distance: "cosine", "squared" or "l1", computed in float32 whatever the network's precision.
    Source: DC (Zhao, Mopuri and Bilen 2021), equations 7 and 10; IDC (Kim et al. 2022), section 4.
    """
    parameters = dict(net.named_parameters())
    matched = {name: parameters[name] for name in target}
    if len(views) == 1:
        synthetic = labels.expand(views.shape[1])
        gradients = class_gradient(net(views[0]), synthetic, list(matched.values()), differentiable=True)
        rows = [gradient[None] for gradient in gradients]
    else:
        constant = {name: weight.detach() for name, weight in parameters.items()}
        matched = {name: constant.pop(name) for name in target}
        every = labels[:, None].expand(-1, views.shape[1])
        rows = list(class_gradients_batched(net, matched, views, every, others=constant).values())
    pairs = [(_wide(a), _wide(b)) for a, b in zip(target.values(), rows, strict=True)]
    return gradient_distance([a for a, _ in pairs], [b for _, b in pairs], distance)


def _wide(gradients: Float[Tensor, "classes rows ..."]) -> Float[Tensor, "all ..."]:
    """The rows of all classes, in float32 at least."""
    rows = gradients.flatten(0, 1)
    return rows.float() if rows.dtype == torch.bfloat16 else rows


def feature_matching(net: nn.Module, target: Float[Tensor, " d"], views: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Squared distance between the real mean embedding and that of one class's views, differentiable in the views.

    Source: DM (Zhao and Bilen 2023), equation 4.
    """
    return mean_embedding_distance(target[None], net.embed(views).to(target.dtype))  # pyright: ignore[reportCallIssue]
