"""Order, marks and tables of results, on the console and on the page."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.train.compare.workdirs import write_predictions, write_run
from train.compare import charts, tables
from train.compare.comparison import as_text, compare_runs
from train.compare.grouping import best, mark_duplicates
from train.compare.page import page
from train.compare.runs import disambiguate_names, read

RATE = "schedule.learning_rate"


def compared(paths):
    runs = [read(path) for path in paths]
    disambiguate_names(runs)
    mark_duplicates(runs)
    return compare_runs(runs)


class Rows(HTMLParser):
    """The rows of all tables as ``(class, cells)``, and the classes of all tables' frames."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.frames, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append((attributes.get("class"), []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")
        if attributes.get("role") == "group":
            self.frames.append(attributes["class"])

    def handle_data(self, data):
        if self.rows and self.rows[-1][1]:
            self.rows[-1][1][-1] += data


def test_runs_are_sorted_and_the_best_is_marked(tmp_path):
    paths = [
        write_run(tmp_path / name, {RATE: rate, "seed": seed}, top1, steps)
        for name, rate, seed, top1, steps in (
            ("low", 0.1, 0, (0.5, 0.6), None),
            ("unfinished", 0.4, 0, (0.5, 0.9), 4),
            ("best", 0.2, 0, (0.9, 0.8), None),
            ("equal", 0.2, 1, (0.5, 0.8), None),
            ("never", 0.3, 0, (None, None), None),
        )
    ]
    result = compared(paths)
    [cohort] = result.cohorts
    assert [run.name for run in cohort] == ["best", "equal", "low", "unfinished", "never"]
    table = tables.results_table(cohort)
    assert table.head[:4] == ["run", "top-1", "learning_rate", "seed"]
    assert table.rows[0][:4] == ["best", "80.00 % best", "0.2", "0"]
    assert table.rows[3][1] == "90.00 % *" and table.rows[4][1] == "– *"
    assert table.marked == (0, 1)
    assert table.rows[0][table.head.index("best top-1")] == "90.00 %"
    marked = [cells[0] for kind, cells in Rows(page(result)).rows if kind == "marked"]
    assert marked == ["best", "equal"]
    lines = as_text(result).splitlines()
    assert re.match(r"best +80\.00 % best +0\.2 +0 ", lines[2])


def test_smaller_losses_are_better(tmp_path):
    paths = [
        write_run(tmp_path / f"{top1}", {"eval.metric": "loss", RATE: top1}, (top1, top1))
        for top1 in (0.2, 0.9, 0.4)
    ]
    [cohort] = compared(paths).cohorts
    assert [run.value for run in cohort] == pytest.approx([0.1, 0.6, 0.8])
    assert tables.results_table(cohort).rows[0][1] == "0.1000 best"


def test_other_metrics_and_data_are_apart(tmp_path):
    changes = (
        {},
        {"values": {"eval.metric": "f1_macro"}, "results": {"eval/f1_macro": 0.4}},
        {"classes": ("cat", "dog")},
        {"images": ("val", 61)},
        {"fingerprint": "a"},
        {"values": {"dataset.name": "tfds:mnist"}},
    )
    paths = [write_run(tmp_path / str(i), **change) for i, change in enumerate(changes)]
    paths.append(write_run(tmp_path / "same", {RATE: 0.7}))
    result = compared(paths)
    names = [[run.name for run in cohort] for cohort in result.cohorts]
    assert names == [["0", "same"], ["1"], ["2"], ["3"], ["4"], ["5"]]
    assert not any(best(cohort) for cohort in result.cohorts[1:])
    assert tables.APART in page(result)
    assert tables.APART in " ".join(as_text(result).split())


@pytest.mark.parametrize("trained", [(200, ""), (100, "cleaned")])
def test_other_training_data_are_another_configuration(tmp_path, trained):
    """The place of the data matters if they differ: these runs are no copies of each other."""

    def compared(name, **data):
        value = {"dataset.labels": f"{name}.csv"}
        paths = [write_run(tmp_path / name / "0", {"dataset.labels": "a.csv"})]
        paths.append(write_run(tmp_path / name / "1", value, (0.5, 0.7), **data))
        summaries = [read(path) for path in paths]
        mark_duplicates(summaries)
        return summaries, {row[0]: row[2] for row in tables.keys_table(summaries).rows}

    summaries, effects = compared("moved")
    assert [run.copies for run in summaries] == [False, True]
    assert effects == {"dataset.labels": "no"}
    summaries, effects = compared("other", trained=trained)
    assert [run.copies for run in summaries] == [False, False]
    assert effects == {"dataset.labels": "yes"}
    assert "labels" in tables.results_table(summaries).head


