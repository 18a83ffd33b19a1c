"""What the names of folders, arrays and dataset splits say: training, test or validation data."""

import re
from typing import Literal

SplitWord = Literal["train", "test", "val"]

WORDS: dict[str, SplitWord] = {
    **{"train": "train", "training": "train"},
    **{"test": "test", "testing": "test", "evaluation": "test"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val"},
}
NAME = re.compile(rf"({'|'.join(WORDS)})(?:[-_ ]?(?:\d{{4}}|set|split|data|images|imgs))?")


def split_word(name: str) -> SplitWord | None:
    """The split that a name stands for: "Training", "val2017" and "test_set" do; "freight_train" and "tests" do not."""
    found = NAME.fullmatch(name.lower())
    return WORDS[found[1]] if found else None


def loose_split_word(name: str) -> SplitWord | None:
    """Also the split of a longer name that begins or ends with such a word: "seg_train", "test-part-2".

    A class may be called so too: ask this only where something else speaks for a split.
    """
    if word := split_word(name):
        return word
    parts = [part for part in re.split(r"[^a-z]+", name.lower()) if part]
    found: set[SplitWord] = {WORDS[part] for part in (parts[:1] + parts[-1:]) if part in WORDS}
    return found.pop() if len(found) == 1 else None
