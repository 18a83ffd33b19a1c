"""sgd_step against torch.optim.SGD."""

import pytest
import torch

from distil.functional.optimize import sgd_step


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
def test_equal_to_torch_sgd(momentum, weight_decay):
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    theirs = [p.clone().requires_grad_() for p in ours]
    momenta = [torch.zeros_like(p) for p in ours]
    optimizer = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for _ in range(5):
        grads = [torch.randn(p.shape, generator=generator) for p in ours]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = g.clone()
        optimizer.step()
        kept = [g.clone() for g in grads]
        sgd_step(ours, grads, momenta, lr=0.1, momentum=momentum, weight_decay=weight_decay)
        assert all(torch.equal(a, b) for a, b in zip(grads, kept, strict=True))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b.detach())
