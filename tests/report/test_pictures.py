from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.functional.regions import candidate_windows, grid_regions, whole_region
from distil.parameterizations.crops import Crops
from distil.parameterizations.dct import Dct
from distil.report.detections import draw_training
from distil.report.pictures import (
    MINED,
    bytes_in_words,
    draw_curves,
    draw_set,
    save_figure,
)


def make_set(
    *, classes=3, per_class=1, channels=1, size=(16, 16), factor=2, mined=0, utilization=False, names=None
) -> DistilledSet:
    generator = torch.Generator().manual_seed(0)
    count = classes * per_class
    regions = grid_regions(factor, size) if factor > 1 else whole_region(size)
    regions = torch.cat([regions, candidate_windows(2, size)[1 : 1 + mined]])
    pixels = torch.randint(0, 256, (count, channels, *size), generator=generator, dtype=torch.uint8)
    used = torch.rand(count, *size, generator=generator) if utilization else None
    return DistilledSet(
        params=pixels,
        labels=torch.arange(classes).repeat_interleave(per_class),
        parameterization=Crops(regions[None], size, mined, utilization=used),
        classes=names or tuple(f"class {index}" for index in range(classes)),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        method="udd",
        settings={"factor": factor},
        seed=0,
        source="demo",
        source_fingerprint="00",
    )


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text")) if text.get_text()]


def rendered(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize(
    ("values", "axes"),
    [
        ({"factor": 1}, 1),
        ({"factor": 1, "per_class": 3}, 1),
        ({"factor": 1, "utilization": True}, 3),
        ({}, 2),
        ({"mined": 2}, 2),
        ({"mined": 2, "utilization": True}, 4),
        ({"per_class": 50, "classes": 2}, 2),
        ({"size": (3, 40), "channels": 3}, 2),
        ({"size": (200, 180), "factor": 3, "classes": 2}, 2),
        ({"channels": 2}, 2),
    ],
)
def test_a_set_is_drawn_in_as_many_panels_as_it_has_to_show(values, axes):
    figure = draw_set(make_set(**values))
    assert len(figure.axes) == axes
    picture = rendered(figure)
    assert picture.min() < 80
    assert (picture[0] == 255).all()


def test_every_stored_pixel_covers_a_whole_number_of_screen_pixels():
    made = make_set(factor=1, classes=2)
    picture = rendered(draw_set(made))
    expected = made.params[1, 0].repeat_interleave(9, 0).repeat_interleave(9, 1).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], expected.shape)
    corners = np.argwhere((windows[:, :, 0, 0] == expected[0, 0]) & (windows[:, :, -1, -1] == expected[-1, -1]))
    assert any(np.array_equal(windows[row, column], expected) for row, column in corners)


def test_large_images_are_made_small():
    figure = draw_set(make_set(size=(400, 400), classes=2))
    height, width = rendered(figure).shape[:2]
    assert height < 600
    assert width < 1400


def test_a_hundred_classes_are_cut_and_the_title_says_so():
    figure = draw_set(make_set(classes=100, per_class=5, size=(8, 8)))
    shown = texts(figure)
    assert any("first 10 of 100 classes" in text and "first 3 of 5 images a class" in text for text in shown)
    assert "class 9" in shown
    assert "class 10" not in shown
    assert "class 11" in texts(draw_set(make_set(classes=12, size=(8, 8)), classes_shown=12))


def test_shown_numbers_can_be_chosen():
    figure = draw_set(make_set(per_class=4, mined=3), per_class=4, images_shown=5)
    shown = texts(figure)
    assert "First 5 of 7 decoded images" in shown
    assert not any("images a class" in text for text in shown)


def test_mined_regions_have_strong_colors_and_frame_their_images():
    items, images = draw_set(make_set(mined=2)).axes
    strong = [to_rgba(color) for color in MINED[:2]]
    for axes in (items, images):
        last = axes.collections[-1]
        assert len(last.get_paths()) == 2 * 3
        assert [tuple(color) for color in last.get_edgecolor()] == strong * 3  # pyright: ignore[reportArgumentType]
    plain = draw_set(make_set()).axes
    assert all(len(axes.collections[-1].get_paths()) == 0 for axes in plain)


def test_classes_without_an_item_and_uneven_classes_are_drawn():
    made = replace(make_set(classes=4), labels=torch.tensor([0, 0, 0, 3]))
    shown = texts(draw_set(made))
    assert "class 3" in shown
    assert "class 1" not in shown
    soft = torch.eye(4)[[2, 1, 0, 3]][:, None].expand(4, 4, 4)
    assert len(draw_set(replace(made, labels=soft)).axes) == 2


