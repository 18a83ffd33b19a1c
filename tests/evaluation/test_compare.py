import pytest
from rich.console import Console

from distil.errors import DistilError
from distil.evaluation.compare import compare_table, labels_told, to_markdown


def row(name="digits", method="idc", count=1, accuracies=(50.0, 53.0), **changes):
    mean = sum(accuracies) / len(accuracies)
    std = abs(accuracies[0] - accuracies[-1]) / 2**0.5
    return {
        "name": name,
        "method": method,
        "images_per_class": count,
        "bytes": 12345,
        "protocol": "quick",
        "protocol_version": 2,
        "protocol_settings": {"name": "quick", "cutmix": 0.5},
        "width": 32,
        "test": "digits test",
        "test_images": 1000,
        "runs": len(accuracies),
        "labels": "hard",
        "label_bytes": 1,
        "teacher": None,
        "temperature": None,
        "networks": {"convnet3": {"accuracies": list(accuracies), "mean": mean, "std": std}},
        **changes,
    }


def shown(table):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_table_in_markdown():
    other = row(method="whole set", count=None, accuracies=(90.0, 90.0))  # pyright: ignore[reportArgumentType]
    other["networks"]["vit"] = {"accuracies": [70.0], "mean": 70.0, "std": 0.0}
    assert to_markdown([row(), other]) == (
        "| name | method | images per class | bytes | labels | convnet3 (width 32) | vit (width 32) |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| digits | idc | 1 | 12,345 | hard | 51.5 ± 2.1 | - |\n"
        "| digits | whole set | all | 12,345 | hard | 90.0 ± 0.0 | 70.0 (1 run) |\n"
        "\n"
        "Protocol quick v2, hard labels: accuracy in % after the last epoch, mean ± standard deviation over 2 "
        "networks, on 1,000 images of digits test.\n"
    )


def test_the_terminal_shows_the_same():
    text = shown(compare_table([row(), row(method="dsa", width=None)]))
    for part in ("images per class", "convnet3 (width 32)", "51.5 ± 2.1", "12,345", "dsa", "Protocol quick v2"):
        assert part in text


def test_markup_in_a_name_is_shown_as_it_is():
    assert "[red]a|b" in shown(compare_table([row(name="[red]a|b")]))
    assert "| [red]a\\|b |" in to_markdown([row(name="[red]a|b")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "idc"}, r"protocol is quick v2 for the first and idc v2 for the second"),
        ({"test": "mnist test"}, "test is digits test for the first and mnist test for"),
        ({"labels": "stored"}, r"the label regime is hard for the first and stored for the second"),
        ({"labels": None}, r"the label regime is hard for the first and None for the second"),
        ({"test_images": 10}, "test images is 1000 for the first and 10 for"),
        (
            {"protocol_settings": {"name": "quick", "cutmix": 0.0}},
            r"digits \(idc\) and digits \(dsa\) .*: cutmix of the protocol is 0.5 for the first and 0.0 for",
        ),
    ],
)
@pytest.mark.parametrize("show", [compare_table, to_markdown])
def test_what_was_judged_differently_shares_no_table(show, change, message):
    with pytest.raises(DistilError, match=message):
        show([row(), row(method="dsa", **change)])


def test_nothing_to_compare():
    with pytest.raises(DistilError, match="nothing to compare"):
        compare_table([])


@pytest.mark.parametrize(("version", "title"), [(1, "quick v1"), (None, "quick of unknown version")])
def test_another_version_of_a_protocol_cannot_share_a_table(version, title):
    older = row(protocol_version=version)
    with pytest.raises(
        DistilError, match=rf"protocol is quick v2 for the first and {title} for the second\. Evaluate both"
    ):
        to_markdown([row(), older])
    assert f"Protocol {title}, hard labels: accuracy" in to_markdown([older])


def test_a_row_of_distil_0_1_tells_no_version():
    old = {key: value for key, value in row().items() if key != "protocol_version"}
    assert "Protocol quick of unknown version, hard labels: accuracy" in to_markdown([old])


def taught(name, sha256="a" * 64, temperature=20.0, regime="teacher"):
    teacher = {"words": [f"models/{name}.safetensors"], "sha256": sha256, "bytes": 1000}
    return row(labels=regime, label_bytes=40, teacher=teacher, temperature=temperature)


def test_labels_are_told_with_their_bytes_and_teachers_of_one_table_are_the_same():
    assert labels_told(row()) == "hard"
    assert labels_told(row(labels="stored", label_bytes=2000)) == "stored, 2,000 bytes"
    assert labels_told(taught("a", regime="stored", temperature=1.5)) == "stored, 40 bytes by a.safetensors, T 1.5"
    assert labels_told(taught("a")) == "teacher a.safetensors, T 20, 1,000 bytes"
    assert "a teacher's labels at training time" in shown(compare_table([taught("a"), taught("the same")]))
    compare_table([taught("a", regime="stored"), taught("b", "b" * 64, regime="stored")])
    for other, what in (
        (taught("b", "b" * 64), "the teacher is aaaa"),
        (taught("a", temperature=4.0), "temperature is 20"),
    ):
        with pytest.raises(DistilError, match=what):
            compare_table([taught("a"), other])


def test_rows_that_do_not_tell_their_labels_say_so():
    old = {key: value for key, value in row().items() if key not in ("labels", "label_bytes", "teacher", "temperature")}
    assert "Protocol quick v2, labels not told:" in to_markdown([old, old])
