"""The lines of Python that build a detector again with torchvision (and timm) alone."""

import re
from typing import Any

import torch
from torch import nn

from distil.networks.backbones import TIMM, TimmPyramid
from distil.networks.detectors import Architecture, proposing, seeing

GROUP = "nn.GroupNorm(gcd(32, {0}), {0})"
DETECTION = "torchvision.models.detection"
IMPORTS = {
    "collections": ("OrderedDict",),
    "functools": ("partial",),
    "math": ("gcd",),
    "": ("timm",),
    "safetensors.torch": ("load_file",),
    "torch": ("nn",),
    "torchvision": ("models",),
    f"{DETECTION}.anchor_utils": ("AnchorGenerator",),
    f"{DETECTION}.backbone_utils": ("BackboneWithFPN",),
    f"{DETECTION}.faster_rcnn": ("FasterRCNN", "FastRCNNConvFCHead", "FastRCNNPredictor", "TwoMLPHead"),
    f"{DETECTION}.fcos": ("FCOS", "FCOSHead"),
    f"{DETECTION}.retinanet": ("RetinaNet", "RetinaNetHead"),
    f"{DETECTION}.rpn": ("RPNHead",),
    "torchvision.ops": ("FrozenBatchNorm2d", "MultiScaleRoIAlign"),
    "torchvision.ops.feature_pyramid_network": ("FeaturePyramidNetwork", "LastLevelMaxPool", "LastLevelP6P7"),
}
"""Where the names come from that the lines may use."""


def plain_lines(detector: Any, architecture: Architecture, weights: str) -> list[str]:
    """A script that ends with `detector`, in eval mode, with the weights in a file; it imports nothing of distil.

    detector: what `architecture` was built as; the script makes the same modules of the same names.
    weights: path of a .safetensors file of its state_dict.
    """
    head = {"faster-rcnn": _faster_rcnn, "retinanet": _retinanet, "fcos": _fcos}[architecture.detector]
    lines = [
        *_body(architecture),
        *_pyramid(detector.backbone, architecture),
        *head(detector, architecture),
        f"detector.load_state_dict(load_file({weights!r}), strict=True)",
        "detector.eval()  # a list of images (3, h, w) in [0, 1] -> of each its boxes, labels and scores",
    ]
    used = set(re.findall(r"\w+", " ".join(lines)))
    names = {module: [name for name in names if name in used] for module, names in IMPORTS.items()}
    imports = [
        f"from {module} import {', '.join(some)}" if module else f"import {some[0]}"
        for module, some in names.items()
        if some
    ]
    return [*imports, "", *lines, f"classes = {list(architecture.classes)!r}  # of the labels 1, 2, ..."]


def _body(a: Architecture) -> list[str]:
    """The network, and its norms as build_backbone replaces them."""
    if a.backbone.startswith(TIMM):
        made = f"timm.create_model({a.backbone.removeprefix(TIMM)!r}, features_only=True)"
    else:
        made = f"models.get_model({a.backbone!r}, weights=None){'.features' if _has_features(a.backbone) else ''}"
    if a.norm == "batch":
        return [f"body = {made}"]
    norm = "FrozenBatchNorm2d(old.num_features, old.eps)" if a.norm == "frozen" else GROUP.format("old.num_features")
    return [
        "def replace_norms(network):",
        "    for name, old in list(network.named_children()):",
        "        if not isinstance(old, nn.BatchNorm2d):",
        "            replace_norms(old)",
        "            continue",
        f"        new, act = {norm}, getattr(old, 'act', None)",
        "        if act is not None:",
        "            new = nn.Sequential(new, getattr(old, 'drop', nn.Identity()), act)",
        "        setattr(network, name, new)",
        "",
        f"body = {made}",
        "replace_norms(body)",
    ]


def _has_features(name: str) -> bool:
    from torchvision import models

    with torch.device("meta"):
        network = models.get_model(name, weights=None)
    return isinstance(getattr(network, "features", None), nn.Sequential)


