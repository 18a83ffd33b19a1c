import json
import random
import resource
import warnings
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d

from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.networks import backbones
from distil.networks.backbones import TimmPyramid, build_backbone, read_weights, replace_norms
from distil.networks.detectors import (
    Architecture,
    architecture_from_dict,
    build_detector,
    load_detector,
    save_detector,
    torchvision_detector,
)

TORCHVISION = {
    "fasterrcnn_resnet50_fpn": ("faster-rcnn", 1),
    "fasterrcnn_resnet50_fpn_v2": ("faster-rcnn", 2),
    "retinanet_resnet50_fpn": ("retinanet", 1),
    "retinanet_resnet50_fpn_v2": ("retinanet", 2),
    "fcos_resnet50_fpn": ("fcos", 1),
}
TINY = Architecture(
    "faster-rcnn",
    "timm:resnet10t",
    ("cat", "dog"),
    channels=64,
    min_size=64,
    max_size=96,
    norm="group",
    anchor=16.0,
    representation=16,
    head_convs=1,
)
MOBILE = "fasterrcnn_mobilenet_v3_large_320_fpn"


def tiny(**changes):
    return replace(TINY, **changes)


@lru_cache
def built(**changes):
    return build_detector(tiny(**changes), seed=0)


def anchors_of(model) -> AnchorGenerator:
    return model.rpn.anchor_generator if hasattr(model, "rpn") else model.anchor_generator


def maps_of(model, side=128):
    model.eval()
    with torch.no_grad():
        return model.backbone(torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", TORCHVISION)
def test_defaults_are_torchvisions_own_detectors(name):
    kind: Any
    kind, version = TORCHVISION[name]
    norm = "batch" if version == 2 or kind == "fcos" else "frozen"
    classes = tuple(str(i) for i in range(90))
    options: dict[str, Any] = {"version": version, "norm": norm}
    ours = build_detector(Architecture(kind, "resnet50", classes, **options), seed=0)
    with torch.device("meta"):
        theirs = models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
    assert type(ours) is type(theirs)
    if norm == "frozen":  # torchvision freezes norms only where it has weights to load
        replace_norms(theirs.to_empty(device="cpu"), "frozen")
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    assert str(ours.transform) == str(theirs.transform)
    ours_anchors, theirs_anchors = anchors_of(ours), anchors_of(theirs)
    assert [list(map(float, sizes)) for sizes in ours_anchors.sizes] == [
        list(map(float, s)) for s in theirs_anchors.sizes
    ]
    assert ours_anchors.aspect_ratios == theirs_anchors.aspect_ratios
    if kind == "retinanet":
        assert ours.head.regression_head._loss_type == theirs.head.regression_head._loss_type  # pyright: ignore
    if kind == "faster-rcnn":
        assert str(ours.roi_heads.box_roi_pool) == str(theirs.roi_heads.box_roi_pool)  # pyright: ignore
    theirs.train()
    sets = [{n for n, p in model.named_parameters() if p.requires_grad} for model in (ours, theirs)]
    assert sets[0] == sets[1]


@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({}, [32, 16, 8, 4, 2]),
        ({"finest": 8}, [16, 8, 4, 2]),
        ({"detector": "retinanet"}, [16, 8, 4, 2, 1]),
        ({"detector": "retinanet", "finest": 4}, [32, 16, 8, 4, 2, 1]),
        ({"detector": "fcos", "finest": 16, "anchor": 32.0}, [8, 4, 2, 1]),
    ],
)
@pytest.mark.parametrize("backbone", ["timm:resnet10t", "mobilenet_v3_small"])
def test_levels_follow_the_finest_stride(changes, sides, backbone):
    model = built(backbone=backbone, **changes)
    maps = maps_of(model)
    assert [x.shape for x in maps.values()] == [(1, 64, side, side) for side in sides]
    if changes.get("detector") != "retinanet":
        first = 16 if changes.get("detector") is None else 8
        assert [size for (size,) in anchors_of(model).sizes] == [first * 2**i for i in range(len(sides))]
    else:
        assert [size[0] for size in anchors_of(model).sizes] == [16 * 2**i for i in range(len(sides))]
        assert anchors_of(model).sizes[0] == (16, 20, 25)
    if not changes.get("detector"):
        assert model.roi_heads.box_roi_pool.featmap_names == [str(i) for i in range(len(sides) - 1)]


