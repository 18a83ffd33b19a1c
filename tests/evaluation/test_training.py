import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from distil.data.images.image_set import ImageSet
from distil.errors import DistilError
from distil.evaluation import training
from distil.evaluation.evaluator import accuracy
from distil.evaluation.protocols import PROTOCOLS
from distil.evaluation.training import probabilities, train_network, train_together
from distil.functional.augment import normalize
from distil.networks import build_network
from distil.types import Batch

from .conftest import MEAN, PLAIN, STD, stripes, weights


def convnet(seed=0, classes=3):
    return build_network("convnet1", channels=1, size=(8, 8), classes=classes, width=8, seed=seed)


def fit(net, views, protocol=PLAIN, *, seed=0, classes=3, **options):
    return train_network(net, views, protocol, mean=MEAN, std=STD, seed=seed, device="cpu", classes=classes, **options)


def real_batch(count=12):
    images, labels = stripes(count)
    return Batch(images.float() / 255, labels)


def test_the_global_generator_is_neither_read_nor_moved():
    before = torch.random.get_rng_state()
    fit(convnet(), real_batch(), replace(PROTOCOLS["idc"], epochs=2))
    assert torch.equal(torch.random.get_rng_state(), before)


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

    monkeypatch.setattr(training, "augment", spy)
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


def test_soft_labels_are_learned_as_they_are():
    views = real_batch()
    hard = fit(convnet(), views)
    rows = nn.functional.one_hot(views.labels, 3).float()
    assert torch.equal(weights(fit(convnet(), Batch(views.images, rows))), weights(hard))
    uniform = fit(convnet(), Batch(views.images, torch.full((12, 3), 1 / 3)), replace(PLAIN, epochs=60))
    learned = uniform((views.images - 0.4) / 0.3).softmax(1)
    assert torch.allclose(learned, torch.full((12, 3), 1 / 3), atol=0.02)


def test_the_update_of_a_bad_loss_is_exact(monkeypatch):
    calls = []

    def poison(images, targets, *args, **options):
        calls.append(1)
        return (images * float("nan") if len(calls) == 73 else images), targets

    monkeypatch.setattr(training, "cutmix", poison)
    with pytest.raises(DistilError, match="the network: the loss is nan at update 73 of 120"):
        fit(convnet(), real_batch(), replace(PLAIN, epochs=120))


def test_weights_that_are_lost_in_the_last_update_are_noticed():
    with pytest.raises(DistilError, match="weights are not finite after update 1 of 1"):
        fit(convnet(), real_batch(), replace(PLAIN, epochs=1, lr=float("inf")))


# ------------------------------------------------------------------------------------------------ several at once


def together(nets, images, targets, protocol, updates, names="abc"):
    seeds = range(7, 7 + len(nets))
    train_together(
        nets, images, targets, protocol, mean=MEAN, std=STD, seeds=seeds, updates=updates, names=names[: len(nets)]
    )
    return [weights(net) for net in nets]


def one_by_one(nets, images, targets, protocol, updates):
    trained = []
    for index, net in enumerate(nets):
        options = {"mean": MEAN, "std": STD, "seeds": [7 + index], "updates": updates, "names": ["one"]}
        train_together([net], [images[index]], [targets[index]], protocol, **options)
        trained.append(weights(net))
    return trained


def convnets(count=3):
    return [convnet(seed) for seed in range(count)]


