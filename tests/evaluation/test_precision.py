"""Average precision: by hand, against pycocotools, and against VOC's rule written out as loops."""

import contextlib
import io
import json
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from distil.errors import DistilError
from distil.evaluation.precision import average_precision, precision_by_tag, voc_average_precision


@dataclass(frozen=True)
class Truth:
    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    areas: Tensor


def truth(boxes=(), labels=None, ignored=None, areas=None) -> Truth:
    boxes = torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
    labels = torch.ones(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels, dtype=torch.int64)
    ignored = torch.zeros(len(boxes), dtype=torch.bool) if ignored is None else torch.tensor(ignored)
    side = boxes[:, 2:] - boxes[:, :2]
    return Truth(boxes, labels, ignored, side.prod(1) if areas is None else torch.tensor(areas, dtype=torch.float32))


def found(boxes=(), scores=(), labels=None):
    boxes = torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
    labels = torch.ones(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels, dtype=torch.int64)
    return {"boxes": boxes, "scores": torch.tensor(np.array(scores), dtype=torch.float32), "labels": labels}


def random_case(seed: int, images: int = 12, classes: int = 3, crowds: bool = True):
    """Objects, and detections that are moved objects, wrong classes and noise; some images have neither."""
    draws = np.random.default_rng(seed)
    predictions, annotations = [], []
    for _ in range(images):
        many = int(draws.integers(0, 6))
        low = draws.uniform(0, 150, (many, 2))
        boxes = np.concatenate([low, low + draws.uniform(8, 140, (many, 2))], 1)
        labels = draws.integers(1, classes + 1, many)
        ignored = (draws.random(many) < 0.25) & crowds
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) * draws.uniform(0.4, 1.0, many)
        annotations.append(truth(boxes, labels, ignored, areas))
        kept = draws.random(many) < 0.8
        moved = np.concatenate([boxes[kept] + draws.normal(0, 4, (int(kept.sum()), 4))] * 2)
        own = np.concatenate([labels[kept]] * 2)
        own = np.where(draws.random(len(own)) < 0.2, draws.integers(1, classes + 1, len(own)), own)
        noise = draws.uniform(0, 150, (int(draws.integers(0, 4)), 2))
        noise = np.concatenate([noise, noise + 40], 1)
        moved = np.concatenate([moved, noise])
        own = np.concatenate([own, draws.integers(1, classes + 1, len(noise))])
        scores = draws.permutation(len(own)) / 100 + 0.01 * draws.random(len(own))
        predictions.append(found(moved, scores, own))
    return predictions, annotations