def test_labels_of_a_detector_start_after_the_background():
    assert built().roi_heads.box_predictor.cls_score.out_features == 3
    for detector in ("retinanet", "fcos"):
        head = built(detector=detector).head.classification_head
        assert head.num_classes == 3
        assert sum(isinstance(layer, nn.Conv2d) for layer in head.conv.modules()) == 1


def test_weights_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (build_detector(TINY, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["backbone.body.conv1.0.weight"], other["backbone.body.conv1.0.weight"])
    assert not torch.equal(first["roi_heads.box_head.fc6.weight"], other["roi_heads.box_head.fc6.weight"])


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small", "timm:resnet10t", "timm:efficientnet_b0"])
def test_no_batch_norm_is_left_unless_asked_for(backbone):
    arguments = {"channels": 8, "extra": "pool"}
    kinds = {norm: build_backbone(backbone, (8, 16), norm=norm, **arguments) for norm in ("frozen", "group", "batch")}
    found = {
        norm: {
            type(layer)
            for layer in model.modules()
            if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | FrozenBatchNorm2d)
        }
        for norm, model in kinds.items()
    }
    assert found["frozen"] == {FrozenBatchNorm2d}
    assert found["group"] == {nn.GroupNorm}
    assert all(issubclass(kind, nn.BatchNorm2d) for kind in found["batch"])


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "timm:efficientnet_b0"])
def test_frozen_norms_are_the_batch_norms_that_they_were(backbone):
    model = build_backbone(backbone, (8, 16), channels=8, norm="batch", extra="pool").eval()
    generator = torch.Generator().manual_seed(2)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) / 10)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
    images = torch.rand(1, 3, 64, 64, generator=generator)
    with torch.no_grad():
        before = model(images)
        replace_norms(model, "frozen")
        after = model.train()(images)
    assert list(before) == ["0", "1", "pool"]
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


def test_extra_levels_come_from_where_they_should():
    torch.manual_seed(0)
    widths = [
        build_backbone("timm:resnet10t", (16, 32), channels=8, norm="group", extra=extra)
        for extra in ("pyramid", "body")
    ]
    assert [model.fpn.extra_blocks.p6.in_channels for model in widths] == [8, 512]  # pyright: ignore
    assert isinstance(widths[0], TimmPyramid)


