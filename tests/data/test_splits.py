import pytest

from distil.data.splits import loose_split_word, split_word


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("train", "train Training TRAIN train2017 training_set train-images trainset train_data"),
        ("test", "test Testing TEST test_set test2014 evaluation"),
        ("val", "val valid Validation dev Eval val2017 dev-set"),
        (None, "trains bullet_train freight-train tests testament device evaluate seg_train train_station 2017 trai"),
    ],
)
def test_only_plain_names_stand_for_a_split(word, names):
    assert {split_word(name) for name in names.split()} == {word}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("seg_train", "train"),
        ("asl-alphabet-Test", "test"),
        ("train_part_1", "train"),
        ("ship", None),
        ("a_val_b", None),
    ],
)
def test_longer_names_may_stand_for_one(name, word):
    assert loose_split_word(name) == word


def test_a_name_with_two_words_stands_for_none():
    assert loose_split_word("train_or_test") is None