@pytest.mark.parametrize("factor", [1, 2])
def test_odd_class_names_draw_without_warnings(tmp_path, factor):
    names = ("$x^2", "飛行機 \U0001f6e9", "a very long name of a class that takes two lines")
    made = make_set(names=names, factor=factor)
    save_figure(draw_set(made), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"


def test_saving_is_the_same_twice_and_names_a_path_that_fails(tmp_path):
    for name in ("a.png", "b"):
        save_figure(draw_set(make_set()), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(DistilError, match=r"cannot write .*a\.png/c\.png"):
        save_figure(draw_set(make_set()), tmp_path / "a.png" / "c.png")


def test_curves_show_loss_and_accuracy_by_method():
    logs = {
        "idc": [{"event": "step", "step": step, "loss": 8.0 / (step + 1)} for step in range(80)]
        + [{"event": "validation", "step": 40, "accuracy": 50.0}, {"event": "validation", "step": 80, "accuracy": 60}],
        "_udd $": [{"event": "step", "step": 0, "loss": float("nan")}, {"event": "step", "step": 1, "loss": 2.0}],
        "random": [{"event": "done"}],
    }
    figure = draw_curves(logs)
    loss, accuracy = figure.axes
    rendered(figure)
    smooth = loss.lines[1].get_ydata()
    assert smooth[0] == 1  # pyright: ignore[reportIndexIssue]
    assert smooth[-1] == pytest.approx((8 / 79 + 8 / 80) / (8 + 4), rel=1e-6)  # pyright: ignore[reportIndexIssue]
    assert [line.get_label() for line in loss.lines[1::2]] == ["idc", "\u200b_udd $"]
    assert accuracy.lines[0].get_xdata().tolist() == [40, 80]  # pyright: ignore[reportAttributeAccessIssue]
    assert accuracy.lines[0].get_ydata().tolist() == [50, 60]  # pyright: ignore[reportAttributeAccessIssue]


def test_curves_without_points_say_so():
    figure = draw_curves({"random": []})
    assert figure.axes == []
    assert "Nothing was logged" in texts(figure)
    assert len(draw_curves({"a": iter([{"event": "validation", "step": 1, "accuracy": 3.0}])}).axes) == 1


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2586, "2.6 kB"), (390_000, "390 kB"), (999_600, "1.0 MB")],
)
def test_bytes_in_words(count, words):
    assert bytes_in_words(count) == words


@pytest.mark.parametrize("channels", [1, 3])
def test_a_set_of_coefficients_shows_its_images_and_the_frequencies_kept(channels):
    kept = torch.tensor([0, 1, 16, 17])
    placed = Dct(kept, (channels, 16, 16), 8, torch.full((4,), 3.0))
    made = replace(make_set(channels=channels, factor=1), parameterization=placed)
    figure = draw_set(made, images_shown=5)
    assert made.images_per_item == channels * 64
    words = " ".join(texts(figure))
    assert f"First 5 of {made.images_per_item} images" in words
    assert ("brightness" in words) == (channels == 3)
    assert f"{made.images_per_item} decoded images each" in words
    picture = figure.axes[1].images[0].get_array()
    dark = (np.asarray(picture)[..., 0] < 128).sum()
    assert dark == 4 * 6 * 6


NONSENSE = [None, "3", True, [1], {}, 10**400, float("nan")]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda value: repr(value)[:9])
def test_damaged_lines_of_a_log_are_left_out_of_the_curves(nonsense):
    lines = [{"event": "step", "step": 1, "loss": 2.0}, {"event": "step", "step": 2, "loss": 1.0}]
    damaged = [{"event": "step"}, {"event": "step", "step": nonsense, "loss": 1.0}]
    damaged += [{"event": "step", "step": 3, "loss": nonsense}, {"event": [], "step": 3, "loss": 1.0}]
    (axes,) = draw_curves({"a": [*damaged, *lines]}).axes
    drawn = [np.asarray(line.get_xdata()).tolist() for line in axes.get_lines()]
    assert {tuple(places) for places in drawn if len(places) > 1} == {(1, 2)}


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda value: repr(value)[:9])
def test_damaged_lines_of_a_log_are_left_out_of_the_trainings(nonsense):
    lines = [{"event": "step", "step": step, "losses": {"box": 1.0, "class": 0.5}} for step in (1, 2)]
    lines += [{"event": "validation", "step": step, "ap": 30.0} for step in (1, 2)]
    damaged = [{"event": "step", "step": 3, "losses": nonsense}, {"event": "step", "losses": {"box": 1.0}}]
    damaged += [{"event": "step", "step": nonsense, "losses": {"box": 2.0}}, {"event": "validation", "step": 1}]
    damaged += [{"event": "step", "step": 3, "losses": {"box": nonsense}}, {"event": "validation", "ap": 2.0}]
    damaged += [{"event": "validation", "step": 4, "ap": nonsense}]
    left, right = draw_training({"a": [*damaged, *lines]}).axes
    assert [list(line.get_xdata()) for line in left.get_lines()] == [[1, 2]]  # pyright: ignore[reportArgumentType]
    assert [list(line.get_xdata()) for line in right.get_lines()] == [[1, 2], [1, 2]]  # pyright: ignore