REFUSED = [
    (
        {"detector": "retina-net"},
        "unknown detector 'retina-net'. Did you mean retinanet? Choose from faster-rcnn, retinanet, fcos.",
    ),
    (
        {"backbone": "resnet51"},
        "unknown backbone 'resnet51'. Did you mean resnet50? Give a torchvision network, as resnet50, or a timm "
        "network, as timm:resnet10t.",
    ),
    (
        {"backbone": "timm:resnet10"},
        "unknown backbone 'timm:resnet10'. Did you mean timm:resnet10t? Give a name from timm.list_models() after "
        "timm:.",
    ),
    ({"classes": ()}, "a detector needs at least one class: classes is empty."),
    (
        {"detector": "fcos", "version": 2},
        "fcos has no version 2: torchvision's FCOS has version 1, the others 1 and 2.",
    ),
    ({"version": 3}, "faster-rcnn has no version 3: torchvision's FCOS has version 1, the others 1 and 2."),
    ({"norm": "none"}, "unknown norm 'none'. Choose from frozen, batch, group."),
    ({"finest": 2}, "finest is 2: choose a stride from 4, 8, 16, 32."),
    ({"channels": 0}, "channels is 0: it must be at least 1."),
    ({"proposals": 0}, "proposals is 0: it must be at least 1."),
    ({"sampled": -1}, "sampled is -1: it must be at least 1."),
    ({"min_size": ()}, "min_size is 0: it must be at least 1."),
    (
        {"detector": "fcos", "channels": 96 + 16},
        "channels is 112: the head's 32 groups need a multiple of 32, at least 64.",
    ),
    (
        {"detector": "retinanet", "version": 2, "channels": 32},
        "channels is 32: the head's 32 groups need a multiple of 32, at least 64.",
    ),
    ({"detector": "retinanet", "head_convs": 5}, "head_convs is 5: torchvision's RetinaNet has at most 4."),
    (
        {"std": (1.0, 0.0, 1.0)},
        "mean (0.485, 0.456, 0.406) and std (1.0, 0.0, 1.0) must have 3 numbers each, those of std above 0.",
    ),
    ({"anchor": 1.0}, "anchor is 1.0: the smallest anchor must have a side of at least 2 pixels."),
    ({"anchor": float("inf")}, "anchor is inf: the smallest anchor must have a side of at least 2 pixels."),
    (
        {"detector": "fcos", "anchor": 8.0},
        "anchor is 8: with points every 8 pixels some objects would have none near their center. Give more than 10.7, "
        "or a smaller finest.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_refused_architectures(changes, message):
    architecture = tiny(channels=64)
    for name, value in changes.items():
        object.__setattr__(architecture, name, value)  # as a caller without a type checker would
    with pytest.raises(DistilError) as error:
        build_detector(architecture, seed=0)
    assert str(error.value) == message


@pytest.mark.parametrize("backbone", ["vit_b_32", "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"])
def test_networks_without_halving_maps_are_no_backbones(backbone):
    with pytest.raises(DistilError, match=r"cannot be a backbone: it gives no square maps, channels first") as error:
        build_detector(tiny(backbone=backbone), seed=0)
    assert str(error.value).endswith("Choose a convolutional network, as resnet18 or timm:resnet10t.")


def test_a_giant_that_is_no_backbone_or_does_not_fit_is_refused_before_it_takes_memory(monkeypatch):
    def built(*args, **given):
        assert torch.empty(0).device.type == "meta", "weights of a giant were made"
        return create(*args, **given)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", built)
    with pytest.raises(DistilError, match=r"cannot be a backbone: it gives no square maps"):
        build_detector(tiny(backbone="timm:vit_giant_patch14_dinov2"), seed=0)
    monkeypatch.setattr(backbones, "free_memory", lambda: 2_000_000_000)
    with pytest.raises(
        DistilError, match=r"convnext_xxlarge take 3\.4 GB of memory, and 2\.0 are free: choose a smaller"
    ):
        build_detector(tiny(backbone="timm:convnext_xxlarge"), seed=0)


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet", "fcos"])
def test_a_saved_detector_comes_back_whole(detector, tmp_path):
    architecture = tiny(detector=detector, min_size=(48, 64), norm="batch")
    model = build_detector(architecture, seed=5)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.fill_(0.1)
    save_detector(model, architecture, tmp_path / "a.safetensors", extra={"ap": 12.5, "epochs": [1, 2]})
    again, same, extra = load_detector(tmp_path / "a.safetensors")
    assert same == architecture
    assert hash(same) == hash(architecture)
    assert extra == {"ap": 12.5, "epochs": [1, 2]}
    assert not again.training
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    image = [torch.rand(3, 64, 64)]
    with torch.no_grad():
        for own, other in zip(model.eval()(image), again(image), strict=True):
            assert all(torch.equal(own[key], other[key]) for key in own)
    save_detector(again, same, tmp_path / "b.safetensors", extra=extra)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "detector.safetensors"

    def load_changed(change, header_change=lambda header: None):
        save_detector(built(), TINY, path)
        tensors, header = load_tensors(path)
        change(tensors)
        header_change(header)
        save_tensors(path, tensors, header)
        with pytest.raises(DistilError) as error:
            load_detector(path)
        return str(error.value)

    begin = f"the weights in {path} do not fit FasterRCNN: "
    end = ". Give the file of this very architecture and of as many classes, from a finished run."
    score = "roi_heads.box_predictor.cls_score.bias"
    assert load_changed(lambda x: x.pop(score)) == f"{begin}{score} is missing{end}"
    assert load_changed(lambda x: x.update(spare=torch.zeros(1))) == f"{begin}spare is left over{end}"
    assert load_changed(lambda x: x[score].fill_(torch.nan)) == f"{begin}{score} is not finite{end}"
    message = load_changed(lambda x: None, lambda header: header["architecture"].update(classes=["cat"]))
    assert message.startswith(f"{begin}size mismatch for roi_heads.box_predictor.cls_score.weight")
    assert message.endswith(f"(and 3 more problems){end}")
    message = load_changed(lambda x: None, lambda header: header["architecture"].update(depth=3))
    assert message == f"{path}: unknown field 'depth' of an architecture: another version of distil wrote it."
    message = load_changed(lambda x: None, lambda header: header.update(kind="prototypes"))
    assert message == f"{path} holds no detector but prototypes: give another file."
    message = load_changed(lambda x: None, lambda header: header.update(version=0))
    assert message == f"{path} was made by another version of distil: make it again with this one."
    with pytest.raises(DistilError, match=r"^no such file: .*none\.safetensors\. Check the path\.$"):
        load_detector(tmp_path / "none.safetensors")


NONSENSE = [
    ({"detector": 5}, "unknown detector 5. Choose from faster-rcnn, retinanet, fcos."),
    ({"backbone": None}, "backbone is None: give the name of a network, as resnet50."),
    ({"backbone": "x" * 10**6}, "backbone is 'xxxxx"),
    ({"backbone": "timm:hf-hub:somebody/something"}, "unknown backbone 'timm:hf-hub:somebody/something'."),
    ({"classes": "cat"}, "classes are 'cat': give a list of names."),
    ({"classes": [1, 2]}, "classes are (1, 2): give at least one name, as text."),
    ({"classes": ["cat", "cat"]}, "the class name 'cat' is given twice: names must differ."),
    ({"classes": ["cat", ""]}, "class 1 has the name '': give every class a name."),
    ({"classes": ["cat", "\x1b[31m"]}, "class 1 has the name '\\x1b[31m': it holds"),
    ({"classes": ["cat", "\ud800"]}, "class 1 has the name '\\ud800': it holds"),
    ({"classes": [str(i) for i in range(10**6)]}, "there are 1000000 classes: at most 100000 are possible."),
    ({"version": 1.0}, "faster-rcnn has no version 1.0"),
    ({"version": True}, "faster-rcnn has no version True"),
    ({"channels": 10**9}, "channels is 1000000000: it must be at most 4096."),
    ({"channels": 64.0}, "channels is 64.0: it must be a whole number."),
    ({"channels": None}, "channels is None: it must be a whole number."),
    ({"min_size": 10**9}, "min_size is 1000000000: it must be at most 8192."),
    ({"min_size": [64, 10**9]}, "min_size is 1000000000: it must be at most 8192."),
    ({"min_size": "64"}, "min_size is '64': give a whole number, or several."),
    ({"max_size": 10**300}, "max_size is 1000"),
    ({"head_convs": 10**9}, "head_convs is 1000000000: it must be at most 32."),
    ({"representation": 10**9}, "representation is 1000000000: it must be at most 65536."),
    ({"proposals": 10**9}, "proposals is 1000000000: it must be at most 100000."),
    ({"sampled": "many"}, "sampled is 'many': it must be a whole number."),
    ({"norm": ["group"]}, "unknown norm ('group',). Choose from frozen, batch, group."),
    ({"finest": 4.0}, "finest is 4.0: choose a stride from 4, 8, 16, 32."),
    ({"anchor": "16"}, "anchor is '16': the smallest anchor must have a side of at least 2 pixels."),
    ({"anchor": 1e300}, "anchor is 1e+300: the smallest anchor's side must be at most 8192 pixels."),
    ({"mean": 0.5}, "mean 0.5 and std (0.229, 0.224, 0.225) must have 3 numbers each"),
    ({"mean": [1e308] * 3}, "mean is (1e+308, 1e+308, 1e+308): expected that of images in [0, 1]"),
    ({"std": [1e-300] * 3}, "std is (1e-300, 1e-300, 1e-300): every channel's must be above 0"),
    ({"std": ["a"] * 3}, "mean (0.485, 0.456, 0.406) and std ('a', 'a', 'a') must have 3 numbers each"),
]


@pytest.mark.parametrize(("change", "message"), NONSENSE)
def test_nonsense_in_a_detectors_file_is_refused_by_field(change, message, tmp_path):
    path = tmp_path / "detector.safetensors"
    header = {"kind": "detector", "version": 1, "architecture": {**asdict(TINY), **change}, "extra": {}}
    save_tensors(path, built().state_dict(), header)
    with pytest.raises(DistilError) as error:
        load_detector(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, "the architecture is None: expected a value for each of its fields."),
        ({"architecture": []}, "the architecture is []"),
        ({"architecture": {"detector": "fcos"}}, "an architecture without 'backbone' cannot be built: give it."),
        ({"extra": [1]}, "extra is [1], expected an object. Copy the file again, or make it again."),
    ],
)
def test_a_broken_description_of_a_detector_is_refused(change, message, tmp_path):
    path = tmp_path / "detector.safetensors"
    header = {"kind": "detector", "version": 1, "architecture": asdict(TINY), "extra": {}, **change}
    save_tensors(path, built().state_dict(), header)
    with pytest.raises(DistilError) as error:
        load_detector(path)
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    "change", [{"representation": 2**16, "channels": 4096}, {"backbone": "regnet_y_128gf"}, {"backbone": "resnet152"}]
)
def test_no_memory_is_taken_for_weights_that_the_file_does_not_have(change, tmp_path):
    path = tmp_path / "detector.safetensors"
    header = {"kind": "detector", "version": 1, "architecture": {**asdict(TINY), **change}, "extra": {}}
    save_tensors(path, {"a": torch.zeros(1)}, header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DistilError, match=r"cannot be a backbone|do not fit FasterRCNN: .* is missing"):
        load_detector(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_type_are_refused(dtype, tmp_path):
    path = tmp_path / "detector.safetensors"
    name = "roi_heads.box_predictor.cls_score.bias"
    tensors = {**built().state_dict(), name: torch.zeros(3, dtype=dtype)}
    save_tensors(path, tensors, {"kind": "detector", "version": 1, "architecture": asdict(TINY), "extra": {}})
    with pytest.raises(DistilError, match=f"{name} is {dtype}, expected torch.float32"):
        load_detector(path)


def test_flipped_bits_of_a_detectors_file_are_refused(tmp_path):
    whole, path = tmp_path / "whole", tmp_path / "flipped.safetensors"
    save_detector(built(), TINY, whole)
    data = whole.read_bytes()
    draws = random.Random(0)
    places = [*range(16), *draws.sample(range(len(data)), 20)]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << draws.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(DistilError, match=r"flipped\.safetensors"):
            load_detector(path)
        with pytest.raises(DistilError, match=r"flipped\.safetensors"):
            read_weights(path)


def test_loading_warns_of_nothing(tmp_path):
    save_detector(build_detector(TINY, seed=1), TINY, tmp_path / "a.safetensors")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_detector(tmp_path / "a.safetensors")
    assert [str(warning.message) for warning in told] == []


def test_a_detectors_file_of_before_without_a_checksum_loads(tmp_path):
    header = {"kind": "detector", "version": 1, "architecture": asdict(TINY), "extra": {"ap": 1.0}}
    path = tmp_path / "old.safetensors"
    save_file(built().state_dict(), path, {"distil": json.dumps(header)})
    model, architecture, extra = load_detector(path)
    assert architecture == TINY
    assert extra == {"ap": 1.0}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in built().state_dict().items())


