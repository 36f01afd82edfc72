"""Charts in a page: values under the pointer, a table, and downloads."""

import base64
import csv
import dataclasses
import io
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from tests.train.reporting.charts.drawings import parse, with_class
from train.reporting import html_page
from train.reporting.charts.figure import figure
from train.reporting.charts.panel import Band, Bars, Panel, Scatter, Series
from train.reporting.charts.readings import readings

EVIL = "</svg><script>x</script>&\udcff,\"'"


class Elements(HTMLParser):
    """The elements of a page, as (tag, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def with_class(self, name):
        return [attributes for _, attributes in self.found if attributes.get("class") == name]


def downloads(text):
    """Return the contents of the files by their names."""
    links = [a for tag, a in Elements(text).found if tag == "a"]
    return {
        a["download"]: base64.b64decode(a["href"].partition("base64,")[2]).decode() for a in links
    }


def lines(count=500):
    raw = [(n / 10, math.sin(n / 50)) for n in range(count)]
    evaluations = [(float(n), n / 100) for n in range(1, count // 10)]
    return [
        Series("training", raw, pale=True),
        Series("smoothed", raw),
        Series("evaluation", evaluations, 1, dots=True),
    ]


def test_hovering_shows_values_of_the_chart_in_at_most_100_areas():
    panel = Panel("Loss", lines(), y="loss (nats)")
    text = figure(panel)
    page = Elements(text)
    assert 50 < len(page.with_class("hit")) <= 100
    assert len(page.with_class("tip")) == len(page.with_class("hit"))
    assert ">epoch 49.9</text>" in text  # the last point
    values = dict(panel.series[0].points)
    for reading in readings(panel, 100):
        raw, smoothed, evaluation = reading.values
        assert raw == smoothed == values[reading.x]
        assert evaluation in (None, *(y for _, y in panel.series[2].points))
    shown = [reading.values[2] for reading in readings(panel, 100)]
    assert [value for value in shown if value is not None] == [y for _, y in lines()[2].points]
    # Areas cover the chart side by side.
    areas = re.findall(r'class="hit"><path d="M([\d.]+) \d+h([\d.]+)V', text)
    edges = [(float(left), float(left) + float(width)) for left, width in areas]
    assert all(b[0] == pytest.approx(a[1], abs=0.11) for a, b in pairwise(edges))


def test_many_lines_have_fewer_areas_and_short_tips():
    panel = Panel("", [Series(f"run {n}", [(x, n) for x in range(300)], n) for n in range(30)])
    text = figure(panel)
    assert len(Elements(text).with_class("hit")) <= 27
    assert "and 21 more" in text and len(text) < 500_000


def test_downloads_are_the_chart_and_all_its_points():
    text = figure(Panel("Loss / nats", lines(), y="loss (nats)"), "run 1")
    files = downloads(text)
    assert sorted(files) == ["run-1-loss-nats.csv", "run-1-loss-nats.svg"]
    root, texts = parse(files["run-1-loss-nats.svg"])
    assert {"run 1", "Loss / nats", "loss (nats)", "epoch"} <= set(texts)
    assert not with_class(root, "hit")
    rows = list(csv.reader(io.StringIO(files["run-1-loss-nats.csv"])))
    assert rows[0] == ["epoch", "training", "smoothed", "evaluation"] and len(rows) == 501
    assert [float(v) for v in rows[21][:3]] == [2.0, math.sin(0.4), math.sin(0.4)]
    assert rows[21][3] == "0.02" and rows[22][3] == ""


def test_other_contents_have_a_csv_file_too():
    bars = Panel("b", x="p", bars=Bars("images", [(0, 0.5, 3), (0.5, 1, 4)]))
    assert downloads(figure(bars))["b.csv"] == "p from,p to,images\n0,0.5,3\n0.5,1,4\n"
    points = Panel("s", x="rate", y="acc", scatter=[Scatter("runs", [(1, 2)], names=["a,b"])])
    assert downloads(figure(points))["s.csv"] == 'name,rate,acc\n"a,b",1,2\n'
    band = Panel("m", [Series("mean", [(0, 2), (1, 3)])], bands=[Band("sd", [(0, 1, 3)])])
    assert downloads(figure(band))["m.csv"] == 'epoch,mean,"sd, low","sd, high"\n0,2,1,3\n1,3,,\n'
    assert not Elements(figure(points)).with_class("hit")  # they have titles of their own


def test_downloads_of_curves_with_marks_and_vertical_steps_have_every_point():
    steps = [(0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]
    names = Scatter("threshold", [(0.0, 0.5)], 0, ["a, threshold 0.3"])
    for scatter in ([], [names]):
        panel = Panel("roc", [Series("a", steps), Series("b", steps[:1])], "fpr", "tpr")
        panel = dataclasses.replace(panel, scatter=scatter)
        head, *rows = csv.reader(io.StringIO(downloads(figure(panel))["roc.csv"]))
        assert head == ["name", "fpr", "tpr"]
        found = [(float(x), float(y)) for name, x, y in rows if name == "a"]
        assert found == steps and ["b", "0.0", "0.0"] in rows
        assert (["a, threshold 0.3", "0.0", "0.5"] in rows) == bool(scatter)


def test_table_has_some_of_the_rows_with_the_last_one():
    text = figure(Panel("Accuracy", lines(), percent=True))
    rows = re.findall(r'<tr><th scope="row" class=n>(.*?)</th>(.*?)</tr>', text)
    assert 20 <= len(rows) <= 40 and rows[-1][0] == "49.9"
    assert re.findall(r">([^<]+)</td>", rows[-1][1])[0] == f"{100 * math.sin(499 / 50):.4g} %"


def test_hostile_names_gaps_and_single_points():
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)]
    text = figure(Panel(EVIL, [Series(EVIL, points)], x=EVIL, y=EVIL, note=EVIL), EVIL)
    page = Elements(text.encode("utf-8", "replace").decode())
    assert "script" not in [tag for tag, _ in page.found]
    assert "not finite" in text and all(a["download"] for tag, a in page.found if tag == "a")
    for content in downloads(text).values():
        assert content
    one = figure(Panel("", [Series("a", [(3.0, 5.0)])]))
    assert len(Elements(one).with_class("hit")) == 1
    empty = figure(Panel("", [Series("a", [(0.0, math.nan)])]))
    assert "not finite" in empty


def test_values_appear_under_the_pointer_and_files_can_be_saved(browser, tmp_path):
    text = html_page.page("t", [html_page.charts([Panel("Loss", lines(), y="loss")], "run")])
    (tmp_path / "page.html").write_text(text)
    page = browser.new_page(viewport={"width": 600, "height": 600}, accept_downloads=True)
    page.goto(f"file://{tmp_path}/page.html")
    shown = (
        "[...document.querySelectorAll('.tip')].filter(t =>"
        " getComputedStyle(t).visibility != 'hidden').map(t => t.textContent)"
    )
    assert page.evaluate(shown) == []
    box = page.locator("figure svg[role=img]").bounding_box()
    page.mouse.move(box["x"] + 0.97 * box["width"], box["y"] + 0.5 * box["height"])
    [tip] = page.evaluate(shown)
    assert tip.startswith("epoch 49.9") and f"smoothed {math.sin(499 / 50):.4g}" in tip
    page.locator("figure summary").click()
    for kind, start in (("svg", b"<svg"), ("csv", b"epoch,")):
        with page.expect_download() as saved:
            page.locator(f"a[download$={kind}]").click()
        assert saved.value.suggested_filename == f"run-loss.{kind}"
        assert saved.value.path().read_bytes().startswith(start)
    page.close()
