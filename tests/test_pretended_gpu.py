"""What a GPU would run, watched on the CPU: every tensor of a call lies where the others do."""

from dataclasses import replace

import pytest
import torch

from distil import (
    Architecture,
    adapt,
    build_detector,
    detector_preset,
    distil_dataset,
    evaluate_distilled,
    evaluate_real,
    open_detection,
    open_source,
    preflight,
    preset,
    protocol_for,
    train_detector,
)
from distil.dataset.proxies import trained_proxy
from distil.detector import preflight as looking
from distil.detector.adapters import freeze
from distil.detector.gkd.generation import generate_prototypes
from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.presets import student_preset
from distil.detector.training import train as training
from distil.detector.training.setup import make_losses
from distil.fields import with_values
from distil.processes import make_fabric
from tests.dataset.conftest import changed_where, loop_of
from tests.detector.tiny import scripted
from tests.pretended_gpu import CPU, GPU, WrongDevice, place_of, pretended_gpu

# ------------------------------------------------------------------------------------------------- the device itself


def test_tensors_are_where_they_were_made_or_moved():
    with pretended_gpu():
        here, there = torch.ones(2), torch.ones(2, device="cuda")
        assert (place_of(here), place_of(there)) == (CPU, GPU)
        assert here.device == CPU
        assert there.device == GPU
        assert there.is_cuda
        assert place_of(here.to("cuda")) == GPU
        assert place_of(here) == CPU
        assert place_of(there.cpu()) == CPU
        assert place_of(there.double()[:1] * 2) == GPU
        assert place_of(torch.zeros_like(there)) == GPU
        layer = torch.nn.Linear(2, 1)
        assert place_of(layer.weight) == CPU
        assert place_of(layer.to("cuda").weight) == GPU
        assert place_of(layer(there)) == GPU


WRONG = {
    "a sum": lambda here, there: here + there,
    "a product": lambda here, there: there @ here,
    "a list": lambda here, there: torch.cat([here, there]),
    "an index": lambda here, there: here[there.long()],
    "numpy": lambda here, there: there.numpy(),
    "a generator": lambda here, there: torch.rand(2, device="cuda", generator=torch.Generator()),
    "a layer": lambda here, there: torch.nn.Linear(2, 1)(there),
}


@pytest.mark.parametrize("name", WRONG)
def test_two_places_in_a_call_are_refused(name):
    with pretended_gpu():
        here, there = torch.ones(2), torch.ones(2, device="cuda")
        with pytest.raises(WrongDevice):
            WRONG[name](here, there)


def test_waits_are_counted():
    with pretended_gpu() as gpu:
        here, there = torch.ones(2), torch.ones(2, device="cuda")
        (here.tolist(), here[here > 0], there + 1, there[here.long()])
        assert not gpu.waits
        (there.tolist(), there[there > 0], there.cpu(), there.to("cpu"), bool(there[0] > 0))
        assert gpu.waits == {"tolist": 1, "__getitem__": 1, "cpu": 1, "to": 1, "__bool__": 1}


def test_what_a_gpu_takes_is_taken():
    with pretended_gpu():
        here, there = torch.ones(2), torch.ones(2, device="cuda")
        assert (there * torch.tensor(2.0)).tolist() == [2, 2]
        assert there[here.long()].tolist() == [1, 1]
        assert here.copy_(there).device == CPU
        torch.autograd.grad(there.requires_grad_().square().sum(), there)


# ---------------------------------------------------------------------------------------------------- distilled sets

TINY = {"width": 8, "outer": 2, "inner": 2, "batch": 16, "network_samples": 64, "proxy_steps": 3}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("random", {}),
        ("herding", {"network_epochs": 1}),
        ("k-center", {"network_epochs": 1}),
        ("k-means", {"network_epochs": 1}),
        ("dc", {}),
        ("dsa", {}),
        ("dm", {}),
        ("idc", {}),
        ("idc", {"target_reuse": 2, "gradient_scale": "item", "bfloat16": "real_network_synthetic"}),
        ("udd", {"refresh": 1, "freeze": 0.0}),
        ("udd-jitter", {}),
        ("udd-windows", {"refresh": 1, "windows_start": 0.0}),
    ],
)
def test_a_set_is_made_and_judged(method, changes):
    with pretended_gpu() as gpu:
        source = open_source("digits")
        settings = changed_where(preset(method, "digits", 1), **(TINY | changes))
        made = distil_dataset(source.train, settings, device="cuda")
        assert gpu.calls > 10
        before = gpu.calls
        protocol = replace(protocol_for("quick", "digits"), epochs=2, max_updates=2)
        evaluate_distilled(made, source.test, protocol, width=8, runs=2, device="cuda")  # pyright: ignore
        assert gpu.calls > before + 100


