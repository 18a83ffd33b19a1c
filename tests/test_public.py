import re
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import distil
from distil.cli import detector_tour
from distil.data.detection import opener, scenes
from distil.dataset import distil as distilling
from distil.dataset.methods import METHODS, preset
from distil.detector import presets as detector_presets
from distil.evaluation import evaluator
from tests.dataset.conftest import changed_where

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def tiny(settings):
    """The same settings at a size that takes no time."""
    small = {"width": 8, "outer": 2, "inner": 1, "network_samples": 8, "batch": 4, "validations": 0, "proxy_steps": 2}
    return changed_where(settings, **small, network_epochs=1)


@pytest.fixture
def tiny_runs(monkeypatch, tmp_path):
    """In a new folder; makers and judges with small networks and few steps, whatever they are asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    make = distilling.distil_dataset

    def quick_run(images, method="udd", *, ipc=1, seed=0, recipe=None, **options):
        key = "digits" if images == "digits" else getattr(images, "key", "custom")
        settings = preset(method, key, ipc, recipe, seed=seed) if isinstance(method, str) else method
        return make(images, tiny(settings), **options)

    monkeypatch.setattr(distilling, "distil_dataset", quick_run)
    for name in ("evaluate_distilled", "evaluate_real"):
        original = getattr(evaluator, name)

        def quick(*sets, original=original, **options):
            *sets, protocol = sets
            few = replace(protocol, max_updates=3, whole_updates=3)
            return original(*sets, few, **options | {"width": 8, "runs": 1})

        monkeypatch.setattr(evaluator, name, quick)
    few = partial(scenes.scenes_source, 4, 2, 2)
    monkeypatch.setattr(opener, "scenes_source", lambda *count, seed=0: few(seed=seed))
    monkeypatch.setattr(detector_presets, "SCENES", detector_presets.SCENES | {"epochs": 1, "teacher_floor": 0.0})
    monkeypatch.setattr(detector_tour, "run_detector_demo", partial(detector_tour.run_detector_demo, epochs=(1, 2)))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


# -------------------------------------------------------------------------------------------------------- the package


def test_importing_distil_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'rich', 'tyro', 'matplotlib', 'sklearn', 'safetensors'}"
    done = run_python(f"import sys, distil; dir(distil); assert not {heavy} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_says_what_it_is():
    assert distil.__all__ == sorted(distil.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    for name in distil.__all__:
        value = getattr(distil, name)
        assert isinstance(value, dict) or (value.__doc__ and not value.__doc__.startswith(f"{name}(")), name
    assert set(dir(distil)) == {*distil.__all__, "__version__"}
    scope = {}
    exec("from distil import *", scope)
    assert set(distil.__all__) <= scope.keys()


def test_public_functions_stay_functions_whatever_is_imported():
    code = "import distil.evaluation.evaluator, distil.distilled_set.export, distil\n"
    code += "assert callable(distil.export) and callable(distil.evaluate_distilled)"
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'distil' has no attribute 'distill'"):
        distil.distill  # noqa: B018


# --------------------------------------------------------------------------------------------------------- the README


@pytest.mark.parametrize("marker", ["demo", "test"])
def test_the_two_commands_are_one_line_each_and_make_their_own_environment(marker):
    block = re.search(rf"<!-- {marker} -->\n```bash\n(.*?)```", README, re.DOTALL).group(1)
    assert block.count("\n") == 1
    assert block.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
    program = shlex.split(block.split("&&")[-1])[0]
    assert program in (".venv/bin/distil", ".venv/bin/pytest")


def tour():
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ distil ")]
    return [shlex.split(line.removeprefix("$ distil "), comments=True) for line in lines]


def test_the_tour_runs_as_written(tiny_runs, capsys):
    commands = tour()
    assert {words[0] for words in commands} >= {
        "dataset",
        "evaluate",
        "compare",
        "show",
        "export",
        "methods",
        "detector",
        "demo",
    }
    for words in commands:
        few = ["1" if before == "--seeds" else word for before, word in zip(["", *words], words, strict=False)]
        assert distil_main(few) == 0, (few, capsys.readouterr().err)


def distil_main(words):
    from distil.cli.main import main

    return main(words)


def test_the_python_blocks_run_as_written(tiny_runs, capsys):
    make = next(words for words in tour() if words[0] == "dataset")
    assert distil_main(make) == 0
    examples = blocks("python")
    assert len(examples) == 2
    for code in examples:
        with torch.random.fork_rng():
            exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_plain_pytorch_example_is_ten_lines_that_use_one_name_of_ours():
    code = blocks("python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    assert re.findall(r"^(?:from|import) (distil.*)$", code, re.MULTILINE) == ["distil import DistilledSet"]


def test_the_methods_table_names_every_method():
    firsts = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", README, re.MULTILINE)
    names = [name for first in firsts for name in re.findall(r"`([a-z-]+)`", first)]
    assert sorted(names) == sorted(METHODS)


def test_published_numbers_in_the_table_are_those_of_the_presets():
    for name, method in METHODS.items():
        values = method.published.get("cifar10")
        if values is not None:
            shown = " / ".join("-" if value is None else f"{value:.1f}" for value in values)
            assert re.search(rf"^\| `{name}` \|.*\| {re.escape(shown)} \|$", README, re.MULTILINE), (name, shown)
