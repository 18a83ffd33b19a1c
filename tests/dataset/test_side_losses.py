"""The class term beside an objective."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from .conftest import loop_of, stage_of, tiny


def class_gradient(loop, net):
    """Gradient of the sum over classes of the mean cross-entropy of the decoded images, and that sum."""
    leaf = loop.params.clone().requires_grad_()
    images = loop.augmentation(loop.placed.decode(leaf), loop.task.real, 0, ("none",))
    views = len(images) // loop.task.classes
    labels = torch.arange(loop.task.classes).repeat_interleave(views)
    each = [cross_entropy(net(images[labels == c]), labels[labels == c]) for c in range(loop.task.classes)]
    loss = torch.stack(each).sum()
    return torch.autograd.grad(loss, leaf)[0], loss


@pytest.mark.parametrize("by_accuracy", [False, True])
@pytest.mark.parametrize("method", ["idm", "udd"])
def test_the_class_term_is_added_with_its_weight_and_the_accuracy_in_percent(real, method, by_accuracy):
    changes = {"augment": "none", "ipc": 2} | ({"policy": "fixed"} if method == "udd" else {})
    alone = loop_of(real, tiny(method, classification="none", **changes))
    weighed = {"classification": "ce", "ce_weight": 0.7, "ce_by_accuracy": by_accuracy}
    both = loop_of(real, tiny(method, **weighed, **changes))
    state = both.networks.fresh(0)
    state.accuracy = 0.4
    found, losses = both.gradient(stage_of(both, state))
    plain, plain_losses = alone.gradient(stage_of(alone, state))
    expected, loss = class_gradient(both, state.net)
    factor = 0.7 * (40 if by_accuracy else 1)
    scale = float(expected.abs().max()) * factor
    assert scale > 0
    torch.testing.assert_close(found - plain, factor * expected, rtol=1e-3, atol=1e-3 * scale)
    torch.testing.assert_close(losses["classification"], loss.detach())
    torch.testing.assert_close(losses["loss"], plain_losses["loss"])


def test_a_network_that_has_not_been_trained_has_no_say(real):
    loop, alone = loop_of(real, tiny("idm")), loop_of(real, tiny("idm", classification="none"))
    state = loop.networks.fresh(0)
    assert state.accuracy == 0
    assert torch.equal(loop.gradient(stage_of(loop, state))[0], alone.gradient(stage_of(alone, state))[0])


def test_the_class_term_asks_the_trained_network_of_a_stage_that_has_one(real):
    settings = {"classification": "ce", "augment": "none", "objective": "feature", "networks": "fresh"}
    loop = loop_of(real, tiny("idc", **settings))
    alone = loop_of(real, tiny("idc", **(settings | {"classification": "none"})))
    state, other = loop.networks.fresh(0), loop.networks.fresh(1)
    plain = alone.gradient(stage_of(alone, state))[0]
    state.trained = other
    found = loop.gradient(stage_of(loop, state))[0] - plain
    expected = class_gradient(loop, other.net)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    wrong = class_gradient(loop, state.net)[0]
    assert float((found - wrong).norm()) > 0.1 * float(wrong.norm())
