from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distil.data.arrays import stratified_split
from distil.data.detection import scenes
from distil.data.detection.opener import open_detection
from distil.data.detection.scene_drawing import Digit, Layout, arrange, enlarge, paint
from distil.data.detection.scenes import SceneSettings, scenes_source
from distil.errors import DistilError

PLAIN: dict[str, Any] = {"blurred": 0.0, "occluded": 0.0}


@pytest.fixture(scope="module")
def source():
    return scenes_source(60, 20, 20)


def test_scenes_open_by_name():
    source = open_detection("scenes:30", seed=4)
    assert source.val is not None
    assert source.test is not None
    assert [len(split) for split in (source.train, source.val, source.test)] == [30, 150, 300]
    assert (source.key, source.note, source.train.name) == ("scenes", "", "scenes train")
    assert source.train.classes == ("0", "1", "2", "3", "4")
    assert len(open_detection("scenes").train) == 1000


def test_images_and_objects_are_what_a_set_promises(source):
    seen = set()
    for index in range(len(source.train)):
        image, found = source.train[index]
        assert (image.shape, image.dtype, source.train.size(index)) == ((3, 128, 128), torch.uint8, (128, 128))
        assert image.is_contiguous()
        assert 1 <= len(found) <= 6
        assert len(source.train.tags(index)) == len(found)
        assert found.boxes.dtype == torch.float32
        assert (found.boxes >= 0).all()
        assert (found.boxes <= 128).all()
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert (sides > 2).all()
        assert found.areas.tolist() == sides.prod(1).tolist()
        assert not found.ignored.any()
        seen |= set(found.labels.tolist())
        for side, tags in zip(sides.amax(1).tolist(), source.train.tags(index), strict=True):
            assert ("small" in tags) == (side < 20)
    assert seen == {1, 2, 3, 4, 5}


def test_a_scene_depends_on_seed_split_and_index_alone(source):
    again, fewer, other = scenes_source(60, 20, 20), scenes_source(10, 20, 20), scenes_source(10, 20, 20, seed=1)
    assert again.train.annotations(9).boxes.tolist() == source.train.annotations(9).boxes.tolist()  # objects come first
    assert torch.equal(again.train.image(9), source.train.image(9))
    assert torch.equal(fewer.train.image(9), source.train.image(9))
    assert not torch.equal(other.train.image(9), source.train.image(9))
    assert not torch.equal(source.val.image(9), source.train.image(9))
    assert (source.train.identifier(9), source.test.identifier(3)) == ("train_000009.png", "test_000003.png")


def test_scenes_are_kept_up_to_a_size_and_callers_cannot_spoil_them(monkeypatch):
    monkeypatch.setattr(scenes, "KEPT_BYTES", 2 * 3 * 128 * 128)
    painted, real = [], scenes.paint
    monkeypatch.setattr(scenes, "paint", lambda *given, **options: painted.append(1) or real(*given, **options))
    data = scenes_source(5, 1, 1).train
    first = [data.image(index) for index in range(4)]
    assert len(painted) == 4
    for image in first:
        image += 1
    assert all(torch.equal(data.image(index) + 1, first[index]) for index in range(4))
    assert len(painted) == 4 + 2


def test_no_handwriting_is_in_two_splits(source):
    splits = (source.train.pictures, source.val.pictures, source.test.pictures)
    sets = [{digit.tobytes() for digit in split.handwriting} for split in splits]
    pixels, numbers = load_digits(return_X_y=True)
    every = {digit.astype(np.uint8).tobytes() for digit in np.asarray(pixels)[np.asarray(numbers) < 5]}
    assert sets[0] | sets[1] | sets[2] == every
    assert sum(map(len, sets)) == len(every)
    counts = [np.bincount(split.labels, minlength=6)[1:].tolist() for split in splits]
    assert counts[1:] == [[25] * 5, [50] * 5]
    assert min(counts[0]) > 100


def test_the_test_scenes_use_the_test_split_of_the_digits(source):
    pixels, numbers = (torch.from_numpy(np.asarray(array)) for array in load_digits(return_X_y=True))
    classes = [str(number) for number in range(10)]
    _, held = stratified_split(numbers, classes, [50] * 10, 0, "sources", "digits", "test")
    theirs = {pixels[index].numpy().astype(np.uint8).tobytes() for index in held.tolist()}
    assert {digit.tobytes() for digit in source.test.pictures.handwriting} <= theirs


def test_tags_have_their_shares():
    data = scenes_source(250, 1, 1).train
    tags = [own for index in range(len(data)) for own in data.tags(index)]
    shares = {name: sum(name in own for own in tags) / len(tags) for name in ("small", "blurred", "occluded")}
    assert 0.2 < shares["small"] < 0.4
    assert 0.15 < shares["blurred"] < 0.25
    assert 0.2 < shares["occluded"] < 0.4
    assert sum(not own for own in tags) / len(tags) > 0.3


def arranged(index: int, **changes) -> Layout:
    pixels, numbers = (np.asarray(array) for array in load_digits(return_X_y=True))
    options = {"canvas": 96, "objects": (4, 6), "sides": (12, 40), "blurred": 0.2, "occluded": 0.6} | changes
    handwriting = pixels.reshape(-1, 8, 8).astype(np.uint8)
    return arrange(handwriting, numbers + 1, **options, draws=np.random.default_rng(index))  # pyright: ignore