@pytest.mark.parametrize("labels", ["hard", "soft"])
@pytest.mark.parametrize("kind", ["convnet3", "resnet10", "resnet18", "vgg11", "alexnet", "densenet121", "vit"])
def test_networks_trained_together_end_as_each_alone(kind, labels):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(7, 1, 16, 16, generator=generator, dtype=torch.float64) for _ in range(3)]
    drawn = [torch.randn(7, 3, generator=generator).softmax(1) for _ in range(3)]
    targets = [probabilities(rows.argmax(1) if labels == "hard" else rows, 3).double() for rows in drawn]
    nets = [build_network(kind, channels=1, size=(16, 16), classes=3, width=4, seed=seed).double() for seed in range(3)]
    fresh = [weights(net) for net in nets]
    protocol = replace(PROTOCOLS["idc"], batch=3)  # an epoch is 3, 3 and 1 images

    alone = one_by_one(deepcopy(nets), images, targets, protocol, 4)
    for one, other, before in zip(together(nets, images, targets, protocol, 4), alone, fresh, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
        assert (one - before).abs().max() > 1e-4


def test_networks_trained_together_may_share_one_uint8_tensor():
    images, labels = stripes(10)
    targets, protocol = [probabilities(labels, 3)] * 3, replace(PROTOCOLS["idc"], batch=4)
    alone = one_by_one(convnets(), [normalize(images.float() / 255, MEAN, STD)] * 3, targets, protocol, 4)
    for one, other in zip(together(convnets(), [images] * 3, targets, protocol, 4), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("poisoned", "named"),
    [([(1, 73)], "b: the loss is nan at update 73 of 120"), ([(2, 55), (1, 73)], "b: the loss is nan at update 73")],
)
def test_a_bad_loss_among_several_names_its_own_network(monkeypatch, poisoned, named):
    calls = []

    def poison(images, targets, *args, **options):
        update, network = divmod(len(calls), 3)
        calls.append(1)
        return (images * float("nan") if (network, update + 1) in poisoned else images), targets

    monkeypatch.setattr(training, "cutmix", poison)
    views = real_batch()
    with pytest.raises(DistilError, match=f"^{named}"):
        together(convnets(), [views.images] * 3, [probabilities(views.labels, 3)] * 3, PLAIN, 120)


def test_lost_weights_among_several_name_their_own_network():
    views = real_batch()
    images = [views.images, views.images * 1e6, views.images]
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for _ in range(3)]
    for net in nets:
        nn.init.zeros_(net[1].weight)  # pyright: ignore[reportArgumentType]
    protocol = replace(PLAIN, lr=1e34, milestones=())  # finite times a gradient of 1, not of 1e6
    with pytest.raises(DistilError, match=r"^b: weights are not finite after update 1 of 1\."):
        together(nets, images, [probabilities(views.labels, 3)] * 3, protocol, 1)


RDED = replace(PROTOCOLS["rded"], batch=6, resized_crop=0.0, strategy="none", cutmix=0.0)


def test_adamw_equals_torch_written_out():
    protocol = replace(RDED, epochs=5, batch=12, weight_decay=0.3)
    views, net, reference = real_batch(), convnet(), convnet()
    fit(net, views, protocol)
    vectors = [param for param in reference.parameters() if param.ndim == 1]
    weighty = [param for param in reference.parameters() if param.ndim > 1]
    groups = [{"params": weighty}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.3)
    for update in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * update / 5 / 2))
        optimizer.zero_grad()
        nn.functional.cross_entropy(reference((views.images - 0.4) / 0.3), views.labels).backward()
        optimizer.step()
    for (name, mine), theirs in zip(net.named_parameters(), reference.parameters(), strict=True):
        if name != "features.0.bias":  # whose gradient is rounding, since instance norm takes it away
            assert torch.allclose(mine, theirs, atol=1e-5), name


def normed(seed: int = 0):
    return build_network("resnet18_bn", channels=1, size=(8, 8), classes=3, width=2, seed=seed)


@pytest.mark.parametrize("protocol", [replace(PLAIN, epochs=2, batch=6), replace(RDED, epochs=2)])
def test_batch_norms_trained_together_keep_their_own_statistics(protocol):
    images, labels = stripes(12)
    inputs, targets = normalize(images.float() / 255, MEAN, STD), probabilities(labels, 3)
    alone, together = [normed(seed) for seed in (0, 1)], [normed(seed) for seed in (0, 1)]
    options = {"mean": MEAN, "std": STD, "updates": 4}
    for seed, net in enumerate(alone):
        train_together([net], [inputs], [targets], protocol, seeds=[seed], names=["one"], **options)
    train_together(together, [inputs] * 2, [targets] * 2, protocol, seeds=[0, 1], names=["a", "b"], **options)
    for one, other in zip(alone, together, strict=True):
        for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.allclose(mine, theirs, atol=2e-3), name
        statistics = dict(one.named_buffers())
        assert statistics["features.1.num_batches_tracked"] == 4
        assert statistics["features.1.running_mean"].abs().max() > 0
    first, second = (dict(net.named_buffers())["features.1.running_mean"] for net in alone)
    assert not torch.allclose(first, second)


def test_batch_norms_are_tested_in_eval_mode():
    images, labels = stripes(12)
    test = ImageSet(images, labels, ("a", "b", "c"), MEAN, STD, "stripes")
    net = normed()
    fit(net, real_batch(), replace(PLAIN, epochs=3, batch=6))
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    scored = accuracy(net, test)
    assert net.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    logits = net.eval()(normalize(images.float() / 255, MEAN, STD))
    assert scored == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
