import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from distil.data.images.image_set import ImageSet
from distil.errors import DistilError
from distil.evaluation import evaluator, training
from distil.evaluation.evaluator import Scores, accuracy, evaluate_distilled, evaluate_real
from distil.evaluation.protocols import PROTOCOLS
from distil.functional.augment import normalize
from distil.parameterizations.crops import Crops
from distil.types import Batch

from .conftest import MEAN, PLAIN, STD, distilled_set, image_set, stripes, weights

SOFT = torch.eye(3)[stripes(6)[1]] * 0.7 + 0.1


def test_separable_images_are_learned_to_the_last():
    scores = evaluate_distilled(distilled_set(), image_set(30), PLAIN, networks=("convnet1",), width=8, runs=2)
    assert scores.accuracies == {"convnet1": (100.0, 100.0)}
    assert scores.updates == 30
    assert scores.views == 6


@pytest.mark.parametrize("name", ["idc", "dc", "quick", "medium"])
def test_the_named_protocols_learn(name):
    protocol = replace(PROTOCOLS[name], epochs=60, lr=0.05, strategy="color_crop_scale_rotate")
    scores = evaluate_distilled(distilled_set(), image_set(30), protocol, networks=("convnet1",), width=8, runs=1)
    assert scores.mean["convnet1"] > 60  # chance is 33


