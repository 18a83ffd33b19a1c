"""The examples of parts that a user writes: they run, are saved with the set, and stop and resume with the run."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distil.dataset.distil import distil_dataset
from distil.distilled_set.export import export
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.evaluation.protocols import PROTOCOLS
from distil.report.pictures import draw_set
from distil.runs import RESULT

from .conftest import changed, loop_of, make_images, tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGES = Path(__file__).parents[2] / "docs" / "extend"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Examples can be imported, and judge by networks of 150 updates."""
    monkeypatch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], max_updates=150, whole_updates=150))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in [path.stem for path in EXAMPLES.glob("*.py")]:
        sys.modules.pop(name, None)


def test_the_objective_of_the_example_learns():
    import own_objective

    assert own_objective.main(outer=12) > 50


def test_the_policy_of_the_example_keeps_what_varies():
    import own_policy

    assert own_policy.main(outer=1) > 50


def test_the_parameterization_of_the_example_is_saved_and_evaluated(tmp_path):
    import own_parameterization

    assert own_parameterization.main(tmp_path, outer=1) > 50
    with pytest.raises(DistilError, match=r"blends.*parameterizations=\[\.\.\.\]"):
        DistilledSet.load(tmp_path / "blends.safetensors")
    made = DistilledSet.load(tmp_path / "blends.safetensors", [own_parameterization.Blends])
    assert len(made.decoded().images) == 10 * 10
    export(made, "npz", tmp_path / "blends.npz")
    made.as_images().save(tmp_path / "images.safetensors")
    images = DistilledSet.load(tmp_path / "images.safetensors").decoded()
    assert (images.images - made.decoded().images).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(images.labels, made.decoded().labels)
    assert {text.get_text() for axes in draw_set(made).axes for text in axes.texts} >= {"Items", "Decoded images"}


def test_a_parameterization_of_another_shape_than_the_data_is_refused(real):
    from own_parameterization import Blends

    small = replace(tiny(), parameterization=Blends((4, 4)))
    with pytest.raises(DistilError, match=r"Blends\.decode made images of shape \[10, 1, 4, 4\] of one item: expected"):
        distil_dataset(real, small)

    class Flat(Blends):
        def encode(self, images):
            return super().encode(images).flatten(1)

    with pytest.raises(DistilError, match=r"Flat\.encode made parameters of shape \[\d+, \d+\]: expected \["):
        distil_dataset(real, replace(tiny(), parameterization=Flat(real.size)))

    class Unbounded(Blends):
        def quantize(self, params):
            return 2 + params, self

    with pytest.raises(DistilError, match=r"what Unbounded\.quantize made cannot be saved: params reach from 2"):
        distil_dataset(real, replace(tiny(), parameterization=Unbounded(real.size)))


def test_what_is_no_parameterization_is_refused(real):
    with pytest.raises(DistilError, match="parameterization is 'object', which can neither decode nor be called"):
        distil_dataset(real, replace(tiny(), parameterization=object()))


def test_images_of_a_class_that_begin_as_the_same_real_image_differ():
    """Ten decoded images of an item, six real images of a class: four are shown again, with noise."""
    from own_parameterization import Blends

    few, seen = make_images(each=6), []

    class Watched(Blends):
        def encode(self, images):
            seen.append(images)
            return super().encode(images)

    loop_of(few, replace(tiny(), parameterization=Watched(few.size)))
    assert len(seen) == 3
    for images in seen:
        assert len(images.flatten(0, 1).flatten(1).unique(dim=0)) == 10


def test_a_parameterization_with_a_state_of_its_own_resumes(real, tmp_path):
    from own_parameterization import Blends

    class Dimmed(Blends):
        def state(self):
            return {"shade": torch.tensor([1, 2])}

    settings = replace(tiny(), parameterization=Dimmed(real.size))
    whole = distil_dataset(real, settings, folder=tmp_path)
    assert torch.equal(distil_dataset(real, settings, folder=tmp_path, resume=True).params, whole.params)