@pytest.mark.parametrize(
    "tensors",
    [
        {"roi_heads.box_predictor.cls_score.weight": torch.tensor(1.0)},
        {"roi_heads.box_predictor.cls_score.weight": torch.zeros(0, 4)},
        {
            "head.classification_head.cls_logits.weight": torch.zeros(4, 1, 1, 1),
            "head.regression_head.bbox_reg.weight": torch.zeros(1, 1, 1, 1),
        },
    ],
)
def test_odd_weights_are_no_detector_of_torchvision(tensors, tmp_path):
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(DistilError, match=r"odd\.safetensors holds no detector with torchvision's names of weights"):
        torchvision_detector("fasterrcnn_resnet50_fpn", tmp_path / "odd.safetensors")


def test_an_architecture_survives_json():
    for architecture in (TINY, Architecture("fcos", "resnet50", ("a",), min_size=(400, 800), finest=4, anchor=24.0)):
        assert architecture_from_dict(json.loads(json.dumps(asdict(architecture)))) == architecture
    with pytest.raises(DistilError, match="an architecture without 'classes' cannot be built: give it"):
        architecture_from_dict({"detector": "fcos", "backbone": "resnet50"})


# ----------------------------------------------------------------------------------------------- weights of others


@pytest.mark.parametrize(
    ("backbone", "stem"), [("mobilenet_v3_small", "0.0.weight"), ("timm:resnet10t", "conv1.0.weight")]
)
def test_backbone_weights_come_from_a_classifiers_file(backbone, stem, tmp_path):
    if backbone.startswith("timm:"):
        import timm

        network = timm.create_model(backbone.removeprefix("timm:"), num_classes=7)
        name = stem
    else:
        network = models.get_model(backbone, weights=None, num_classes=7)
        name = f"features.{stem}"
    path = tmp_path / "classifier.safetensors"
    save_file(network.state_dict(), path)
    model = build_detector(tiny(backbone=backbone, norm="frozen"), seed=0, backbone_weights=path)
    assert torch.equal(model.backbone.body.state_dict()[stem], network.state_dict()[name])
    plain = build_detector(tiny(backbone=backbone, norm="frozen"), seed=0)
    assert not torch.equal(plain.backbone.body.state_dict()[stem], network.state_dict()[name])

    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)
    with pytest.raises(DistilError, match=f"do not fit .*: {name.replace('.', '[.]')} is missing"):
        build_detector(tiny(backbone=backbone), seed=0, backbone_weights=path)


