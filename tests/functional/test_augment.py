"""Augmentation: both published semantics, siamese draws, and the operations by hand."""

import pytest
import torch

from distil.functional.augment import CONTRAST, OPERATIONS, augment, cutmix, normalize, operations_of
from distil.rng import stream

ALL = "color_crop_cutout_flip_scale_rotate"


def images(n=4, channels=3, side=16, dtype=torch.float64):
    return torch.rand(n, channels, side, side, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1


def run(x, strategy, address=0, **how):
    how = {"shared": True, "one": True} | how
    return augment(x, strategy, stream(0, address), **how)


def test_nothing_named_nothing_done():
    x = images()
    assert run(x, "none") is x
    assert operations_of("") == ()


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="unknown augmentation 'blur' in 'crop_blur'"):
        run(images(), "crop_blur")


@pytest.mark.parametrize("one", [True, False])
@pytest.mark.parametrize("address", range(8))
def test_siamese_draws_treat_every_image_alike_whatever_the_batch(one, address):
    x = images()
    whole = run(x, ALL, address, one=one)
    alone = torch.cat([run(x[i : i + 1], ALL, address, one=one) for i in range(len(x))])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_draws_differ_from_image_to_image_when_not_shared(operation):
    x = images()[:1].expand(32, -1, -1, -1)
    out = run(x, operation, shared=False)
    assert (out - out[:1]).abs().amax((1, 2, 3)).count_nonzero() > 4


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("shared", [True, False])
def test_each_operation_is_differentiable(operation, shared):
    x = images(n=2, channels=2, side=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: run(v, operation, 3, shared=shared), (x,))


def test_flip_mirrors_half_of_the_draws():
    x = images(n=1)
    outs = [run(x, "flip", address) for address in range(200)]
    flipped = sum(torch.equal(out, x.flip(3)) for out in outs)
    assert flipped + sum(torch.equal(out, x) for out in outs) == 200
    assert 70 < flipped < 130


def test_crop_shifts_by_at_most_an_eighth_and_fills_with_zero():
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 8, 8] = 1
    seen = set()
    for address in range(300):
        out = run(x, "crop", address)
        assert out.sum() == 1
        row, column = (out[0, 0] == 1).nonzero()[0].tolist()
        seen.add((row - 8, column - 8))
    assert seen == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}


def test_crop_per_image_agrees_with_shared_shifts():
    x = images(n=1)
    shared = {tuple(run(x, "crop", a).flatten().tolist()) for a in range(300)}
    each = run(x.expand(50, -1, -1, -1), "crop", shared=False)
    assert {tuple(image.flatten().tolist()) for image in each} <= shared


def test_cutout_blanks_one_square_of_half_the_side():
    x = torch.ones(64, 1, 16, 16)
    out = run(x, "cutout", shared=False)
    for image in out[:, 0]:
        rows, columns = (image == 0).any(1).nonzero(), (image == 0).any(0).nonzero()
        area = len(rows) * len(columns)
        assert (image == 0).sum() == area
        assert 4 <= len(rows) <= 8
        assert 4 <= len(columns) <= 8


def test_color_follows_its_equations():
    x = images(n=1)
    generator = stream(0, 5)
    torch.randint(1, (1,), generator=generator)
    b, s, c = (float(torch.rand(1, 1, 1, 1, generator=generator)) for _ in range(3))
    want = x + (b - 0.5)
    want = (want - want.mean(1, keepdim=True)) * 2 * s + want.mean(1, keepdim=True)
    want = (want - want.mean()) * (c + CONTRAST) + want.mean()
    torch.testing.assert_close(run(x, "color", 5), want, rtol=0, atol=1e-6)


def test_rotation_and_scale_leave_the_center_of_a_disc_in_place():
    grid = torch.linspace(-1, 1, 31, dtype=torch.float64)
    disc = (-(grid[:, None] ** 2 + grid[None] ** 2) * 8).exp()[None, None]
    for address in range(6):
        torch.testing.assert_close(run(disc, "rotate", address), disc, rtol=0, atol=0.02)
        assert run(disc, "scale", address)[0, 0].argmax() == 15 * 31 + 15


def test_one_operation_or_idc_semantics():
    x = images(n=1)
    singles = 0
    for address in range(60):
        out = run(x, "flip_cutout", address, one=True)
        cut = bool((out == 0).any())
        flipped = not cut and torch.equal(out, x.flip(3))
        singles += cut or flipped or torch.equal(out, x)
    assert singles == 60
    both = [run(x, "flip_cutout", address, one=False) for address in range(60)]
    assert all((out == 0).any() for out in both)


def test_idc_semantics_apply_one_of_the_rest():
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 8, 8] = 1
    for address in range(30):
        out = run(x, "crop_rotate", address, one=False)
        crop = bool(((out == 0) | (out == 1)).all())
        assert crop or 0 < out.max() < 1.01


def test_normalize_by_hand():
    x = torch.ones(1, 2, 1, 1)
    assert normalize(x, (0.5, 0.25), (0.5, 0.25)).flatten().tolist() == [1.0, 3.0]


def test_cutmix_mixes_targets_by_the_pasted_area():
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    targets = torch.eye(4)
    changed = 0
    for address in range(50):
        mixed, soft = cutmix(x, targets, stream(1, address), probability=1.0)
        torch.testing.assert_close(soft.sum(1), torch.ones(4))
        for i in range(4):
            shares = torch.bincount(mixed[i].flatten().long(), minlength=4) / 64
            torch.testing.assert_close(soft[i], shares)
        changed += not torch.equal(mixed, x)
    assert changed > 20


def test_cutmix_happens_with_its_probability():
    x, targets = images(), torch.eye(4, dtype=torch.float64)
    assert cutmix(x, targets, stream(0), probability=0.0)[0] is x
    untouched = sum(cutmix(x, targets, stream(2, a), probability=0.5)[0] is x for a in range(200))
    assert 70 < untouched < 130


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_augmented_images_are_plainly_contiguous(channels, shared):
    images = torch.rand(4, channels, 8, 8)
    strategy = "color_crop_cutout_flip_scale_rotate"
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        assert augment(images, strategy, generator, shared=shared, one=False).stride() == images.stride()
