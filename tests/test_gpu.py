"""The same results on a GPU, where there is one."""

from dataclasses import replace

import pytest
import torch

from distil import distil_dataset, evaluate_distilled, open_source, preset, protocol_for
from distil.dataset.proxies import trained_proxy
from distil.evaluation import evaluator
from tests.dataset.conftest import changed, changed_where, finished_loop, loop_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

TINY = {"width": 8, "outer": 2, "inner": 2, "batch": 16, "network_samples": 64}


UDD = {"proxy_steps": 5}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("dc", {}),
        ("dsa", {}),
        ("dm", {}),
        ("idc", {}),
        ("udd", UDD),
        ("udd", UDD | {"refresh": 1, "freeze": 0.0}),
        ("udd-jitter", UDD),
        ("udd-windows", UDD | {"refresh": 1, "windows_start": 0.0}),
    ],
)
def test_a_run_on_the_gpu_ends_near_the_one_on_the_cpu(method, changes):
    """Near: apart by a fifth of the way that the parameters have come, on average."""
    real = open_source("digits").train
    settings = changed_where(preset(method, "digits", 1), **(TINY | changes))
    ends = {}
    for device in ("cpu", "cuda"):
        images = real.to(device)
        proxy = trained_proxy("convnet3", 8, images, 5, device=device, seed=0) if method.startswith("udd") else None
        start = loop_of(images, settings, proxy).params.cpu()
        ends[device] = finished_loop(images, settings, proxy).params.cpu()
    moved = (ends["cpu"] - start).abs().mean()
    assert moved > 0
    assert (ends["cuda"] - ends["cpu"]).abs().mean() < 0.2 * moved


def test_the_judge_on_the_gpu_agrees_with_the_cpu():
    source = open_source("digits")
    made = distil_dataset(source.train, preset("random", "digits", 10))
    assert source.test is not None
    protocol = protocol_for("quick", "digits")
    means = [
        evaluate_distilled(made, source.test, protocol, width=16, runs=3, device=device).mean["convnet3"]
        for device in ("cpu", "cuda")
    ]
    assert means[0] == pytest.approx(means[1], abs=3)


def test_the_judge_on_the_gpu_trains_all_runs_at_once_as_it_would_one_after_another(monkeypatch):
    groups = []
    train = evaluator.train_together

    def spy(nets, *args, **options):
        train(nets, *args, **options)
        groups.append([param.detach().cpu() for net in nets for param in net.parameters()])

    monkeypatch.setattr(evaluator, "train_together", spy)
    source = open_source("digits")
    made = distil_dataset(source.train, preset("random", "digits", 10))
    assert source.test is not None
    protocol = replace(protocol_for("quick", "digits"), epochs=2)
    for at_once in (None, 1):
        evaluate_distilled(made, source.test, protocol, width=16, runs=3, device="cuda", at_once=at_once)
    together, *alone = groups
    assert len(alone) == 3
    torch.testing.assert_close(together, [param for params in alone for param in params], rtol=0, atol=1e-3)


def test_memory_stays_flat():
    real = open_source("digits").train.to("cuda")
    loop = loop_of(real, changed(preset("idc", "digits", 1), width=16, outer=4, inner=10, network_samples=64))
    peaks = []
    while loop.done < loop.steps:
        loop.step()
        if loop.done % 10 == 0:
            peaks.append(torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
    assert peaks[-1] <= 1.02 * peaks[1]
