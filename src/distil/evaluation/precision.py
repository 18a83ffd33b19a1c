"""Average precision of a detector: COCO's twelve-number family and PASCAL VOC's, from one list of predictions."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from distil.errors import DistilError

OVERLAPS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()
DETECTIONS = 100
"""At most so many detections of an image and class count, those of the highest scores."""


class Objects(Protocol):
    """Of one image: boxes, float (m, 4), xyxy; labels, int (m,), 1 to k; ignored, bool (m,); areas, float (m,)."""

    @property
    def boxes(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def ignored(self) -> Tensor: ...
    @property
    def areas(self) -> Tensor: ...


class TaggedObjects(Protocol):
    """Images with objects and what makes each object hard, as a `DetectionSet` tells it."""

    @property
    def classes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def annotations(self, index: int, /) -> Objects: ...
    def tags(self, index: int, /) -> Sequence[frozenset[str]]: ...


@dataclass(frozen=True)
class _Chosen:
    """Objects of an image, some of them ignored."""

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    areas: Tensor


@dataclass(frozen=True)
class Precision:
    """Average precisions in percent; nan where there is no object to find."""

    ap: float
    """COCO AP: mean over overlaps 0.50, 0.55, ... 0.95 and over the classes that have an object."""
    ap50: float
    ap75: float
    small: float
    """COCO AP of objects under 32 x 32 pixels in area."""
    medium: float
    large: float
    """COCO AP of objects over 96 x 96 pixels in area."""
    voc50: float
    """PASCAL VOC: area under the precision envelope at overlap 0.5, mean over the classes that have an object."""
    per_class: dict[str, float]
    """COCO AP of every class, in the order of the classes."""
    images: int
    objects: int
    """Objects that count: those that are not ignored."""

    def to_dict(self) -> dict[str, Any]:
        """These figures as JSON can hold them: nan becomes None."""
        values = asdict(self)
        values["per_class"] = {name: _none_for_nan(value) for name, value in self.per_class.items()}
        return {name: _none_for_nan(value) for name, value in values.items()}


def average_precision(
    predictions: Sequence[Mapping[str, Tensor]], annotations: Sequence[Objects], classes: Sequence[str]
) -> Precision:
    """How well predictions find the objects of the same images.

    predictions: of every image, as torchvision's detectors give them: boxes (n, 4) xyxy, scores (n,), labels (n,) from
    1 to k, in pixels of the image that the annotations are of. annotations: in the same order. classes: k names.

    Ignored objects (COCO crowds, VOC difficult ones) are not to be found. COCO's rule: detections that overlap one by
    the threshold, measured as a share of the detection, are neither right nor wrong. VOC's rule: the object that a
    detection overlaps most decides; if that one is ignored the detection does not count, if it was claimed by a
    detection of a higher score this one is wrong.

    Raises: DistilError when the lists differ in length, a label has no class, or a score or box is not finite.

    Source: COCO by torchmetrics over faster-coco-eval, which agrees with pycocotools (tested). VOC: the development
    kit of 2010 and later (area under the envelope at all points, not 11). Differs: overlaps are of real-valued boxes,
    where the kit counts pixels inclusively.
    """
    _check(predictions, annotations, classes)
    objects = sum(int((~found.ignored).sum()) for found in annotations)
    values: dict[str, Any] = {"images": len(annotations), "objects": objects}
    per_class = [math.nan] * len(classes)
    if objects:
        table, observed = _coco(predictions, annotations)
        values |= {"ap": _mean(table[..., 0]), "ap50": _mean(table[0, ..., 0]), "ap75": _mean(table[5, ..., 0])}
        values |= {size: _mean(table[..., place]) for place, size in enumerate(("small", "medium", "large"), start=1)}
        for row, label in enumerate(observed):
            per_class[label - 1] = _mean(table[:, :, row, 0])
        values["voc50"] = voc_average_precision(predictions, annotations, len(classes))
    else:
        values |= dict.fromkeys(("ap", "ap50", "ap75", "small", "medium", "large", "voc50"), math.nan)
    return Precision(per_class=dict(zip(classes, per_class, strict=True)), **values)


def precision_by_tag(predictions: Sequence[Mapping[str, Tensor]], data: TaggedObjects) -> dict[str, Precision]:
    """Average precision of each kind of hard object that the data's tags tell, and of those without a tag ("clear").

    For each tag all other objects count as ignored: not to be found, and what finds them is neither right nor wrong.
    An object of several tags counts for each. What is found where there is nothing counts against every kind, so values
    compare between detectors, not between kinds. Empty where the data has no tags. Raises: as average_precision.
    """
    annotations = [data.annotations(index) for index in range(len(data))]
    tags = [data.tags(index) for index in range(len(data))]
    kinds = sorted({tag for image in tags for item in image for tag in item})
    table = {}
    for kind in ["clear", *kinds] if kinds else []:
        chosen = []
        for found, image in zip(annotations, tags, strict=True):
            of_kind = torch.tensor([kind in (each or {"clear"}) for each in image], dtype=torch.bool)
            chosen.append(_Chosen(found.boxes, found.labels, found.ignored | ~of_kind, found.areas))
        table[kind] = average_precision(predictions, chosen, data.classes)
    return table


def voc_average_precision(
    predictions: Sequence[Mapping[str, Tensor]], annotations: Sequence[Objects], classes: int, overlap: float = 0.5
) -> float:
    """PASCAL VOC's average precision in percent at one overlap, by the rules that `average_precision` tells.

    AP of a class = sum_j (r_j - r_(j-1)) max_{i >= j} p_i, over detections of all images by falling score.
    """
    scores, labels, claims, rights = [], [], [], []
    totals = np.zeros(classes + 1, dtype=np.int64)
    before = 0
    for found, true in zip(predictions, annotations, strict=True):
        boxes, goals = _array(found["boxes"]), _array(true.boxes)
        given, wanted, ignored = _array(found["labels"]), _array(true.labels), _array(true.ignored)
        totals += np.bincount(wanted[~ignored], minlength=classes + 1)
        claim, right = np.full(len(boxes), -1), np.zeros(len(boxes), dtype=bool)
        if len(boxes) and len(goals):
            pairs = box_iou(torch.from_numpy(boxes), torch.from_numpy(goals)).nan_to_num(0).numpy()  # nan: no area
            overlaps = np.where(given[:, None] == wanted[None], pairs, -1.0)
            best = overlaps.argmax(1)
            right = overlaps[np.arange(len(boxes)), best] >= overlap
            claim = np.where(right, best + before, -1)
            given = np.where(right & ignored[best], -1, given)
        before += len(goals)
        scores.append(_array(found["scores"]))
        labels.append(given)
        claims.append(claim)
        rights.append(right)
    if not totals[1:].any():
        return math.nan
    score, label, claim, right = (np.concatenate(parts) for parts in (scores, labels, claims, rights))
    order = np.argsort(-score, kind="stable")
    label, claim, right = label[order], claim[order], right[order]
    found_values = [
        _area_under_envelope(_first_claims(claim[label == one], right[label == one]), int(totals[one]))
        for one in range(1, classes + 1)
        if totals[one]
    ]
    return 100.0 * float(np.mean(found_values))


def _first_claims(claim: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which detections, by falling score, are right and the first to claim their object."""
    _, first = np.unique(claim, return_index=True)
    is_first = np.zeros(len(claim), dtype=bool)
    is_first[first] = True
    return right & is_first


