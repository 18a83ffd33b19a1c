import numpy as np
import pytest
import torch
from PIL import Image

from distil.data.images.image_set import ImageSet
from distil.data.images.lazy_images import LazyImages
from distil.data.images.opener import open_source
from distil.errors import DistilError
from distil.rng import stream

RANDOM = np.random.default_rng(0)


def save(path, array, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """Two classes of eight pictures in color of several sizes, one grey and one turned by its EXIF data."""
    for index in range(16):
        shape = (20 + index, 24, 3) if index else (20, 24)
        exif = Image.Exif()
        if index == 5:
            exif[0x0112] = 6
        picture = RANDOM.integers(0, 256, shape, dtype=np.uint8)
        save(tmp_path / "photos" / "ab"[index % 2] / f"{index:02}.png", picture, exif=exif)
    return tmp_path / "photos"


def both(folder, size: int | None = 8):
    """The source in memory, and the one in its files."""
    return open_source(folder, size=size), open_source(folder, size=size, memory=0)


def test_files_and_memory_hold_the_same(photos):
    held, lazy = both(photos)
    assert isinstance(lazy.train.images, LazyImages)
    for one, other in ((held.train, lazy.train), (held.test, lazy.test)):
        assert torch.equal(one.images[:], other.images[torch.arange(len(other.labels))])
        assert torch.equal(one.labels, other.labels)
        assert (one.counts, one.size, one.channels) == (other.counts, other.size, other.channels)
    assert lazy.train.mean == held.train.mean  # fewer images than a sample has
    assert lazy.train.std == held.train.std
    assert [split.smallest for split in lazy.inventory.splits] == [split.smallest for split in held.inventory.splits]
    assert lazy.inventory.notes[0].startswith(
        "decoded, the images take 3,072 bytes, more than the memory limit of 0 GB"
    )


def test_what_is_drawn_is_the_same(photos):
    held, lazy = (source.train for source in both(photos))
    for draw in (
        lambda images: images.sample_class(1, 9, stream(0, "draw")),
        lambda images: images.sample(5, stream(0, "draw")).images,
        lambda images: images.batch(torch.tensor([3, 3, 0])).images,
        lambda images: images.split(0.3, 1)[1].batch(torch.tensor([1])).images,
        lambda images: torch.cat(list(images.images.split(5))),
        lambda images: images.images[0],
        lambda images: images.only(["b", "a"]).batch(torch.arange(3)).images,
    ):
        assert torch.equal(draw(held), draw(lazy))
    with pytest.raises(IndexError):
        lazy.images[len(lazy)]


def test_fingerprints_tell_sets_apart(photos):
    source, again = (open_source(photos, size=8, memory=0) for _ in range(2))
    first, again = source.train, again.train
    assert len(first.fingerprint()) == 64
    assert first.fingerprint() == again.fingerprint()
    kept, held_out = first.split(0.3, 0)
    prints = {part.fingerprint() for part in (first, kept, held_out, open_source(photos, size=9, memory=0).train)}
    assert len(prints) == 4
    pixels = np.asarray(Image.open(photos / "a" / "00.png")).copy()
    pixels[0, 0] ^= 1
    save(photos / "a" / "00.png", pixels)
    changed, before = open_source(photos, size=8, memory=0), [first.fingerprint(), source.test.fingerprint()]
    assert [changed.train.fingerprint(), changed.test.fingerprint()] != before


def test_the_latest_stay_in_memory_up_to_the_limit(photos):
    images = open_source(photos, size=8, memory=3 * 8 * 8 * 4 / 1e9).train.images  # four images
    assert isinstance(images, LazyImages)
    images[torch.tensor([0, 1, 2, 3, 4, 0])]
    assert len(images.store._kept) == 4
    reads = []
    contents = images.store.contents
    images.store.contents = lambda rows: reads.extend(rows) or contents(rows)
    images[torch.tensor([0, 4, 0])]
    assert reads in ([], [int(images.rows[0])])
    images[torch.tensor([4])]
    assert len(reads) <= 1


def test_a_file_that_changes_during_a_run_is_refused(photos):
    images = open_source(photos, size=8, memory=0).train
    for path in sorted((photos / "a").iterdir()):
        save(path, np.zeros((20, 20, 3), dtype=np.uint8))
    with pytest.raises(DistilError, match=r"the image .*\.png has changed since it was opened: leave the images"):
        images.batch(images.by_class[0])
    for path in (photos / "a").iterdir():
        path.unlink()
    with pytest.raises(DistilError, match=r"cannot read the image .*: No such file"):
        images.batch(images.by_class[0])


@pytest.mark.parametrize(
    ("pictures", "options"),
    [
        ([np.full((6, 6), value, np.uint8) for value in (0, 1, 1, 0)], {}),  # black and white as 0 and 1
        ([np.full((6, 6), value, np.uint8) for value in (0, 1, 1, 7)], {}),
        ([np.full((6, 6), value, np.uint16) for value in (0, 4000, 17, 900)], {}),
        ([np.full((6, 6), value, np.uint8) for value in (0, 255)] + [np.full((6, 6), 60000, np.uint16)] * 2, {}),
        ([Image.fromarray(RANDOM.integers(0, 256, (6, 6), dtype=np.uint8)).convert("P") for _ in range(4)], {}),
        ([Image.fromarray(RANDOM.integers(0, 256, (6, 6, 3), dtype=np.uint8)).convert("P") for _ in range(4)], {}),
    ],
)
@pytest.mark.parametrize("size", [None, 3])
def test_ranges_and_colors_are_those_of_the_whole_set(tmp_path, pictures, options, size):
    for index, picture in enumerate(pictures):
        folder = tmp_path / "set" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(folder / f"{index}.png")
    held, lazy = both(tmp_path / "set", size)
    assert torch.equal(held.train.images[:], lazy.train.images[:])
    assert (
        lazy.inventory.notes[: len(held.inventory.notes) - (size is not None)]
        == held.inventory.notes[: len(held.inventory.notes) - (size is not None)]
    )


def test_sizes_that_differ_are_refused_alike(photos):
    messages = []
    for memory in (0, 1):
        with pytest.raises(DistilError, match=r"the images have different sizes: .* resizes") as caught:
            open_source(photos, memory=memory)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_what_is_no_picture_is_refused_when_it_is_opened(photos):
    (photos / "b" / "17.png").write_bytes(b"nothing")
    with pytest.raises(DistilError, match=r"cannot read the image .*17\.png"):
        open_source(photos, size=8, memory=0)


@pytest.mark.parametrize("memory", [-1, float("nan"), True, "2"])
def test_a_limit_that_is_no_number_is_refused(photos, memory):
    with pytest.raises(DistilError, match=r"memory.* is .*: give gigabytes, 0 or more"):
        open_source(photos, size=8, memory=memory)


def test_a_set_in_its_files_stays_there_when_it_is_made_again(photos):
    lazy = open_source(photos, size=8, memory=0).train
    again = ImageSet(lazy.images, lazy.labels, lazy.classes, lazy.mean, lazy.std, "again")
    assert isinstance(again.to("cpu").images, LazyImages)
    assert again.fingerprint() == lazy.fingerprint()
