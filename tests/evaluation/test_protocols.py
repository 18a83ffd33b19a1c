import subprocess
import sys
from dataclasses import replace

import pytest

from distil.errors import DistilError
from distil.evaluation.protocols import PROTOCOLS, lr_at, protocol_for, updates_of

IDC, DC, QUICK = PROTOCOLS["idc"], PROTOCOLS["dc"], PROTOCOLS["quick"]


def test_published_numbers():
    for protocol in (IDC, DC):
        assert (protocol.epochs, protocol.lr, protocol.momentum, protocol.weight_decay) == (1000, 0.01, 0.9, 5e-4)
        assert protocol.max_updates is None
    assert (IDC.batch, IDC.cutmix, IDC.one) == (64, 0.5, False)
    assert (DC.batch, DC.cutmix, DC.one) == (256, 0.0, True)
    assert set(DC.strategy.split("_")) - set(IDC.strategy.split("_")) == {"cutout"}
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())


def test_idc_learning_rates_of_a_thousand_epochs():
    # one update an epoch: the release's milestones are 2 * 1000 // 3 = 666 and 5 * 1000 // 6 = 833
    rates = [lr_at(IDC, update, 1000) for update in range(1000)]
    assert rates[:666] == [0.01] * 666
    assert rates[666:833] == pytest.approx([0.002] * 167)
    assert rates[833:] == pytest.approx([0.0004] * 167)


def test_dc_learning_rates_drop_once_at_half():
    rates = [lr_at(DC, update, 600) for update in range(600)]
    assert rates[:300] == [0.01] * 300
    assert rates[300:] == pytest.approx([0.001] * 300)


def test_milestones_follow_the_capped_run():
    total = updates_of(QUICK, 100_000)
    rates = [lr_at(QUICK, update, total) for update in range(total)]
    assert total == 600
    assert [update for update in range(1, total) if rates[update] != rates[update - 1]] == [400, 500]


def test_updates_count_the_short_last_batch():
    assert updates_of(IDC, 10) == 1000
    assert updates_of(IDC, 64) == 1000
    assert updates_of(IDC, 65) == 2000
    assert updates_of(QUICK, 10) == updates_of(QUICK, 40) == updates_of(QUICK, 3200) == 600
    assert updates_of(PROTOCOLS["medium"], 10) == updates_of(PROTOCOLS["medium"], 3200) == 2400


def test_a_published_size_is_never_cut_but_a_whole_set_is():
    assert updates_of(IDC, 50 * 10 * 4) == 32_000
    assert updates_of(IDC, 50 * 10 * 4, whole=True) == 20_000
    assert updates_of(DC, 50_000, whole=True) == 20_000
    assert updates_of(DC, 10, whole=True) == 1000


@pytest.mark.parametrize("name", PROTOCOLS)
def test_only_sources_that_keep_their_meaning_are_flipped(name):
    for key in ("mnist", "svhn", "digits"):
        strategy = protocol_for(name, key).strategy
        assert "flip" not in strategy
        assert set(PROTOCOLS[name].strategy.split("_")) - set(strategy.split("_")) == {"flip"}
    for key in ("fashionmnist", "cifar10", "cifar100", "custom"):
        assert protocol_for(name, key) == PROTOCOLS[name]


def test_mnist_is_judged_without_cutmix_under_idc_alone():
    assert protocol_for("idc", "mnist").cutmix == 0
    assert protocol_for("idc", "mnist").strategy == "color_crop_scale_rotate"
    assert protocol_for("idc", "svhn").cutmix == 0.5
    assert protocol_for("quick", "mnist").cutmix == 0.5


def test_an_unknown_protocol_is_named_with_the_nearest():
    with pytest.raises(
        DistilError, match=r"unknown protocol 'quik'. Did you mean quick\? Choose from idc, dc, rded, quick"
    ):
        protocol_for("quik", "mnist")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0, it must be at least 1"),
        ({"max_updates": 0}, "max_updates is 0, it must be at least 1"),
        ({"lr": 0.0}, r"lr is 0.0, it must be above 0"),
        ({"cutmix": 1.5}, "cutmix is 1.5, it is a probability"),
    ],
)
def test_impossible_protocols_are_refused(change, message):
    with pytest.raises(DistilError, match=message):
        replace(QUICK, **change)


def test_naming_protocols_does_not_import_torch():
    code = "import sys, distil.evaluation.protocols; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