def oracle(predictions, annotations, classes: int) -> list[float]:
    """pycocotools' AP, AP50, AP75, small, medium, large, then AP of each class; -1 where there is no object."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rectangle(box):
        x1, y1, x2, y2 = box.tolist()
        return [x1, y1, x2 - x1, y2 - y1]

    objects, detections = [], []
    for image, (seen, true) in enumerate(zip(predictions, annotations, strict=True), start=1):
        for box, label, crowd, area in zip(true.boxes, true.labels, true.ignored, true.areas, strict=True):
            fields = {"id": len(objects) + 1, "image_id": image, "category_id": int(label), "bbox": rectangle(box)}
            objects.append({**fields, "area": float(area), "iscrowd": int(crowd)})
        for box, label, score in zip(seen["boxes"], seen["labels"], seen["scores"], strict=True):
            fields = {"image_id": image, "category_id": int(label), "bbox": rectangle(box)}
            detections.append({**fields, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCO()
        whole.dataset = {  # pyright: ignore[reportAttributeAccessIssue]
            "info": {},
            "images": [{"id": image} for image in range(1, len(annotations) + 1)],
            "categories": [{"id": label} for label in range(1, classes + 1)],
            "annotations": objects,
        }
        whole.createIndex()
        judge = COCOeval(whole, whole.loadRes(detections) if detections else COCO(), "bbox")  # pyright: ignore
        if not detections:
            judge.params.imgIds, judge.params.catIds = sorted(whole.imgs), sorted(whole.cats)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    each = [judge.eval["precision"][:, :, row, 0, -1] for row in range(classes)]
    return [*judge.stats[:6], *(float(x[x > -1].mean()) if (x > -1).any() else -1.0 for x in each)]


def ours(predictions, annotations, classes):
    names = tuple(f"class {index}" for index in range(1, classes + 1))
    result = average_precision(predictions, annotations, names)
    assert tuple(result.per_class) == names
    values = [result.ap, result.ap50, result.ap75, result.small, result.medium, result.large]
    return [*values, *result.per_class.values()]


def in_percent(values):
    return [math.nan if value < 0 else 100 * value for value in values]


@pytest.mark.parametrize("seed", range(6))
def test_random_cases_agree_with_pycocotools(seed):
    predictions, annotations = random_case(seed)
    want = in_percent(oracle(predictions, annotations, 3))
    assert 0 < want[0] < 100
    np.testing.assert_allclose(ours(predictions, annotations, 3), want, rtol=0, atol=1e-6)


def test_a_class_that_is_only_predicted_and_one_that_is_nowhere_agree():
    predictions, annotations = random_case(11, classes=2)
    predictions[0] = found([[1, 1, 30, 30]], [0.9], [3])
    want = in_percent(oracle(predictions, annotations, 4))
    np.testing.assert_allclose(ours(predictions, annotations, 4), want, rtol=0, atol=1e-6)
    assert math.isnan(want[-1])
    assert math.isnan(want[-2])


def test_images_without_objects_or_without_detections_agree():
    box = [10, 10, 60, 60]
    predictions = [found([box], [0.9]), found(), found([box], [0.95]), found()]
    annotations = [truth([box]), truth([box]), truth(), truth()]
    got = ours(predictions, annotations, 1)
    np.testing.assert_allclose(got, in_percent(oracle(predictions, annotations, 1)), atol=1e-6)
    # ranks: wrong, right; two objects: envelope 1/2 up to recall 1/2, which 51 of the 101 recall points reach
    assert got[0] == pytest.approx(100 * 0.5 * 51 / 101)


def test_no_predictions_at_all_is_zero_and_agrees():
    annotations = [truth([[0, 0, 40, 40]]), truth()]
    got = ours([found(), found()], annotations, 1)
    want = in_percent(oracle([found(), found()], annotations, 1))
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert got[0] == 0
    assert got[4] == 0
    assert math.isnan(got[3])


def test_the_sizes_are_those_of_the_annotated_areas():
    boxes = [[0, 0, 40, 40], [50, 50, 150, 150]]
    result = average_precision([found(boxes, [0.9, 0.8])], [truth(boxes, areas=[900, 10000])], ("a",))
    assert (result.small, result.large) == (pytest.approx(100), pytest.approx(100))
    assert math.isnan(result.medium)


def test_detections_inside_a_crowd_do_not_count():
    crowd, alone = [0, 0, 100, 100], [200, 200, 260, 260]
    inside = [[5, 5, 25, 25], [30, 30, 50, 50], [60, 60, 80, 80]]
    predictions = [found([*inside, alone], [0.9, 0.8, 0.7, 0.6])]
    annotations = [truth([crowd, alone], ignored=[True, False])]
    got = ours(predictions, annotations, 1)
    np.testing.assert_allclose(got, in_percent(oracle(predictions, annotations, 1)), atol=1e-6)
    assert got[0] == pytest.approx(100)
    assert average_precision(predictions, annotations, ("a",)).objects == 1


def test_overlaps_decide_which_thresholds_are_passed():
    # the overlap is 60 / 100: thresholds .50, .55 and .60 of ten are passed
    predictions, annotations = [found([[0, 0, 10, 6]], [0.9])], [truth([[0, 0, 10, 10]])]
    got = average_precision(predictions, annotations, ("a",))
    assert (got.ap, got.ap50, got.ap75) == (pytest.approx(30), pytest.approx(100), 0)
    assert got.voc50 == pytest.approx(100)


def test_without_objects_everything_is_nan():
    got = average_precision([found([[0, 0, 9, 9]], [0.5])], [truth([[0, 0, 9, 9]], ignored=[True])], ("a", "b"))
    assert all(math.isnan(x) for x in (got.ap, got.ap50, got.ap75, got.small, got.medium, got.large, got.voc50))
    assert (got.images, got.objects) == (1, 0)
    assert json.loads(json.dumps(got.to_dict(), allow_nan=False))["per_class"] == {"a": None, "b": None}
    assert math.isnan(average_precision([], [], ("a",)).ap)


def voc_reference(predictions, annotations, classes: int) -> float:
    """The development kit's procedure for each class, one detection at a time."""

    def overlap(one, other):
        wide = min(one[2], other[2]) - max(one[0], other[0])
        high = min(one[3], other[3]) - max(one[1], other[1])
        both = max(wide, 0.0) * max(high, 0.0)
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
        return both / (sum(areas) - both)

    values = []
    for label in range(1, classes + 1):
        total = sum(int(((a.labels == label) & ~a.ignored).sum()) for a in annotations)
        if total == 0:
            continue
        ranked = [
            (float(score), image, box.tolist())
            for image, seen in enumerate(predictions)
            for box, score, own in zip(seen["boxes"], seen["scores"], seen["labels"], strict=True)
            if int(own) == label
        ]
        claimed, hits = set(), []
        for _, image, box in sorted(ranked, key=lambda item: -item[0]):
            best, which = -1.0, None
            for index, (goal, own) in enumerate(zip(annotations[image].boxes, annotations[image].labels, strict=True)):
                if int(own) == label and overlap(box, goal.tolist()) > best:
                    best, which = overlap(box, goal.tolist()), (image, index)
            if which is not None and best >= 0.5:
                if annotations[image].ignored[which[1]]:
                    continue
                hits.append(which not in claimed)
                claimed.add(which)
            else:
                hits.append(False)
        area, last = 0.0, 0.0
        for index in range(len(hits)):
            recall = sum(hits[: index + 1]) / total
            best = max(sum(hits[: other + 1]) / (other + 1) for other in range(index, len(hits)))
            area, last = area + (recall - last) * best, recall
        values.append(100 * area)
    return sum(values) / len(values)


