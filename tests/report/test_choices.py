"""The picture of cosines over a run."""

import numpy as np

from distil.report.choices import draw_choices


def chosen(step, kept):
    return {"event": "cosines", "step": step, "kept": kept}


def test_one_choice_is_no_picture():
    assert draw_choices([], (1, 4, 4)) is None
    assert draw_choices([chosen(0, [1, 2]), {"event": "step", "step": 3}], (1, 4, 4)) is None


def test_what_entered_left_and_stayed_has_its_own_color():
    figure = draw_choices([chosen(0, [0, 1]), {"event": "step", "step": 1}, chosen(5, [1, 17])], (2, 4, 4))
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    assert [axes.get_title() for axes in figure.axes] == ["to begin with", "from step 5, 1 entered"]
    assert first.shape == (4, 9, 3)  # two planes and a gap
    colors = {place: tuple(np.round(second[place], 2)) for place in ((0, 0), (0, 1), (0, 6), (3, 3))}
    assert len(set(colors.values())) == 4
    assert tuple(np.round(first[0, 0], 2)) == tuple(np.round(first[0, 1], 2)) == colors[0, 1]
    assert tuple(np.round(first[0, 6], 2)) == colors[3, 3]


def test_of_many_choices_the_first_and_the_last_are_among_six():
    figure = draw_choices([chosen(10 * i, [i]) for i in range(40)], (1, 8, 8))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 6
    assert titles[0] == "to begin with"
    assert titles[-1].startswith("from step 390")


def test_damaged_lines_are_no_choices():
    damaged = [
        {"event": "cosines"},
        {"event": "cosines", "step": "x", "kept": [1]},
        *(chosen(5, kept) for kept in (None, "12", [99], [-1], ["1"], [True], [[1]])),
    ]
    figure = draw_choices([chosen(0, [0]), *damaged, chosen(9, [1])], (1, 4, 4))
    assert [axes.get_title() for axes in figure.axes] == ["to begin with", "from step 9, 1 entered"]
