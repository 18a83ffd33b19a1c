import pytest
import torch

from distil.errors import DistilError
from distil.networks import BATCH_NORMED, DEFAULT_WIDTHS, NETWORKS, build_network

WIDTHS = {name: 16 if name == "vit" else 4 for name in NETWORKS}
SHAPES = {
    "16 grey": (1, (16, 16)),
    "28 grey": (1, (28, 28)),
    "32 color": (3, (32, 32)),
    "64 color": (3, (64, 64)),
    "oblong color": (3, (18, 27)),
}
MAIN = ("convnet3", "resnet10", "vgg11", "alexnet", "densenet121", "vit")


def small(name, channels=3, size=(16, 16), classes=5, seed=0):
    return build_network(name, channels=channels, size=size, classes=classes, width=WIDTHS[name], seed=seed)


def images(channels, size, n=2):
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_embedding_and_map_agree(name, shape):
    channels, size = SHAPES[shape]
    net = small(name, channels, size).eval()
    batch = images(channels, size)
    with torch.no_grad():
        logits, embedding, maps = net(batch), net.embed(batch), net.activations(batch)
        alone = torch.cat([net(batch[:1]), net(batch[1:])])
        assert torch.equal(net.classifier(embedding), logits)
    assert logits.shape == (2, 5)
    assert embedding.shape == (2, net.classifier.in_features)
    assert maps.ndim == 4
    assert maps.shape[0] == 2
    assert min(maps.shape[2:]) >= 2
    if name != "vit":
        assert maps.min() >= 0
    assert maps.std((2, 3)).max() > 0
    assert torch.allclose(alone, logits, atol=1e-5)
    assert (
        logits[0] - logits[1]
    ).abs().max() > 1e-6  # a network that is blind to its image would pass all of the above


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (8, 8), (9, 9), (20, 20)])
@pytest.mark.parametrize("name", ["convnet5", "resnet18", "vgg11", "alexnet", "densenet121"])
def test_no_normalized_map_is_a_single_pixel(name, size):
    net = small(name, 1, size)
    seen = []
    for layer in net.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.register_forward_hook(lambda _layer, inputs, _output: seen.append(min(inputs[0].shape[2:])))
    with torch.no_grad():
        net(images(1, size))
    assert min(seen, default=2) >= 2


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_depend_on_the_seed_alone(name):
    torch.rand(1)
    one = small(name, seed=3).state_dict()
    torch.rand(1)
    same, other = small(name, seed=3).state_dict(), small(name, seed=4).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    for name in MAIN:
        small(name)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in BATCH_NORMED])
def test_nothing_remembers_a_forward_pass(name):
    net = small(name)
    assert list(net.buffers()) == []
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in net.modules())
    batch = images(3, (16, 16))
    with torch.no_grad():
        assert torch.equal(net.train()(batch), net.eval()(batch))


@pytest.mark.parametrize("name", MAIN)
def test_second_derivatives_exist(name):
    net = small(name, 1)
    batch = images(1, (16, 16)).requires_grad_()
    loss = torch.nn.functional.cross_entropy(net(batch), torch.tensor([0, 1]))
    grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(sum(grad.square().sum() for grad in grads), batch)  # pyright: ignore
    assert second.isfinite().all()
    assert second.abs().max() > 0


def parameters(name, channels=3, size=(32, 32), classes=10, width=None):
    net = build_network(name, channels=channels, size=size, classes=classes, width=width, seed=0)
    return sum(parameter.numel() for parameter in net.parameters())


def test_convnet3_has_the_published_number_of_parameters():
    assert parameters("convnet3") == 320_010


def test_grey_28_starts_at_32_in_convnet_vgg_and_alexnet():
    # three halvings of 32 leave 4x4 to ConvNet's and AlexNet's classifiers, five leave 1x1 to VGG's
    grey = {"channels": 1, "size": (28, 28), "classes": 10, "seed": 0}
    assert build_network("convnet3", **grey).classifier.in_features == 128 * 4 * 4
    assert build_network("alexnet", **grey).classifier.in_features == 192 * 4 * 4
    assert build_network("vgg11", **grey).classifier.in_features == 512
    assert build_network("convnet3", **{**grey, "channels": 3}).classifier.in_features == 128 * 3 * 3
    assert build_network("convnet3", **{**grey, "size": (16, 16)}).classifier.in_features == 128 * 2 * 2


def test_reference_parameter_counts():
    # ResNet-18 for CIFAR and DenseNet-121 for CIFAR, as given with their usual implementations, and counts by hand
    assert parameters("resnet18") == 11_173_962
    assert parameters("densenet121") == 6_956_298
    assert parameters("resnet18_bn", 3, (224, 224), 1000) == 11_689_512  # torchvision's resnet18
    assert parameters("resnet18_bn") == parameters("resnet18")
    convolutions = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    assert parameters("vgg11") == sum(9 * a * b + 3 * b for a, b in convolutions) + 512 * 10 + 10
    kernels = [(3, 128, 25), (128, 192, 25), (192, 256, 9), (256, 192, 9), (192, 192, 9)]
    assert parameters("alexnet") == sum(k * a * b + b for a, b, k in kernels) + 192 * 16 * 10 + 10


@pytest.mark.parametrize("name", NETWORKS)
def test_width_scales_every_network(name):
    narrow, wide = (parameters(name, 1, (16, 16), 10, width) for width in (6, 12))
    assert wide > 1.5 * narrow
    assert parameters(name, 1, (16, 16)) == parameters(name, 1, (16, 16), width=DEFAULT_WIDTHS[name])


def test_an_unknown_network_is_named_with_the_nearest():
    with pytest.raises(DistilError, match=r"unknown network 'resnet81'. Did you mean resnet18\?"):
        build_network("resnet81", channels=1, size=(16, 16), classes=2, seed=0)
    with pytest.raises(DistilError, match=r"'ConvNet-3'. Did you mean convnet3\?"):
        build_network("ConvNet-3", channels=1, size=(16, 16), classes=2, seed=0)
    with pytest.raises(DistilError, match=r"unknown network 'zzz'. Choose from convnet1, .*vit"):
        build_network("zzz", channels=1, size=(16, 16), classes=2, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width 0: it must be at least 1"),
        ({"classes": 1}, "classes 1: it must be at least 2"),
        ({"channels": 0}, "channels 0: it must be at least 1"),
        ({"size": (3, 16)}, "image height 3: it must be at least 4"),
    ],
)
def test_impossible_networks_are_refused(change, message):
    with pytest.raises(DistilError, match=message):
        build_network("convnet3", **{"channels": 1, "size": (16, 16), "classes": 2, "seed": 0, **change})