def test_pickled_weights_are_not_opened(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    for load in (
        lambda: build_detector(tiny(), seed=0, backbone_weights=path),
        lambda: torchvision_detector(MOBILE, path),
    ):
        with pytest.raises(DistilError) as error:
            load()
        text = str(error.value)
        assert text.startswith(f"{path} is no .safetensors file, and pickled weights can run code")
    code = text.split('-c "', 1)[1].rstrip('"')
    exec(code)
    assert load_file(path.with_suffix(".safetensors")) == {}


def test_files_of_weights_that_cannot_be_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(DistilError, match=r"^no such file: .*weights\.safetensors\. Check the path\.$"):
        torchvision_detector(MOBILE, path)
    path.write_bytes(b"12345")
    with pytest.raises(DistilError, match=r"is not a whole safetensors file .* Download or convert it again\.$"):
        torchvision_detector(MOBILE, path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DistilError, match="holds no detector with torchvision's names of weights"):
        torchvision_detector(MOBILE, path)


def test_a_download_that_fails_says_so(monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(models, "get_model", fail)
    expected = (
        "the weights of {} cannot be downloaded (no route to host). Check the connection, or give a .safetensors file."
    )
    with pytest.raises(DistilError) as error:
        torchvision_detector(MOBILE, "download")
    assert str(error.value) == expected.format(MOBILE)
    with pytest.raises(DistilError) as error:
        build_detector(tiny(backbone="resnet18"), seed=0, backbone_weights="download")
    assert str(error.value) == expected.format("resnet18")


def test_torchvisions_detectors_from_a_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    made, names = torchvision_detector(MOBILE, None, classes=("a", "b"), seed=1)
    assert isinstance(made, detection.FasterRCNN)
    assert names == ("a", "b")
    assert not made.training
    save_file(made.state_dict(), path)
    again, names = torchvision_detector(MOBILE, path, classes=["a", "b"])
    assert names == ("a", "b")
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in again.modules())
    image = [torch.rand(3, 64, 64)]
    with torch.no_grad():
        assert all(
            torch.allclose(x, y, atol=1e-4)
            for x, y in zip(made(image)[0].values(), again(image)[0].values(), strict=True)
        )
    with pytest.raises(DistilError) as error:
        torchvision_detector(MOBILE, path)
    assert str(error.value) == (
        f"the weights in {path} know 2 classes, but 90 names are given (those of COCO). Give the 2 names with "
        "`classes`."
    )
    with pytest.raises(DistilError, match=r"^unknown detector 'fasterrcnn'\. Did you mean fasterrcnn_resnet50_fpn\?"):
        torchvision_detector("fasterrcnn", None)


def test_retinanet_and_old_names_from_a_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    made, names = torchvision_detector("retinanet_resnet50_fpn", None)
    assert len(names) == 90
    assert names[0] == "person"
    assert names[89] == "toothbrush"
    tensors = made.state_dict()
    for tower in ("classification_head", "regression_head"):  # as torchvision's released file has them
        for layer in range(4):
            for part in ("weight", "bias"):
                new = f"head.{tower}.conv.{layer}.0.{part}"
                tensors[f"head.{tower}.conv.{2 * layer}.{part}"] = tensors.pop(new)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    save_file(tensors, path)
    again, names = torchvision_detector("retinanet_resnet50_fpn", path)
    assert len(names) == 90
    frozen = [layer for layer in again.modules() if isinstance(layer, FrozenBatchNorm2d)]
    assert len(frozen) == 53
    assert all(layer.eps == 0 for layer in frozen)
    name = "head.regression_head.conv.3.0.weight"
    assert torch.equal(again.state_dict()[name], made.state_dict()[name])


def test_proposals_and_samples_are_those_asked_for():
    model = build_detector(tiny(proposals=7, sampled=5), seed=0)
    head, images = model.roi_heads, torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    handed, used = [], []
    head.register_forward_hook(lambda _, args, __: handed.append([len(boxes) for boxes in args[1]]))
    head.box_head.register_forward_hook(lambda _, __, rows: used.append(len(rows)))
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}

    model.train()(list(images), [target, target])
    model.eval()(list(images))

    assert handed == [[7, 7], [7, 7]]
    assert used == [10, 14]