def _pyramid(backbone: Any, a: Architecture) -> list[str]:
    widths = [block[0].in_channels for block in backbone.fpn.inner_blocks]
    extra = "LastLevelMaxPool()"
    if a.detector != "faster-rcnn":
        extra = f"LastLevelP6P7({backbone.fpn.extra_blocks.p6.in_channels}, {a.channels})"
    norm = f"norm_layer={_norm(a)}"
    if not isinstance(backbone, TimmPyramid):
        layers = dict(backbone.body.return_layers)
        return [f"backbone = BackboneWithFPN(body, {layers!r}, {widths}, {a.channels}, {extra}, {norm})"]
    return [
        "",
        "class Pyramid(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        f"        self.body, self.out_channels = body, {a.channels}",
        f"        self.fpn = FeaturePyramidNetwork({widths}, {a.channels}, {extra}, {norm})",
        "",
        "    def forward(self, images):",
        "        maps = self.body(images)",
        f"        return self.fpn(OrderedDict((str(i), maps[j]) for i, j in enumerate({list(backbone.picks)})))",
        "",
        "backbone = Pyramid()",
    ]


def _norm(a: Architecture) -> str:
    """The norm of Faster R-CNN version 2 outside its backbone."""
    if a.detector != "faster-rcnn" or a.version == 1:
        return "None"
    return f"(lambda width: {GROUP.format('width')})" if a.norm == "group" else "nn.BatchNorm2d"


def _options(a: Architecture, **more: Any) -> str:
    return "".join(f", {name}={value!r}" for name, value in {**more, **seeing(a)}.items())


def _anchors(generator: Any) -> str:
    return f"anchors = AnchorGenerator({generator.sizes!r}, {generator.aspect_ratios!r})"


def _faster_rcnn(detector: Any, a: Architecture) -> list[str]:
    pool, outputs = detector.roi_heads.box_roi_pool, len(a.classes) + 1
    side = pool.output_size[0]
    if a.version == 1:
        head = f"TwoMLPHead({a.channels * side**2}, {a.representation})"
    else:
        widths = [a.channels] * a.head_convs
        head = f"FastRCNNConvFCHead(({a.channels}, {side}, {side}), {widths}, [{a.representation}], {_norm(a)})"
    return [
        _anchors(detector.rpn.anchor_generator),
        "detector = FasterRCNN(",
        "    backbone, rpn_anchor_generator=anchors,",
        f"    rpn_head=RPNHead({a.channels}, anchors.num_anchors_per_location()[0], conv_depth={a.version}),",
        f"    box_roi_pool=MultiScaleRoIAlign({list(pool.featmap_names)!r}, {side}, {pool.sampling_ratio}),",
        f"    box_head={head},",
        f"    box_predictor=FastRCNNPredictor({a.representation}, {outputs}){_options(a, **proposing(a))},",
        ")",
    ]


def _retinanet(detector: Any, a: Architecture) -> list[str]:
    outputs = len(a.classes) + 1
    norm = "None" if a.version == 1 else "partial(nn.GroupNorm, 32)"
    return [
        _anchors(detector.anchor_generator),
        f"head = RetinaNetHead({a.channels}, anchors.num_anchors_per_location()[0], {outputs}, norm_layer={norm})",
        "for tower in (head.classification_head, head.regression_head):",
        f"    tower.conv = tower.conv[:{a.head_convs}]",
        *(["head.regression_head._loss_type = 'giou'"] if a.version == 2 else []),
        f"detector = RetinaNet(backbone, {outputs}, anchor_generator=anchors, head=head{_options(a)})",
    ]


def _fcos(detector: Any, a: Architecture) -> list[str]:
    outputs = len(a.classes) + 1
    return [
        _anchors(detector.anchor_generator),
        f"head = FCOSHead({a.channels}, 1, {outputs}, {a.head_convs})",
        f"detector = FCOS(backbone, {outputs}, anchor_generator=anchors, head=head{_options(a)})",
    ]
