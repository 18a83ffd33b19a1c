"""FreD's parameterization: what is encoded, decoded, stored, joined, refused; and how its frequencies are chosen."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from distil.dataset.selection.fred import most_varying
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.parameterizations.fred import Fred, as_bytes, from_bytes, lowest_first


def draws(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def frequencies(count=10, side=8, masks=2):
    rows = [torch.randperm(side * side, generator=torch.Generator().manual_seed(i))[:count] for i in range(masks)]
    return lowest_first(torch.stack(rows), (side, side))


def made(bits=8, counts=(2, 2), seed=0) -> DistilledSet:
    placed = Fred(frequencies(), counts, (3, 8, 8), bits)
    params, stored = placed.quantize(placed.encode(draws(sum(counts), placed.images_per_item, 3, 8, 8, seed=seed)))
    labels = torch.arange(2).repeat_interleave(torch.tensor(counts))
    names = {"method": "fred", "settings": {}, "seed": 0, "source": "made up", "source_fingerprint": "0" * 64}
    return DistilledSet(params, labels, stored, ("a", "b"), (0.5,) * 3, (0.25,) * 3, **names)


def naive(params, kept, size):
    """The images of learned params of one item, from the formula in the file's header."""
    c, k, (height, width) = 3, len(kept), size
    unit = math.sqrt(height * width / k)
    images = []
    numbers = params.flatten()
    for j in range(len(numbers) // (c * k)):
        image = torch.full((c, height, width), 0.5)
        for a in range(c):
            for q in range(k):
                b, d = divmod(int(kept[q]), width)
                value = unit * numbers[(j * c + a) * k + q]
                rows, columns = (
                    torch.cos(math.pi * f * (torch.arange(n) + 0.5) / n) * math.sqrt((1 if f == 0 else 2) / n)
                    for f, n in ((b, height), (d, width))
                )
                image[a] += value * rows[:, None] * columns
        images.append(image)
    return torch.stack(images)


def test_decoding_is_that_of_the_formula():
    placed = Fred(frequencies(), (1, 1), (3, 8, 8))
    params = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    wanted = torch.cat([naive(params[i], placed.kept[i], (8, 8)) for i in range(2)])
    torch.testing.assert_close(placed.decode(params), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bits", "images", "error"), [(4, 12, 0.06), (8, 6, 4e-3), (32, 6, 1e-6)])
def test_images_come_back_as_their_kept_frequencies_show_them(bits, images, error):
    placed = Fred(frequencies(), (2, 2), (3, 8, 8), bits)
    assert placed.images_per_item == images
    params = placed.encode(draws(4, images, 3, 8, 8))
    decoded = placed.decode(params)
    again = placed.encode(decoded.unflatten(0, (4, images)))
    torch.testing.assert_close(again, params, rtol=0, atol=1e-6)
    stored, kept = placed.quantize(params)
    assert float((kept.checked(stored).decode(stored) - decoded).abs().max()) < error


def test_images_of_all_frequencies_are_whole():
    kept = lowest_first(torch.arange(64).repeat(2, 1), (8, 8))
    placed, images = Fred(kept, (1, 1), (3, 8, 8)), draws(2, 1, 3, 8, 8)
    torch.testing.assert_close(placed.decode(placed.encode(images)), images[:, 0])


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_a_file_gives_the_same_images_and_counts_its_masks(tmp_path, bits):
    one = made(bits, counts=(1, 3))
    one.save(tmp_path / "set.safetensors")
    again = DistilledSet.load(tmp_path / "set.safetensors")
    assert torch.equal(again.decoded().images, one.decoded().images)
    assert again.bytes["masks"] == 2 * 8 + 2 * 4 + 4 * 3 * 10
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "set.safetensors").read_bytes()


def test_items_are_selected_and_sets_joined():
    one, other = made(counts=(1, 3)), replace(made(counts=(2, 2), seed=1), classes=("c", "d"))
    joined = DistilledSet.concat([one, other])
    images = torch.cat([one.decoded().images, other.decoded().images])
    assert torch.equal(joined.decoded().images, images)
    assert torch.equal(
        joined.only(["d", "a"]).decoded().images, torch.cat([other.decoded_of([2, 3]), one.decoded_of([0])])
    )


WRONG = {
    "masks of another size": ({"masks": lambda t: t[:, :-1]}, "expected a bit for each of 64 frequencies"),
    "masks of several numbers": ({"masks": lambda t: t.clone().index_fill(0, torch.tensor([0]), 255)}, "masks keep"),
    "empty masks": ({"masks": torch.zeros_like}, "at least 1"),
    "items without a mask": ({"mask_items": lambda t: t - 1}, "and there are 4 items"),
    "spans that are none": ({"spans": lambda t: t * float("nan")}, "spans reach from"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, name):
    changes, told = WRONG[name]
    path = tmp_path / "set.safetensors"
    made().save(path)
    tensors, header = load_tensors(path)
    save_tensors(path, {key: changes.get(key, lambda t: t)(tensor) for key, tensor in tensors.items()}, header)
    with pytest.raises(DistilError, match=told):
        DistilledSet.load(path)


def test_a_file_of_another_size_is_refused(tmp_path):
    path = tmp_path / "set.safetensors"
    made().save(path)
    tensors, header = load_tensors(path)
    save_tensors(path, tensors, {**header, "view_size": [16, 16]})
    with pytest.raises(DistilError, match="images of coefficients have the params' size"):
        DistilledSet.load(path)


def test_masks_in_another_order_are_refused():
    one: Any = made()
    with pytest.raises(DistilError, match="masks do not keep the lowest frequencies first"):
        replace(one, parameterization=replace(one.parameterization, kept=one.parameterization.kept.flip(1)))


def test_bits_are_packed_and_unpacked():
    bits = (draws(3, 13) > 0.5).to(torch.uint8)
    assert torch.equal(from_bytes(as_bytes(bits))[:, :13], bits)
    assert as_bytes(torch.tensor([[1, 0, 0, 0, 0, 0, 0, 1, 1]], dtype=torch.uint8)).tolist() == [[129, 128]]


def test_the_frequencies_that_vary_most_among_a_classes_images_are_kept():
    """Images that differ in their mean, in one wave, alike in all channels, and in color, which does not count."""
    wave = torch.cos(math.pi * 3 * (torch.arange(8) + 0.5) / 8).expand(8, 8)
    moved = torch.linspace(-0.3, 0.3, 5)
    images = 0.5 + moved.view(-1, 1, 1, 1) * wave + moved.square().view(-1, 1, 1, 1)
    color = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1) * draws(5, 1, 8, 8, seed=4)
    assert sorted(most_varying((images.expand(5, 3, 8, 8) + color), 2).tolist()) == [0, 3]
