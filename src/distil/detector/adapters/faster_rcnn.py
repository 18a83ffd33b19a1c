"""The adapter of torchvision's Faster R-CNN."""

from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor

from distil.detector.adapters import torchvision
from distil.errors import DistilError
from distil.types import Trace, View


class FasterRCNNAdapter(torchvision.TorchvisionAdapter):
    """Faster R-CNN: what `distil.detector.adapters.DetectorAdapter` describes.

    Instances are the positives among the proposals that the RoI head samples in training, with the ground-truth boxes
    added; at most 128 an image. Logits are the RoI head's, with the background in column 0. Its losses are
    loss_classifier and loss_box_reg, means over the sampled proposals, and loss_objectness and loss_rpn_box_reg, means
    over the sampled anchors.

    Raises: DistilError when the model's pyramid or its last layers are not torchvision's.
    """

    activation: Literal["softmax"] = "softmax"

    def __init__(self, model: Any):
        scores = getattr(model.roi_heads.box_predictor, "cls_score", None)
        if scores is None:
            raise DistilError(
                "the box predictor of this FasterRCNN has no layer `cls_score` that says how many classes there are. "
                "Use torchvision's FastRCNNPredictor, or write an adapter (see distil.detector.adapters)."
            )
        self.model = model
        self.classes: int = scores.out_features - 1
        self.strides, self.channels, maps = torchvision.probe(model)
        self._settle_scales(maps)

    def _settle_scales(self, maps: OrderedDict[str, Tensor]) -> None:
        """Have the RoI pooling take the levels' true scales.

        torchvision guesses them from the unpadded sizes of the first batch that it sees, for good: small first images
        would make it pool from wrong places, and a resumed run could differ from an uninterrupted one.
        """
        pool = self.model.roi_heads.box_roi_pool
        if hasattr(pool, "scales") and hasattr(pool, "map_levels"):
            pool.scales = pool.map_levels = None
            with torch.no_grad():
                pool(
                    maps,
                    [next(iter(maps.values())).new_tensor([[0, 0, 32, 32]])],
                    [(torchvision.PROBE, torchvision.PROBE)],
                )

    def trace(self, view: View, *, regions: Trace | None = None) -> Trace:
        view = self.restyle(view)
        if regions is not None:
            with torch.no_grad(), torchvision.evaluating(self.model):
                return self._teach(view, regions)
        torchvision.check_training(self.model)
        return self._train(view)

    def _train(self, view: View) -> Trace:
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.roi_heads import fastrcnn_loss

        rpn, roi_heads = self.model.rpn, self.model.roi_heads
        if getattr(roi_heads, "mask_head", None) is not None or getattr(roi_heads, "keypoint_head", None) is not None:
            raise DistilError(
                f"a {type(self.model).__name__} can teach, but not be a student: nothing would train its mask or "
                "keypoint head. Use a FasterRCNN."
            )
        maps = torchvision.feature_maps(self.model, view.images)
        targets = list(view.targets)
        hook = rpn.head.register_forward_hook(_widen)
        try:
            with torchvision.sampling(rpn, view, "anchors") as anchors:
                proposals, losses = rpn(ImageList(view.images, list(view.sizes)), maps, targets)
        finally:
            hook.remove()
        with torchvision.sampling(roi_heads, view, "proposals") as sampled:
            boxes, _, labels, wanted = roi_heads.select_training_samples(proposals, targets)
        logits, moves = self._head(maps, boxes, view)
        loss_classifier, loss_box = fastrcnn_loss(logits, moves, labels, wanted)

        label = torch.cat(labels)
        image = torchvision.image_of(labels)
        rows = (label > 0).nonzero().flatten()
        rows = rows[torchvision.some_instances(image[rows], view)]
        counts = torch.bincount(image[rows], minlength=len(view)).tolist()
        named = {"loss_classifier": loss_classifier, "loss_box_reg": loss_box, **losses}
        many = {"loss_classifier": sampled.count, "loss_box_reg": sampled.count}
        many |= dict.fromkeys(losses, anchors.count)
        return Trace(
            pyramid=tuple(maps.values()),
            strides=self.strides,
            boxes=torch.cat(boxes)[rows].detach().split(counts),
            labels=label[rows],
            logits=logits[rows],
            activation=self.activation,
            losses=named,
            counts=many,  # pyright: ignore[reportArgumentType]
        )

    def _teach(self, view: View, regions: Trace) -> Trace:
        maps = torchvision.feature_maps(self.model, view.images)
        boxes = [item.to(view.images.dtype) for item in regions.boxes]
        logits, _ = self._head(maps, boxes, view)
        return Trace(tuple(maps.values()), self.strides, regions.boxes, regions.labels, logits, self.activation)

    def _head(self, maps: OrderedDict[str, Tensor], boxes: list[Tensor], view: View) -> tuple[Tensor, Tensor]:
        """Class logits (i, k + 1) and coded boxes (i, 4 (k + 1)) of regions."""
        heads = self.model.roi_heads
        features = heads.box_head(heads.box_roi_pool(maps, boxes, list(view.sizes)))
        logits, moves = heads.box_predictor(features)
        return torchvision.widened(logits), torchvision.widened(moves)


def _widen(_head: Any, _inputs: Any, outputs: tuple[list[Tensor], list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """The RPN's outputs in 32 bits, whatever autocast made of them: torchvision decodes proposals in their type."""
    scores, moves = outputs
    return [torchvision.widened(x) for x in scores], [torchvision.widened(x) for x in moves]