def test_equal_seeds_give_equal_scores_and_other_seeds_other_networks():
    protocol = replace(PROTOCOLS["quick"], epochs=3)
    events = []

    def record(seed):
        nets = []
        train = evaluator.train_together

        def spy(group, *args, **options):
            train(group, *args, **options)
            nets.extend(weights(net) for net in group)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluator, "train_together", spy)
            scores = evaluate_distilled(
                distilled_set(),
                image_set(30),
                protocol,
                networks=("convnet1", "alexnet"),
                width=4,
                runs=2,
                seed=seed,
                events=lambda name, **fields: events.append((name, fields)),
            )
        return scores, nets

    (first, nets), (again, same), (_, others) = record(0), record(0), record(1)
    assert first == again
    assert all(torch.equal(one, two) for one, two in zip(nets, same, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(nets, others, strict=True))
    assert not torch.equal(nets[0], nets[1])
    assert [(name, fields["network"], fields["run"]) for name, fields in events[:4]] == [
        ("evaluate", "convnet1", 0),
        ("evaluate", "convnet1", 1),
        ("evaluate", "alexnet", 0),
        ("evaluate", "alexnet", 1),
    ]
    assert tuple(fields["accuracy"] for _, fields in events[:2]) == first.accuracies["convnet1"]


def test_one_network_is_tested_once_after_its_last_update(monkeypatch):
    calls = []

    def spy(net, test, **_):
        calls.append(weights(net))
        return 50.0 - len(calls)  # falls: a judge that keeps the best would show it

    monkeypatch.setattr(evaluator, "accuracy", spy)
    scores = evaluate_distilled(distilled_set(), image_set(30), PLAIN, networks=("convnet1",), width=8, runs=3)
    assert scores.accuracies["convnet1"] == (49.0, 48.0, 47.0)


def test_soft_labels_of_a_set_are_learned():
    soft = distilled_set(labels=SOFT)
    scores = evaluate_distilled(soft, image_set(30), PLAIN, networks=("convnet1",), width=8, runs=1)
    assert scores.mean["convnet1"] == 100


@pytest.fixture
def groups(monkeypatch):
    """What was trained together: the images of each network before, its weights after."""
    trained = []
    train = evaluator.train_together

    def spy(nets, images, *args, **options):
        train(nets, images, *args, **options)
        trained.append((images, [weights(net) for net in nets]))

    monkeypatch.setattr(evaluator, "train_together", spy)
    return trained


@pytest.mark.parametrize(("at_once", "sizes"), [(2, [2, 1]), (3, [3]), (9, [3])])
@pytest.mark.parametrize("of", ["hard labels", "soft labels", "random", "whole"])
def test_networks_trained_at_once_score_as_one_after_another(groups, of, at_once, sizes):
    protocol = replace(PROTOCOLS["idc"], epochs=5, batch=5, lr=0.005)
    options = {"networks": ("convnet1", "alexnet"), "width": 4, "runs": 3}

    def judged(at_once):
        events = []
        options["events"] = lambda name, **fields: events.append((name, fields))
        if of in ("random", "whole"):
            options["images_per_class"] = 2 if of == "random" else None
            train = image_set(12, seed=3, name="stripes train")
            return evaluate_real(train, image_set(30), protocol, **options, at_once=at_once), events
        distilled = distilled_set(**({"labels": SOFT} if of == "soft labels" else {}))  # pyright: ignore
        return evaluate_distilled(distilled, image_set(30), protocol, **options, at_once=at_once), events

    one_by_one = judged(1)
    assert [len(nets) for _, nets in groups] == [1] * 6
    alone = [net for _, nets in groups for net in nets]
    groups.clear()
    assert judged(at_once) == one_by_one
    assert [len(nets) for _, nets in groups] == sizes * 2
    for one, other in zip((net for _, nets in groups for net in nets), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert len(set(one_by_one[0].accuracies["convnet1"])) > 1  # so that an order can be seen
    if of != "random":
        assert all(own is images[0] for images, _ in groups for own in images)


def test_a_whole_set_is_trained_on_in_uint8_and_one_network_at_a_time_on_the_cpu(groups):
    train = image_set(12)
    options = {"images_per_class": None, "networks": ("convnet1",), "width": 8, "runs": 2}
    evaluate_real(train, image_set(6), replace(PLAIN, epochs=1), **options)
    assert [len(nets) for _, nets in groups] == [1, 1]
    assert all(own is train.images for images, _ in groups for own in images)


class Constant(nn.Module):
    """Says class 2 to bright images and class 0 to others, and counts its batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        bright = (images.mean((1, 2, 3)) > 0).float()
        return torch.stack([1 - bright, torch.zeros_like(bright), bright], 1)


def test_accuracy_is_the_percentage_over_all_batches(monkeypatch):
    monkeypatch.setattr(evaluator, "TEST_BATCH", 4)
    images = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    images[:3] = 255
    labels = torch.tensor([2, 2, 0, 0, 0, 0, 0, 1, 1, 2])
    test = ImageSet(images, labels, ("a", "b", "c"), (0.5,), (0.5,), name="test")
    net = Constant()
    assert accuracy(net, test) == 60.0
    assert net.batches == [4, 4, 2]
    assert accuracy(net, test, mean=(2.0,), std=(0.5,)) == 60.0 - 20.0 + 10.0  # now nothing is bright


def scores_of(values, **changes):
    fields = {
        "name": "s",
        "method": "idc",
        "images_per_class": 1,
        "views": 40,
        "bytes": 7870,
        "protocol": PROTOCOLS["quick"],
        "width": 32,
        "seed": 0,
        "test": "s test",
        "test_images": 100,
        "updates": 300,
        "accuracies": values,
    }
    return Scores(**{**fields, **changes})


def test_spread_is_the_sample_standard_deviation():
    scores = scores_of({"convnet3": (50.0, 52.0, 57.0), "vit": (30.0, 30.0, 33.0)})
    assert scores.mean == {"convnet3": 53.0, "vit": 31.0}
    assert scores.std["convnet3"] == pytest.approx(13**0.5)  # (9 + 1 + 16) / 2
    assert scores.std["vit"] == pytest.approx(3**0.5)
    assert scores.runs == 3
    assert scores_of({"convnet3": (50.0,)}).std == {"convnet3": 0.0}


def test_to_dict_holds_everything_and_json_holds_it():
    scores = scores_of({"convnet3": (50.0, 52.0)})
    row = json.loads(json.dumps(scores.to_dict()))
    assert row == scores.to_dict()
    assert row["protocol"] == "quick"
    assert row["protocol_settings"]["batch"] == 64
    assert row["networks"]["convnet3"] == {
        "accuracies": [50.0, 52.0],
        "mean": 51.0,
        "std": pytest.approx(2**0.5),
    }
    assert (row["runs"], row["views"], row["bytes"], row["images_per_class"]) == (2, 40, 7870, 1)


def test_distilled_scores_describe_the_set():
    grid = torch.tensor([[[0.0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]]])
    distilled = distilled_set(parameterization=Crops(grid, (8, 8)))
    scores = evaluate_distilled(
        distilled, image_set(6), replace(PLAIN, epochs=1), networks=("convnet1",), width=4, runs=1
    )
    assert scores.views == 24
    assert scores.images_per_class == 2
    assert scores.bytes == distilled.bytes["total"]
    assert (scores.name, scores.method, scores.test) == ("stripes", "random", "stripes test")


@pytest.mark.parametrize("at_once", [1, 2])
def test_random_real_images_are_drawn_afresh_each_run(monkeypatch, at_once):
    drawn = []

    def spy(nets, images, targets, *args, **options):
        drawn.extend(Batch(own, rows.argmax(1)) for own, rows in zip(images, targets, strict=True))

    monkeypatch.setattr(evaluator, "train_together", spy)
    train = image_set(60, name="stripes train")
    options = {"images_per_class": 4, "networks": ("convnet1", "alexnet"), "width": 4, "runs": 2}
    scores = evaluate_real(train, image_set(30), PLAIN, **options, at_once=at_once)
    assert all(views.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 for views in drawn)
    assert not torch.equal(drawn[0].images, drawn[1].images)
    assert torch.equal(drawn[0].images, drawn[2].images)  # both networks of a run see the same images
    originals = normalize(train.images.float() / 255, MEAN, STD)
    for views in drawn:
        for image, label in zip(views.images, views.labels, strict=True):
            matches = (originals == image).flatten(1).all(1).nonzero().flatten()
            assert train.labels[matches].tolist() == [int(label)]
        assert len(views.images.flatten(1).unique(dim=0)) == 12
    assert (scores.method, scores.images_per_class, scores.views) == ("random", 4, 12)
    assert scores.bytes == 12 * (64 + 1)


def test_the_whole_set_is_cut_at_its_own_number_of_updates():
    train = image_set(60, name="stripes train")
    protocol = replace(PLAIN, batch=16, whole_updates=30)
    scores = evaluate_real(
        train, image_set(30), protocol, images_per_class=None, networks=("convnet1",), width=8, runs=1
    )
    assert (scores.method, scores.images_per_class, scores.views, scores.updates) == ("whole set", None, 60, 30)
    assert scores.bytes == 60 * (64 + 1)
    assert scores.mean["convnet1"] == 100
    few = evaluate_real(train, image_set(30), protocol, images_per_class=20, networks=("convnet1",), width=8, runs=1)
    assert few.updates == 30 * 4


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_loss_that_is_not_finite_stops_with_network_run_and_update(at_once):
    protocol = replace(PLAIN, lr=1e30)
    options = {"networks": ("alexnet",), "width": 4, "runs": 2, "at_once": at_once}
    with pytest.raises(DistilError, match=r"^alexnet, run 1 of 2: the loss is (nan|inf) at update [2-9] of 30\. .*lr="):
        evaluate_distilled(distilled_set(), image_set(6), protocol, **options)


@pytest.mark.parametrize(("at_once", "call"), [(1, 3 * 30 + 3), (2, 2 * 30 + 3 * 2 + 1), (5, 3 * 5 + 3)])
def test_a_bad_loss_names_its_run_however_many_are_trained_at_once(monkeypatch, at_once, call):
    calls = []

    def poison(images, targets, *args, **options):
        calls.append(1)
        return (images * float("nan") if len(calls) == call + 1 else images), targets

    monkeypatch.setattr(training, "cutmix", poison)
    options = {"networks": ("convnet1",), "width": 4, "runs": 5, "at_once": at_once}
    with pytest.raises(DistilError, match=r"^convnet1, run 4 of 5: the loss is nan at update 4 of 30"):
        evaluate_distilled(distilled_set(), image_set(6), PLAIN, **options)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (image_set(6, classes=("above", "below", "center")), "class 2 is 'center' against 'middle'"),
        (image_set(6, size=12), "12 x 12 pixels .* the distilled set of stripes has 8 x 8"),
        (
            ImageSet(
                stripes(6)[0].expand(6, 3, 8, 8), stripes(6)[1], ("above", "below", "middle"), MEAN * 3, STD * 3, "c"
            ),
            r"c has 3 channels \(color\) but the distilled set of stripes has 1 channel",
        ),
    ],
)
def test_a_test_set_of_another_kind_is_refused(test, message):
    with pytest.raises(DistilError, match=message):
        evaluate_distilled(distilled_set(), test, PLAIN)
    if test.size == (12, 12):
        with pytest.raises(DistilError, match="the training set stripes train"):
            evaluate_real(image_set(6, name="stripes train"), test, PLAIN, images_per_class=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "runs is 0: at least 1"),
        ({"at_once": 0}, "at_once is 0: at least 1"),
        ({"networks": ()}, "networks is empty: name at least one"),
        ({"networks": ("convnet3", "resnet19")}, r"unknown network 'resnet19'. Did you mean resnet1[08]\?"),
        ({"networks": ("convnet3", "convnet3")}, "convnet3 is named twice"),
        ({"width": 0}, "width 0: it must be at least 1"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(DistilError, match=message):
        evaluate_distilled(distilled_set(), image_set(6), PLAIN, **options)


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "images_per_class is 0: ask for at least 1"), (7, "class 'above' of stripes test has 6 images, 7 were asked")],
)
def test_more_real_images_than_there_are(count, message):
    with pytest.raises(DistilError, match=message):
        evaluate_real(image_set(18), image_set(6), PLAIN, images_per_class=count)