@pytest.mark.parametrize("method", ["dc", "dm", "idc", "udd", "udd-windows"])
def test_a_matching_step_waits_for_nothing(method):
    with pretended_gpu() as gpu:
        real = open_source("digits").train.to("cuda")
        small = TINY | {"outer": 1, "inner": 4, "windows_start": 0.5}
        settings = changed_where(preset(method, "digits", 1), **small)
        proxy = trained_proxy("convnet3", 8, real, 2, device="cuda", seed=0) if method.startswith("udd") else None
        loop, waits = loop_of(real, settings, proxy), []
        while loop.done < loop.steps:
            loop.step()
            waits.append(sum(gpu.waits.values()))
            gpu.waits.clear()
    assert len(waits) == 4
    assert waits[1:].count(0) >= (3 if method != "udd-windows" else 2), waits  # windows are chosen once


@pytest.mark.parametrize("at_once", [None, 1])
def test_every_network_is_judged(at_once):
    with pretended_gpu() as gpu:
        source = open_source("digits")
        protocol = replace(protocol_for("quick", "digits"), epochs=1, max_updates=1)
        networks = ("convnet3", "resnet10", "vgg11", "vit")
        options = {"images_per_class": 1, "networks": networks, "width": 8, "runs": 2, "at_once": at_once}
        evaluate_real(source.train, source.test, protocol, device="cuda", **options)  # pyright: ignore
        assert gpu.calls > 1000


# --------------------------------------------------------------------------------------------------------- detectors


def small(kind, data, teacher):
    fields = student_preset(kind, "scenes", teacher=teacher) | {"min_size": 64, "max_size": 64, "proposals": 30}
    return Architecture(classes=data.classes, **fields)  # pyright: ignore[reportArgumentType]


def fabric_of(device, precision, make=make_fabric):
    """A Fabric of the CPU that takes the pretended GPU for its own."""
    fabric = make("cpu", precision)
    if torch.device(device).type == "cuda":
        fabric._strategy._root_device = GPU
        fabric._accelerator.setup_device = lambda device: None
    return fabric


@pytest.mark.parametrize(
    ("kind", "losses", "changes"),
    [
        ("retinanet", "gkd,mse,pkd,fgd,mgd,defeat,response,crosskd", {}),
        ("retinanet", "gkd", {"prototype_features": "fresh", "global_levels": "own", "projection": "ridge"}),
        ("faster-rcnn", "gkd,fgd,mgd,response", {}),
        ("fcos", "gkd,response", {}),
    ],
)
def test_a_student_is_looked_at_taught_and_measured(kind, losses, changes, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "make_fabric", fabric_of)
    monkeypatch.setattr(looking, "make_fabric", fabric_of)
    with pretended_gpu() as gpu:
        data = open_detection("scenes:8")
        student, teacher = (small(kind, data.train, which) for which in (False, True))
        settings = detector_preset("gkd", "scenes")
        settings = with_values(settings, loss=losses, epochs=2, batch=8, evaluate_every=2, **changes)
        taught = {"teacher": adapt(build_detector(teacher, seed=0)), "measure": scripted(20.0, 20.0), "device": "cuda"}
        found = preflight(student, data=data.train, settings=settings, images=4, repeats=1, **taught)
        assert "gkd.global" in found.losses
        before = gpu.calls
        train_detector(student, data.train, settings, out=tmp_path, validation=data.val, **taught)
        assert gpu.calls > before + 1000


@pytest.mark.parametrize(
    ("kind", "method", "losses"),
    [
        ("retinanet", "gkd", "gkd"),
        ("faster-rcnn", "gkd", "gkd"),
        ("fcos", "gkd", "gkd"),
        ("retinanet", "gkd-published", "gkd,pkd,fgd,defeat,crosskd"),
        ("faster-rcnn", "gkd-published", "gkd,pkd,fgd,defeat"),
        ("fcos", "gkd-published", "gkd,crosskd"),
    ],
)
def test_the_losses_of_a_teacher_wait_for_nothing(kind, method, losses):
    with pretended_gpu() as gpu:
        data = open_detection("scenes:8").train
        settings = with_values(detector_preset(method, "scenes"), loss=losses)
        student, teacher = (adapt(build_detector(small(kind, data, which), seed=0)) for which in (False, True))
        freeze(teacher)
        parts, _ = make_losses(student, teacher, None, data, settings)
        for module in (student.model, teacher.model, parts):
            module.to("cuda")
        gkd = parts["gkd"]
        assert isinstance(gkd, GlobalKnowledge)
        gkd.use(generate_prototypes(student, teacher, data, settings.distillation.prototypes).to("cuda"))
        student.model.train()
        targets = [data.annotations(index) for index in range(4)]
        objects = [{"boxes": some.boxes.to("cuda"), "labels": some.labels.to("cuda")} for some in targets]
        view = student.view([data.image(index) / 255 for index in range(4)], objects, seeds=range(4))
        trace = student.trace(view)
        with torch.no_grad():
            taught = teacher.trace(teacher.restyle(view), regions=trace)
        gpu.waits.clear()
        values = {name: x for part in parts.values() for name, x in part(trace, taught, view, 0.0).items()}
        torch.stack(list(values.values())).sum().backward()
        assert {"gkd.global", "gkd.foreground", "gkd.background", "gkd.soft"} <= values.keys()
        assert not gpu.waits