def test_one_run(tmp_path):
    result = compared([write_run(tmp_path / "only")])
    assert not (result.differences or result.unpaired) and "best\n" not in as_text(result)
    text = page(result)
    assert "<h1>only</h1>" in text and "marked" not in [kind for kind, _ in Rows(text).rows]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """60 runs: 20 learning rates over three decades, with three seeds each."""
    folder, rng = tmp_path_factory.mktemp("sweep"), np.random.default_rng(0)
    label = np.arange(60) % 3
    paths = []
    for rate in np.geomspace(0.001, 1, 20).round(4).tolist():
        for seed in range(3):
            path = folder / f"schedule.learning_rate={rate},optimizer=sgd,图<i>&\n,seed={seed}"
            accuracy = 0.8 - abs(np.log10(rate) + 1) / 10
            top1 = (0.4, *(accuracy + 0.02 * rng.standard_normal(3)))
            write_run(path, {RATE: rate, "seed": seed}, top1)
            answers = np.where(rng.random(60) < top1[-1], label, (label + 1) % 3)
            write_predictions(path, label, answers, [f"{i}.png" for i in range(60)], step=4)
            paths.append(str(path))
    return paths


def test_sixty_runs_stay_readable(sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = compared(sweep)
    parsed = Rows(page(result))
    assert parsed.frames[0] == "wide tall" and "i" not in parsed.tags
    assert len([cells for _, cells in parsed.rows if cells and "seed=" in cells[0]]) >= 60
    assert [len(group) for group in result.groups] == [3] * 20
    top1, *_ = panels = charts.curve_panels(result.cohorts, result.groups)
    assert top1.title == "Evaluation top-1 accuracy"
    for panel in panels:
        assert len({line.label for line in panel.series}) == 8  # 7, and the others
        assert len({line.color for line in panel.series if not line.pale}) == 7
    lines = as_text(result).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 120
    assert result.differences  # of the two best configurations
    first, second = (next(r for r in result.runs if r.name == n)
                     for n in result.differences[0].paired.names)  # fmt: skip
    assert second is result.cohorts[0][0] and first.values[RATE] != second.values[RATE]


def test_bands_are_mean_and_deviation_of_seeds(sweep):
    paths = sweep[:3]
    result = compared(paths)
    panel = charts.curve_panels(result.cohorts, result.groups)[0]
    [line], [band] = panel.series, panel.bands
    values = np.array([[row["eval/top1"] for row in run.rows] for run in result.runs])
    means, deviations = values.mean(axis=0), values.std(axis=0, ddof=1)
    np.testing.assert_allclose(line.points, np.stack([range(1, 5), means], axis=1))
    expected = np.stack([range(1, 5), means - deviations, means + deviations], axis=1)
    np.testing.assert_allclose(band.points, expected)
    assert line.color == band.color and not band.label and line.label.endswith("(3 seeds)")


def test_seeds_that_end_early_are_averaged_while_two_are_left(tmp_path):
    paths = [
        write_run(tmp_path / str(seed), {"seed": seed}, (0.5, 0.6, 0.7, 0.8)[:epochs])
        for seed, epochs in enumerate((2, 3, 4))
    ]
    unfinished = write_run(tmp_path / "unfinished", {"seed": 3}, (0.1, 0.2), steps=9)
    result = compared([*paths, unfinished])
    panel = charts.curve_panels(result.cohorts, result.groups)[0]
    points = {line.label: list(line.points) for line in panel.series}
    assert points == {
        "0, 1 and 1 more (3 seeds)": [(1, 0.5), (2, 0.6), (3, 0.7)],
        "unfinished": [(1, 0.1), (2, 0.2)],
    }


def test_scatter_of_numeric_keys(sweep, tmp_path):
    result = compared(sweep)
    [panel] = charts.scatter_panels(result.cohorts)
    points = [point for part in panel.scatter for point in part.points]
    expected = sorted((run.values[RATE], run.value) for run in result.runs)
    assert panel.x_log and sorted(points) == expected
    assert [name for part in panel.scatter for name in part.names if "seed 2" in name]
    [means] = panel.series
    assert means.points[0] == (0.001, pytest.approx(np.mean([y for _, y in expected[:3]])))

    values = ({"optimizer.weight_decay": 0.0}, {"optimizer.weight_decay": 0.1}, {"ema.decay": 0.5})
    paths = [write_run(tmp_path / str(i), one) for i, one in enumerate(values)]
    assert charts.scatter_panels([result.runs[2:4]]) == []  # two are in the table
    panels = charts.scatter_panels(compared(paths).cohorts)
    assert {panel.title.split()[-1] for panel in panels} == {"optimizer.weight_decay", "ema.decay"}
    assert not any(panel.x_log for panel in panels)  # 0 has no logarithm


def test_a_closed_pipe_is_no_traceback(sweep, tmp_path):
    output = tmp_path / "compare.html"
    command = [sys.executable, "-m", "train.compare", *sweep[:4], "--output", str(output)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.wait()
    assert "Traceback" not in errors and "learning_rate" in output.read_text()


def test_training_curves_are_smoothed_and_evaluations_are_not(tmp_path):
    rng = np.random.default_rng(0)
    top1 = rng.random(200).tolist()
    result = compared([write_run(tmp_path / "long", {}, top1)])
    panels = {p.title: p for p in charts.curve_panels(result.cohorts, result.groups)}
    [evaluation], [training] = (
        panels[title].series for title in ("Evaluation top-1 accuracy", "Training loss")
    )
    assert [y for _, y in evaluation.points] == top1
    logged = 1 / np.arange(1, 201)
    values = np.array([y for _, y in training.points])
    assert np.abs(values[100] - logged[96:106].mean()) < 1e-4  # over a window of 10 epochs
    assert len(values) == 200 and values[0] == 1