def _area_under_envelope(hits: np.ndarray, objects: int) -> float:
    """Area under precision's envelope over recall, for detections by falling score."""
    if not len(hits):
        return 0.0
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = true / objects
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def _coco(predictions: Sequence[Mapping[str, Tensor]], annotations: Sequence[Objects]) -> tuple[Tensor, list[int]]:
    """torchmetrics' precision of every (overlap, recall, class, size), -1 without objects, and the classes' labels."""
    from torchmetrics.detection import MeanAveragePrecision

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = MeanAveragePrecision(
            box_format="xyxy",
            iou_thresholds=OVERLAPS,
            rec_thresholds=RECALLS,
            max_detection_thresholds=[1, 10, DETECTIONS],
            extended_summary=True,
            backend="faster_coco_eval",
            sync_on_compute=False,
        )
        metric.warn_on_many_detections = False
        metric.update(
            [
                {
                    "boxes": _float(found["boxes"]).reshape(-1, 4),
                    "scores": _float(found["scores"]),
                    "labels": _long(found["labels"]),
                }
                for found in predictions
            ],
            [
                {
                    "boxes": _float(true.boxes).reshape(-1, 4),
                    "labels": _long(true.labels),
                    "iscrowd": _long(true.ignored),
                    "area": _float(true.areas),
                }
                for true in annotations
            ],
        )
        result = metric.compute()
    return result["precision"][..., -1], result["classes"].reshape(-1).tolist()


def _check(predictions: Sequence[Mapping[str, Tensor]], annotations: Sequence[Objects], classes: Sequence[str]) -> None:
    if len(predictions) != len(annotations):
        raise DistilError(
            f"{len(predictions)} predictions for {len(annotations)} annotated images: give one of each for every image."
        )
    for index, (found, true) in enumerate(zip(predictions, annotations, strict=True)):
        for whose, labels in (("prediction", found["labels"]), ("annotation", true.labels)):
            if len(labels) and not 1 <= int(labels.min()) <= int(labels.max()) <= len(classes):
                wrong = labels[(labels < 1) | (labels > len(classes))][0]
                raise DistilError(
                    f"{whose} of image {index} has label {int(wrong)}, and there are {len(classes)} classes, labeled "
                    f"1 to {len(classes)}: use the classes of this data."
                )
        if not bool(found["boxes"].isfinite().all() & found["scores"].isfinite().all()):
            raise DistilError(
                f"prediction of image {index} has a box or score that is not finite: the detector's weights are "
                "broken; use an earlier checkpoint."
            )


def _mean(precision: Tensor) -> float:
    """Mean of the entries that are not -1, in percent."""
    return 100.0 * float(precision[precision > -1].mean())


def _none_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64) if tensor.is_floating_point() else tensor.cpu().numpy()


def _float(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.float32)


def _long(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.int64)
