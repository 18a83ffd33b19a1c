"""The three label regimes: what is learned, what it costs, and what is refused."""

import pytest
import torch
from torch import nn

from distil.errors import DistilError
from distil.evaluation.evaluator import evaluate_distilled, evaluate_real
from distil.evaluation.labels import HARD, Labels, label_bytes, loss_of, targets_of, usual_labels
from distil.functional.temperature import divergence_at
from distil.networks.classifiers import Classifier

from .conftest import MEAN, PLAIN, STD, distilled_set, image_set, stripes

CLASSES = ("above", "below", "middle")
ONE = {"networks": ("convnet1",), "width": 8, "runs": 1}


class Knowing(nn.Module):
    """Tells stripes apart by their brightest third; counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        thirds = images.mean((1, 3))
        return 8 * torch.stack([thirds[:, :2].mean(1), thirds[:, 6:].mean(1), thirds[:, 2:4].mean(1)], 1)


def teacher(classes=CLASSES):
    return Classifier(Knowing(), architecture="own", classes=classes, mean=(0.1,), std=(0.5,), size=(8, 8))


def test_the_divergence_is_kl_times_the_squared_temperature_and_tends_to_the_squared_distance():
    student, wanted = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    p, q = (wanted / 3).softmax(1), (student / 3).softmax(1)
    torch.testing.assert_close(divergence_at(student, wanted, 3.0), 9 * (p * (p / q).log()).sum(1))
    a, b = (x - x.mean(1, keepdim=True) for x in (student, wanted))
    torch.testing.assert_close(divergence_at(student, wanted, 300.0), (a - b).square().sum(1) / 8, rtol=0.05, atol=1e-2)
    assert not divergence_at(student, wanted.requires_grad_(), 3.0).requires_grad


def test_a_teacher_sees_every_augmented_batch_as_the_networks_do():
    known = teacher()
    loss = loss_of(Labels("teacher", known, 2.0), MEAN, STD)
    assert loss is not None
    images, logits = torch.randn(2, 3, 1, 8, 8), torch.randn(2, 3, 3)
    value = loss(logits, images, torch.zeros(2, 3, 3))
    network: nn.Module = known.network
    assert isinstance(network, Knowing)
    shown = images.flatten(0, 1) * STD[0] + MEAN[0]
    torch.testing.assert_close(network.seen[0], (shown - 0.1) / 0.5)
    expected = divergence_at(logits, network((shown - 0.1) / 0.5).view(2, 3, 3), 2.0).mean(1)
    torch.testing.assert_close(value, expected)
    assert loss_of(HARD, MEAN, STD) is None


def test_networks_learn_from_the_teacher_whatever_the_labels_of_the_set_say():
    wrong = distilled_set(labels=(stripes(6, 8, 5)[1] + 1) % 3)
    known = teacher()
    told = evaluate_distilled(wrong, image_set(30), PLAIN, **ONE, labels=Labels("teacher", known, 2.0))
    assert told.mean["convnet1"] == 100
    assert evaluate_distilled(wrong, image_set(30), PLAIN, **ONE).mean["convnet1"] < 50
    assert (told.labels, told.label_bytes, told.bytes, told.temperature) == (
        "teacher",
        0,
        6 * 64 + told.bytes % 64,
        2.0,
    )
    assert told.teacher == {"words": ["own"], "sha256": known.fingerprint(), "bytes": 0}
    assert len(known.network.seen) == 30  # pyright: ignore
    real = evaluate_real(
        image_set(12), image_set(30), PLAIN, images_per_class=2, **ONE, labels=Labels("teacher", known, 2.0)
    )
    assert (real.mean["convnet1"], real.labels, real.label_bytes) == (100, "teacher", 0)


def test_networks_trained_at_once_hear_the_same_teacher():
    labels, several = Labels("teacher", teacher(), 2.0), {**ONE, "runs": 2, "width": 4}
    scores = [
        evaluate_distilled(distilled_set(), image_set(30), PLAIN, **several, labels=labels, at_once=count)
        for count in (1, 2)
    ]
    assert scores[0] == scores[1]


def test_real_images_get_stored_soft_labels_of_the_teacher_once():
    known = teacher()
    for count in (2, None):
        known.network.seen.clear()  # pyright: ignore
        scores = evaluate_real(
            image_set(12), image_set(30), PLAIN, images_per_class=count, **ONE, labels=Labels("stored", known)
        )
        number = 6 if count else 12
        assert scores.mean["convnet1"] > 60
        assert [len(x) for x in known.network.seen] == [number]  # pyright: ignore
        assert (scores.labels, scores.label_bytes, scores.bytes) == ("stored", number * 6, number * (64 + 6))
        assert scores.temperature == 1.0


SOFT = torch.tensor([[0.1, 0.8, 0.1]]).repeat(6, 1)


def test_hard_labels_of_a_soft_set_are_the_stored_class_or_else_the_most_probable():
    labels = stripes(6, 8, 5)[1]
    soft = distilled_set(labels=SOFT)
    assert usual_labels(soft).regime == "stored"
    assert usual_labels(distilled_set()).regime == "hard"
    assert torch.equal(targets_of(soft, Labels("stored")), SOFT)
    assert targets_of(soft, HARD).argmax(1).tolist() == [1] * 6
    known = distilled_set(labels=SOFT, item_classes=labels)
    assert targets_of(known, HARD).argmax(1).tolist() == labels.tolist()
    assert known.images_per_class == 2  # by the stored class: by the most probable one there would be 6
    regimes = (Labels("stored"), HARD, Labels("teacher", teacher()))
    assert [label_bytes(known, labels) for labels in regimes] == [72, 6, 0]
    assert known.bytes["labels"] == 78
    scores = evaluate_distilled(known, image_set(30), PLAIN, **ONE, labels=HARD)
    assert (scores.labels, scores.mean["convnet1"], scores.label_bytes) == ("hard", 100, 6)
    assert scores.bytes == known.bytes["total"] - 72


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Labels("soft"), "labels is 'soft': use hard, stored or teacher:MODEL"),  # pyright: ignore
        (lambda: Labels("teacher"), "labels=teacher:MODEL needs a teacher"),
        (lambda: Labels("teacher", teacher(), 0.0), "temperature is 0.0: it must be above 0"),
        (lambda: targets_of(distilled_set(), Labels("stored")), "the set of stripes by random has hard labels alone"),
        (
            lambda: evaluate_real(
                image_set(6), image_set(6), PLAIN, images_per_class=1, labels=Labels("stored"), **ONE
            ),
            "real images have no soft labels until a teacher gives them",
        ),
        (
            lambda: evaluate_distilled(
                distilled_set(), image_set(6), PLAIN, labels=Labels("teacher", teacher(("a", "b", "c"))), **ONE
            ),
            "the classifier own and stripes test have different classes: class 0 is 'a' against 'above'",
        ),
    ],
)
def test_what_has_no_labels_of_the_regime_is_refused(make, message):
    with pytest.raises(DistilError, match=message):
        make()