def test_the_network_of_the_example_serves_the_matching():
    import own_network

    assert own_network.main(outer=2) > 50


def test_dreams_sampler_is_one_short_file_and_its_page_shows_it_whole():
    import dream_sampler

    text = (EXAMPLES / "dream_sampler.py").read_text()
    assert len(text.splitlines()) <= 40
    body = text[text.index("@dataclass") : text.index("def main")].strip()
    assert body in (PAGES / "sampler.md").read_text()
    assert dream_sampler.main(outer=1).settings["sampler"] == {
        "kind": "dream_sampler.KMeansBatches",
        "batch": 32,
        "pool": 128,
    }


def test_dreams_batches_are_images_of_the_class_and_with_all_images_as_centers_idcs(real):
    """With as many centers as a class has images, every image is its own center: IDC with the whole class."""
    from dream_sampler import KMeansBatches

    plain = loop_of(real, tiny(batch=12, augment="none"))
    dream = loop_of(real, replace(plain.settings, sampler=KMeansBatches(12, 12)))
    state = plain.networks.fresh(0)
    images = dream.sampler(real, 1, state.net, torch.Generator().manual_seed(0), 0)
    of_class = real.batch(real.by_class[1]).images
    assert torch.equal(images.flatten(1).unique(dim=0), of_class.flatten(1).unique(dim=0))
    few = KMeansBatches(4, 12)(real, 1, state.net, torch.Generator().manual_seed(0), 0)
    assert len(few.flatten(1).unique(dim=0)) == 4


class Stops(Exception):
    pass


@pytest.mark.parametrize("part", ["objective", "policy", "sampler", "networks", "parameterization"])
def test_a_run_with_a_part_of_ones_making_resumes_from_python_alone(real, tmp_path, part):
    from dream_sampler import KMeansBatches
    from own_network import FreshTwoLayers
    from own_objective import MomentMatching
    from own_parameterization import Blends
    from own_policy import Variance

    if part == "objective":
        settings = replace(tiny(), objective=MomentMatching())
    elif part == "parameterization":
        settings = replace(tiny(), parameterization=Blends(real.size))
    elif part == "sampler":
        settings = replace(tiny(), sampler=KMeansBatches(4, 8))
    elif part == "networks":
        channels, side = real.images.shape[1:3]
        settings = replace(tiny(), networks=FreshTwoLayers(channels, side, len(real.classes)))
    else:
        settings = tiny("udd")
        settings = replace(settings, parameterization=replace(settings.parameterization, policy=Variance()))
    whole = distil_dataset(real, settings, folder=tmp_path / "whole")

    def stop(name, **fields):
        if name == "checkpoint" and fields["step"] == 3:
            raise Stops

    with pytest.raises(Stops):
        distil_dataset(real, settings, folder=tmp_path / "run", events=stop, checkpoint_seconds=0.0)
    again = distil_dataset(real, settings, folder=tmp_path / "run", resume=True)
    assert torch.equal(again.params, whole.params)
    assert (tmp_path / "run" / RESULT).read_bytes() == (tmp_path / "whole" / RESULT).read_bytes()
    known = [Blends] if part == "parameterization" else []
    assert DistilledSet.load(tmp_path / "run" / RESULT, known).settings == again.settings
    with pytest.raises(DistilError, match="seed was 0 and is 3"):
        distil_dataset(real, changed(settings, seed=3), folder=tmp_path / "run", resume=True)


def test_a_network_forgets_less_with_distilled_images_of_before():
    import class_incremental

    found = class_incremental.main(ipc=1, updates=12, outer=1, inner=3)
    assert list(found) == ["nothing", "1 random images per class", "1 distilled items per class (idc)"]
    assert found["nothing"] > 50
    assert found["1 distilled items per class (idc)"] < found["nothing"] - 20