def test_boxes_are_tight_around_what_would_be_seen_uncovered():
    for index in range(20):
        for digit in arranged(index).digits:
            x1, y1, x2, y2 = digit.box
            assert digit.solid[y1:y2, x1:x2].sum() == digit.solid.sum() > 0
            inside = digit.solid[y1:y2, x1:x2]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_what_is_hidden_is_what_later_digits_and_bars_cover():
    most = 0.0
    for index in range(30):
        layout = arranged(index)
        for place, digit in enumerate(layout.digits):
            shown = digit.solid.copy()
            for other in layout.digits[place + 1 :]:
                shown &= ~other.solid
            for under, bar in layout.bars:
                if place < under:
                    shown &= ~bar
            assert (shown == digit.shown).all()
            assert digit.hidden == pytest.approx(1 - shown.sum() / digit.solid.sum())
            assert digit.hidden <= 0.5
            most = max(most, digit.hidden)
    assert most > 0.3


def test_without_occlusion_digits_keep_clear():
    for index in range(20):
        layout = arranged(index, occluded=0.0)
        assert layout.bars == []
        for place, digit in enumerate(layout.digits):
            assert digit.hidden == 0
            for other in layout.digits[:place]:
                apart = (digit.box[0] - other.box[2], other.box[0] - digit.box[2])
                below = (digit.box[1] - other.box[3], other.box[1] - digit.box[3])
                assert max(*apart, *below) >= 2


def test_an_enlarged_digit_fills_its_side():
    pixels = np.asarray(load_digits(return_X_y=True)[0]).reshape(-1, 8, 8).astype(np.uint8)
    for side in (12, 30, 64):
        draws = np.random.default_rng(0)
        heights = []
        for digit in pixels[:30]:
            ink = enlarge(digit, side, draws)
            assert (ink.min(), ink.dtype) == (0, np.float32)
            assert ink.max() <= 1
            rows = np.flatnonzero((ink > 0.4).any(1))
            heights.append((rows[-1] - rows[0] + 1) / side)
        assert 0.85 < np.median(heights) < 1.15


def test_ink_is_painted_where_the_digit_is_and_covered_where_it_is_covered():
    """Large and plain: inside the solid pixels one color, apart from noise; at a bar the bar's."""
    solid = np.zeros((64, 64), dtype=bool)
    solid[20:44, 24:40] = True
    digit = Digit(1, np.ones((24, 16), np.float32), (24, 20), solid, solid, (24, 20, 40, 44), False)
    bar = np.zeros((64, 64), dtype=bool)
    bar[30:34] = True
    for seed in range(5):
        plain = paint(Layout([digit]), canvas=64, clutter=8, draws=np.random.default_rng(seed)).astype(float)
        without = paint(Layout(), canvas=64, clutter=8, draws=np.random.default_rng(seed)).astype(float)
        assert plain[:, solid].std(1).max() < 12
        assert np.abs(plain[:, solid].mean() - plain[:, ~solid].mean()) > 5
        assert without[:, solid].std(1).min() > plain[:, solid].std(1).min()
        barred = paint(Layout([digit], [(1, bar)]), canvas=64, clutter=8, draws=np.random.default_rng(seed)).astype(
            float
        )
        assert barred[:, bar].std(1).max() < 14
        assert np.abs(barred[:, bar].mean(1) - barred[:, solid & ~bar].mean(1)).max() > 5


def test_settings_reach_the_scenes():
    settings = SceneSettings(size=64, classes=10, objects=(2, 2), sides=(10, 14), **PLAIN)
    data = scenes_source(20, 1, 1, settings=settings).train
    assert data.image(0).shape == (3, 64, 64)
    assert {len(data.annotations(index)) for index in range(20)} == {2}
    assert all(tags <= {"small"} for index in range(20) for tags in data.tags(index))
    assert len(data.classes) == 10
    assert max(max(data.annotations(index).labels.tolist()) for index in range(20)) > 7


def test_an_empty_scene_is_possible():
    data = scenes_source(12, 1, 1, settings=SceneSettings(size=32, objects=(0, 1), sides=(8, 12))).train
    empty = [index for index in range(12) if not len(data.annotations(index))]
    assert 0 < len(empty) < 12
    assert data.annotations(empty[0]).boxes.shape == (0, 4)
    assert data.image(empty[0]).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 16}, "scenes of 16 pixels with digits of 12 to 64: a scene needs at least 32 pixels"),
        ({"size": 64}, "scenes of 64 pixels with digits of 12 to 64"),
        ({"sides": (30, 20)}, "with digits of 30 to 20"),
        ({"sides": (4, 20)}, "with digits of 4 to 20"),
        ({"classes": 1}, "scenes with 1 classes"),
        ({"classes": 11}, "scenes with 11 classes"),
        ({"objects": (0, 0)}, "0 to 0 digits"),
        ({"objects": (3, 2)}, "3 to 2 digits"),
        ({"clutter": -1}, "-1 shapes"),
        ({"blurred": 1.5}, r"shares of digits, blurred 1.5 and occluded 0.3: give 0 to 1\."),
    ],
)
def test_settings_that_make_no_scene(settings, message):
    with pytest.raises(DistilError, match=message):
        SceneSettings(**settings)


def test_no_scenes_are_refused():
    with pytest.raises(DistilError, match="5 training, 0 validation and 1 test scenes: give 1 or more of each"):
        scenes_source(5, 0, 1)
