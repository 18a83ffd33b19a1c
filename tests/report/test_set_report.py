import base64
import re
from html.parser import HTMLParser

import pytest
from test_pictures import make_set

from distil.errors import DistilError
from distil.report.set_report import write_report

ROWS = [
    {"name": "random real images", "images_per_class": 1, "bytes": 2500, "mean": 50.0, "std": 2.5},
    {"name": "UDD <b>", "images_per_class": 1, "bytes": 3000, "mean": 80.0, "std": 0.5, "labels": "stored, 20 bytes"},
    {"name": "whole set", "images_per_class": None, "bytes": 300_000, "mean": 100.0, "std": 0.0},
]
HOSTILE = "<script>alert('x')</script> & \"quoted\" \U0001f600 \ud800"


class Outline(HTMLParser):
    """Tags with their attributes, text, and whether every element is closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def write(path, **changes) -> tuple[str, Outline]:
    values = {
        "title": "Ten images",
        "summary": "One paragraph.\n\nAnother.",
        "rows": ROWS,
        "sets": {"UDD": make_set(mined=2, utilization=True)},
        "logs": {"UDD": [{"event": "step", "step": step, "loss": 1.0} for step in range(5)]},
        "settings": {"UDD": {"factor": 2, "augment": "color_crop"}},
        "notes": ["A note."],
        "commands": ["distil dataset udd digits"],
    }
    write_report(path, **{**values, **changes})
    page = path.read_text(encoding="utf-8")
    return page, Outline(page)


def test_a_report_is_one_file_that_fetches_nothing_and_runs_nothing(tmp_path):
    page, outline = write(tmp_path / "report.html")
    assert "stored, 20 bytes" in outline.text
    assert outline.open == []
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in outline.tags}
    for _, attributes in outline.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]
    assert "@media print" in style[1]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_pictures_lie_inside_the_page_and_say_what_they_show(tmp_path):
    _, outline = write(tmp_path / "report.html")
    images = [attributes for tag, attributes in outline.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["Distilled images of UDD", "Loss and accuracy against the step"]
    for image in images:
        assert base64.b64decode(image["src"].split(",")[1]).startswith(b"\x89PNG")
    assert "mark the 2 mined regions" in outline.text
    assert "Dark parts of the utilization map are idle" in outline.text


def test_the_table_compares_with_the_whole_set(tmp_path):
    _, outline = write(tmp_path / "report.html")
    for expected in (
        "50.0 ± 2.5%",
        "50% as accurate, 0.83% of the bytes",
        "80% as accurate, 1% of the bytes",
        "300 kB",
        "100 times",
    ):
        assert expected in outline.text
    widths = [
        attributes["style"] for tag, attributes in outline.tags if tag == "div" and attributes.get("class") == "fill"
    ]
    assert widths == ["width:50.00%", "width:80.00%", "width:100.00%"]


def test_the_headline_is_the_last_distilled_row_whatever_it_scored(tmp_path):
    _, outline = write(tmp_path / "report.html", rows=[ROWS[1], ROWS[0], ROWS[2]])
    assert "accuracy with random real images" in outline.text


def test_everything_a_user_can_name_is_escaped(tmp_path):
    page, outline = write(
        tmp_path / "report.html",
        title=HOSTILE,
        summary=HOSTILE,
        rows=[{**ROWS[0], "name": HOSTILE}],
        sets={HOSTILE: make_set(names=(HOSTILE.removesuffix("\ud800"), "<i>", "&"))},
        logs={HOSTILE: [{"event": "step", "step": 1, "loss": 1.0}]},
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        notes=[HOSTILE],
        commands=[HOSTILE],
    )
    assert "<script" not in page
    assert "<b>" not in page.replace("<b>50.0", "").replace("<b>2.5 kB", "")
    assert "script" not in {tag for tag, _ in outline.tags}
    assert outline.text.count("<script>alert('x')</script> & \"quoted\"") >= 8


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS[2:], [{"name": "a", "mean": 0.0}]])
def test_a_report_of_little_is_still_a_page(tmp_path, rows):
    page, outline = write(
        tmp_path / "report.html", rows=rows, sets={}, logs={"a": []}, settings={}, notes=[], commands=[]
    )
    assert outline.open == []
    assert "<img" not in page
    assert "Ten images" in outline.text


def test_a_report_that_cannot_be_written_names_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DistilError, match=r"cannot write .*file/report\.html"):
        write(tmp_path / "file" / "report.html")
