"""Settings that a run saved: what cannot be used is refused with the name of its flag."""

import pytest

from distil.errors import DistilError
from distil.settings import settings_from_dict


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"the settings in the saved run are \[\]"),
        ({"method": ["idc"]}, "--method is .*: it must be text"),
        ({"method": "random", "ipc": "1"}, "--ipc is '1': give a whole number"),
        ({"method": "random", "factor": 1}, "unknown setting 'factor' in the saved run"),
        ({"width": 10**9}, "--width is 1000000000: give at most 4096"),
        ({"ipc": 0}, "--ipc is 0: it must be above 0"),
        ({"factor": 10**6}, "--factor is 1000000: give at most 31"),
        ({"validations": 10**9}, "--validations is 1000000000: give at most 10000"),
        ({"windows_mask": None}, "--windows-mask is None: it must be true or false"),
        ({"storage": 8}, "--storage is 8: choose from uint8, float32, uint4"),
        ({"lr_image": None}, "--lr-image is None: give a finite number"),
        ({"validation": 2}, "--validation is 2: it is the share of images held out"),
    ],
)
def test_saved_settings_of_a_distilled_set_are_refused_by_field(values, message):
    with pytest.raises(DistilError, match=message):
        settings_from_dict(values)
