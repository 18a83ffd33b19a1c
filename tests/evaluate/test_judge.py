import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from distil.dataset.artifact import DistilledSet
from distil.errors import DistilError
from distil.evaluate import judge
from distil.evaluate.judge import Scores, accuracy, evaluate_distilled, evaluate_real, train_network
from distil.evaluate.protocols import PROTOCOLS
from distil.models import build_network
from distil.sources.images import ImageSet
from distil.types import Batch

PLAIN = replace(PROTOCOLS["quick"], name="plain", epochs=30, strategy="none", cutmix=0.0, lr=0.05, weight_decay=0.0)
MEAN, STD = (0.4,), (0.3,)


def stripes(count=20, size=8, seed=0):
    """Three classes that anyone can tell apart: bright above, bright below, bright in the middle; a little noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.rand(count, 1, size, size, generator=generator) * 0.2
    third = size // 3
    for image, label in zip(images, labels, strict=True):
        start = (0, size - third, third)[int(label)]
        image[:, start : start + third] += 0.7
    return (images * 255).to(torch.uint8), labels


def image_set(count=20, size=8, seed=0, classes=("above", "below", "middle"), name="stripes test"):
    images, labels = stripes(count, size, seed)
    return ImageSet(images, labels, classes, MEAN, STD, name=name)


def distilled_set(size=8, **changes):
    images, labels = stripes(6, size, seed=5)
    fields = {
        "canvases": images,
        "labels": labels,
        "regions": torch.tensor([[[0.0, 0.0, size, size]]]),
        "classes": ("above", "below", "middle"),
        "mean": MEAN,
        "std": STD,
        "view_size": (size, size),
        "method": "random",
        "settings": {},
        "seed": 0,
        "source": "stripes",
        "source_fingerprint": "0" * 64,
    }
    return DistilledSet(**{**fields, **changes})


def convnet(seed=0, classes=3):
    return build_network("convnet1", channels=1, size=(8, 8), classes=classes, width=8, seed=seed)


def fit(net, views, protocol=PLAIN, *, seed=0, classes=3, **options):
    return train_network(net, views, protocol, mean=MEAN, std=STD, seed=seed, device="cpu", classes=classes, **options)


def real_batch(count=12):
    images, labels = stripes(count)
    return Batch(images.float() / 255, labels)


def weights(net):
    return torch.cat([param.detach().flatten() for param in net.parameters()])


def test_separable_images_are_learnt_to_the_last():
    scores = evaluate_distilled(distilled_set(), image_set(30), PLAIN, networks=("convnet1",), width=8, runs=2)
    assert scores.accuracies == {"convnet1": (100.0, 100.0)}
    assert scores.updates == 30
    assert scores.views == 6


@pytest.mark.parametrize("name", ["idc", "dc", "quick"])
def test_the_named_protocols_learn(name):
    protocol = replace(PROTOCOLS[name], epochs=60, lr=0.05, strategy="color_crop_scale_rotate")
    scores = evaluate_distilled(distilled_set(), image_set(30), protocol, networks=("convnet1",), width=8, runs=1)
    assert scores.mean["convnet1"] > 60  # chance is 33


def test_equal_seeds_give_equal_scores_and_other_seeds_other_networks():
    protocol = replace(PROTOCOLS["quick"], epochs=3)
    events = []

    def record(seed):
        nets = []
        train = judge._fit

        def spy(net, *args, **options):
            train(net, *args, **options)
            nets.append(weights(net))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(judge, "_fit", spy)
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


def test_the_global_generator_is_neither_read_nor_moved():
    before = torch.random.get_rng_state()
    fit(convnet(), real_batch(), replace(PROTOCOLS["idc"], epochs=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_network_is_tested_once_after_its_last_update(monkeypatch):
    calls = []

    def spy(net, test, **_):
        calls.append(weights(net))
        return 50.0 - len(calls)  # falls: a judge that keeps the best would show it

    monkeypatch.setattr(judge, "accuracy", spy)
    scores = evaluate_distilled(distilled_set(), image_set(30), PLAIN, networks=("convnet1",), width=8, runs=3)
    assert scores.accuracies["convnet1"] == (49.0, 48.0, 47.0)


def test_training_equals_torch_sgd_written_out():
    protocol = replace(PLAIN, epochs=9, batch=12, weight_decay=5e-4, milestones=(1 / 3, 2 / 3), gamma=0.1)
    views, net, reference = real_batch(), convnet(), convnet()
    fit(net, views, protocol)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6], gamma=0.1)
    for _ in range(9):  # one batch holds the whole set, so that its order does not matter
        optimizer.zero_grad()
        nn.functional.cross_entropy(reference((views.images - 0.4) / 0.3), views.labels).backward()
        optimizer.step()
        schedule.step()
    assert torch.allclose(weights(net), weights(reference), atol=1e-5)
    assert not torch.allclose(weights(net), weights(convnet()), atol=1e-3)


def test_every_image_comes_once_an_epoch_in_a_new_order(monkeypatch):
    seen = []

    def spy(images, *args, **options):
        seen.append(images[:, 0, 0, 0].clone())
        return images

    monkeypatch.setattr(judge, "augment", spy)
    images = torch.arange(10).view(10, 1, 1, 1).expand(10, 1, 8, 8) / 10
    fit(convnet(), Batch(images, torch.arange(10) % 3), replace(PLAIN, epochs=2, batch=4))
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, second.sort().values)
    assert len(first.unique()) == 10
    assert not torch.equal(first, second)


def test_augmentation_and_cutmix_change_training_and_none_does_not():
    def trained(**changes):
        return weights(fit(convnet(), real_batch(), replace(PLAIN, epochs=2, **changes)))

    plain = trained()
    assert torch.equal(plain, trained(one=True))  # without operations there is nothing to combine
    assert not torch.equal(plain, trained(strategy="crop"))
    assert not torch.equal(plain, trained(cutmix=1.0))


def test_soft_labels_are_learnt_as_they_are():
    views = real_batch()
    hard = fit(convnet(), views)
    rows = nn.functional.one_hot(views.labels, 3).float()
    assert torch.equal(weights(fit(convnet(), Batch(views.images, rows))), weights(hard))
    uniform = fit(convnet(), Batch(views.images, torch.full((12, 3), 1 / 3)), replace(PLAIN, epochs=60))
    probabilities = uniform((views.images - 0.4) / 0.3).softmax(1)
    assert torch.allclose(probabilities, torch.full((12, 3), 1 / 3), atol=0.02)
    soft = distilled_set(labels=torch.eye(3)[stripes(6)[1]] * 0.7 + 0.1)
    scores = evaluate_distilled(soft, image_set(30), PLAIN, networks=("convnet1",), width=8, runs=1)
    assert scores.mean["convnet1"] == 100


def test_a_whole_set_trains_in_uint8_as_it_would_in_float(monkeypatch):
    nets = []
    fit_one = judge._fit

    def spy(net, images, targets, protocol, **options):
        twin = convnet()
        twin.load_state_dict(net.state_dict())
        assert images.dtype == torch.uint8
        fit_one(net, images, targets, protocol, **options)
        fit_one(twin, images.float() / 255, targets, protocol, **options)
        nets.append((weights(net), weights(twin)))

    monkeypatch.setattr(judge, "_fit", spy)
    protocol = replace(PLAIN, epochs=3)
    evaluate_real(image_set(12), image_set(6), protocol, images_per_class=None, networks=("convnet1",), width=8, runs=1)
    assert torch.allclose(*nets[0], atol=1e-6)


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
    monkeypatch.setattr(judge, "TEST_BATCH", 4)
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
    distilled = distilled_set(regions=grid)
    scores = evaluate_distilled(
        distilled, image_set(6), replace(PLAIN, epochs=1), networks=("convnet1",), width=4, runs=1
    )
    assert scores.views == 24
    assert scores.images_per_class == 2
    assert scores.bytes == distilled.bytes["total"]
    assert (scores.name, scores.method, scores.test) == ("stripes", "random", "stripes test")


def test_random_real_images_are_drawn_afresh_each_run(monkeypatch):
    drawn = []

    def spy(net, images, targets, *args, **options):
        drawn.append(Batch(images, targets.argmax(1)))

    monkeypatch.setattr(judge, "_fit", spy)
    train = image_set(60, name="stripes train")
    options = {"images_per_class": 4, "networks": ("convnet1", "alexnet"), "width": 4, "runs": 2}
    scores = evaluate_real(train, image_set(30), PLAIN, **options)
    assert all(views.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 for views in drawn)
    assert not torch.equal(drawn[0].images, drawn[1].images)
    assert torch.equal(drawn[0].images, drawn[2].images)  # both networks of a run see the same images
    originals = train.images.float() / 255
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


def test_a_loss_that_is_not_finite_stops_with_network_run_and_update():
    protocol = replace(PLAIN, lr=1e30)
    with pytest.raises(DistilError, match=r"^alexnet, run 1 of 2: the loss is (nan|inf) at update [2-9] of 30\. .*lr="):
        evaluate_distilled(distilled_set(), image_set(6), protocol, networks=("alexnet",), width=4, runs=2)


def test_the_update_of_a_bad_loss_is_exact(monkeypatch):
    calls = []

    def poison(images, targets, *args, **options):
        calls.append(1)
        return (images * float("nan") if len(calls) == 73 else images), targets

    monkeypatch.setattr(judge, "cutmix", poison)
    with pytest.raises(DistilError, match="the network: the loss is nan at update 73 of 120"):
        fit(convnet(), real_batch(), replace(PLAIN, epochs=120))


def test_weights_that_are_lost_in_the_last_update_are_noticed():
    with pytest.raises(DistilError, match="weights are not finite after update 1 of 1"):
        fit(convnet(), real_batch(), replace(PLAIN, epochs=1, lr=float("inf")))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (image_set(6, classes=("above", "below", "centre")), "class 2 is 'centre' against 'middle'"),
        (image_set(6, size=12), "12 x 12 pixels .* the distilled set of stripes has 8 x 8"),
        (
            ImageSet(
                stripes(6)[0].expand(6, 3, 8, 8), stripes(6)[1], ("above", "below", "middle"), MEAN * 3, STD * 3, "c"
            ),
            r"c has 3 channels \(colour\) but the distilled set of stripes has 1 channel",
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
        ({"networks": ()}, "no networks"),
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