def test_a_process_judges_without_the_others(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)  # a group whose others wait elsewhere
    test_random_cases_agree_with_pycocotools(0)


@pytest.mark.parametrize("seed", range(6))
def test_voc_agrees_with_its_rule_written_out(seed):
    predictions, annotations = random_case(100 + seed, images=20)
    want = voc_reference(predictions, annotations, 3)
    assert 0 < want < 100
    assert average_precision(predictions, annotations, ("a", "b", "c")).voc50 == pytest.approx(want)


def test_voc_by_hand_a_second_claim_is_wrong_and_a_difficult_object_does_not_count():
    one, difficult = [0, 0, 10, 10], [50, 50, 90, 90]
    predictions = [found([one, one, difficult, difficult], [0.6, 0.5, 0.9, 0.8])]
    annotations = [truth([one, difficult], ignored=[False, True])]
    assert voc_average_precision(predictions, annotations, 1) == pytest.approx(100)
    second_first = [found([[0, 0, 10, 7], [100, 100, 110, 110], one], [0.9, 0.8, 0.7])]
    pair = [truth([one, [200, 200, 220, 220]])]
    # right, wrong, wrong (claimed): recall stops at one half with precision 1
    assert voc_average_precision(second_first, pair, 1) == pytest.approx(50)


def test_nothing_leaks_and_more_than_a_hundred_detections_are_taken(capsys):
    draws = torch.rand(150, 2) * 100
    many = found(torch.cat([draws, draws + 20], 1).tolist(), torch.rand(150).tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        average_precision([many], [truth([[0, 0, 20, 20]])], ("a",))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("predictions", "annotations", "message"),
    [
        ([found()], [], r"1 predictions for 0 annotated images: give one of each for every image\."),
        (
            [found([[0, 0, 1, 1]], [0.5], [3])],
            [truth()],
            r"prediction of image 0 has label 3, and there are 2 classes, labeled 1 to 2: use the classes of this",
        ),
        ([found()], [truth([[0, 0, 1, 1]], [0])], r"annotation of image 0 has label 0, and there are 2 classes"),
        (
            [found([[0, 0, 1, 1]], [math.nan])],
            [truth()],
            r"image 0 has a box or score that is not finite: the detector",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(predictions, annotations, message):
    with pytest.raises(DistilError, match=message):
        average_precision(predictions, annotations, ("a", "b"))


class Tagged:
    classes = ("a",)
    kinds = (frozenset(), frozenset({"small"}), frozenset({"small", "blurred"}))

    def __init__(self, tagged=True):
        self.kinds = self.kinds if tagged else (frozenset(),) * 3

    def __len__(self):
        return 1

    def annotations(self, index):
        return truth([[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20]])

    def tags(self, index):
        return list(self.kinds)


def test_each_tag_is_judged_by_its_own_objects_alone():
    finds_first_two = [found([[0, 0, 20, 20], [40, 0, 60, 20]], [0.9, 0.8])]
    table = precision_by_tag(finds_first_two, Tagged())
    assert list(table) == ["clear", "blurred", "small"]
    assert {kind: each.objects for kind, each in table.items()} == {"clear": 1, "blurred": 1, "small": 2}
    assert table["clear"].ap == pytest.approx(100)
    assert table["blurred"].ap == 0
    assert table["small"].ap == pytest.approx(100 * 51 / 101)


def test_data_without_tags_have_no_table_of_them():
    assert precision_by_tag([found([[0, 0, 20, 20]], [0.9])], Tagged(tagged=False)) == {}
