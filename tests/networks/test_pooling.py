"""AveragePool equals torch's pool, in values and in first and second derivatives."""

import pytest
import torch
from torch.nn.functional import avg_pool2d

from distil.networks.pooling import AveragePool


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (7, 9), (6, 4), (3, 2)])
def test_it_equals_torchs_pool(size):
    maps = torch.randn(3, 5, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(AveragePool()(maps), avg_pool2d(maps, 2), rtol=0, atol=1e-6)
    strided = maps.permute(0, 1, 3, 2)
    torch.testing.assert_close(AveragePool()(strided), avg_pool2d(strided, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(6, 4), (5, 7)])
def test_its_derivatives_are_those_of_the_mean(size):
    maps = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(AveragePool(), (maps,))
    assert torch.autograd.gradgradcheck(lambda x: AveragePool()(x).square(), (maps,))


def test_it_keeps_the_precision_of_its_input():
    maps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    pooled = AveragePool()(maps)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), avg_pool2d(maps.float(), 2), rtol=1e-2, atol=1e-2)
