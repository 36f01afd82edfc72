"""Plain lines on runs that learned nothing, in the console, the report and the comparison."""

import numpy as np
import pytest
import scipy.stats

from train.compare.comparison import as_text, compare_runs
from train.compare.page import page
from train.compare.runs import RunSummary
from train.compare.tables import results_table
from train.reporting.cautions import cautions
from train.reporting.classification_metrics import compute_metrics
from train.reporting.multi_label.metrics import MultiLabelEvaluation
from train.reporting.multi_label.metrics import cautions as multi_label_cautions
from train.reporting.report.evaluation_tiles import best_tiles, main_tile
from train.tasks.predictions import Predictions


def result_of(label, predicted):
    """Return the result and the classes of an evaluation of two or more classes."""
    label, predicted = np.array(label), np.array(predicted)
    ones, correct = np.ones(len(label)), label == predicted
    outputs = max(label) + 1
    rank = np.where(correct, 0, 1)
    predictions = Predictions(np.arange(len(label)), label, predicted, rank, ones, outputs)
    names = [f"class {k}" for k in range(outputs)]
    metrics = compute_metrics(predictions, names)
    baseline = np.bincount(label).max() / len(label)
    result = {"top1": correct.mean(), "examples": len(label), "baseline": baseline}
    return result, metrics.classes


def test_nothing_learned_of_three_to_one():
    lines = cautions(*result_of([0] * 48 + [1] * 16, [0] * 64))
    interval = scipy.stats.binomtest(48, 64).proportion_ci(method="wilson")
    assert lines == [
        "top-1 75.00 % is not clearly above the baseline: always answering 'class 0' gives"
        f" 75.00 %, and the 95 % confidence interval (Wilson) is {interval.low * 100:.2f} % to"
        f" {interval.high * 100:.2f} %",
        "recall under half of the mean, 50.0 %: 'class 1' 0.0 % of 16 images",
    ]


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        (
            {"map": (0.3, 0.6)},
            "mAP 40.00 % is not clearly above that of a ranking at random, 35.00 %: its 95 %"
            " confidence interval (bootstrap) is 30.00 % to 60.00 %",
        ),
        ({"map": (0.36, 0.6)}, None),
        ({}, None),  # no interval is made up
    ],
)
def test_a_ranking_at_random(intervals, expected):
    evaluation = MultiLabelEvaluation([], intervals, [], 0.0, np.empty(0, int), np.empty(0, bool))
    lines = multi_label_cautions({"map": 0.4, "map_baseline": 0.35}, evaluation)
    assert lines == ([] if expected is None else [expected])
    if not intervals:
        lines = multi_label_cautions({"map": 0.34, "map_baseline": 0.35}, evaluation)
        assert lines == ["mAP 34.00 % is not above that of a ranking at random, 35.00 %"]


def test_no_line_on_a_good_run():
    assert cautions(*result_of([0] * 48 + [1] * 16, [0] * 48 + [1] * 14 + [0] * 2)) == []


def test_many_rare_classes_are_counted():
    label = np.repeat(np.arange(20), 10)
    line = cautions(*result_of(label, np.where(label < 12, label, 0)))[-1]
    assert "'class 12' 0.0 % of 10 images" in line and line.endswith(" and 3 more")


CLASSES = [{"examples": 16}, {"examples": 48}, {"examples": 0}]


@pytest.mark.parametrize(("top1", "is_clear"), [(0.75, False), (61 / 64, True)])
def test_first_tile_and_comparison_show_the_baseline(tmp_path, top1, is_clear):
    row = {"step": 4, "eval/top1": top1, "eval/loss": 0.5, "eval/baseline": 0.75}
    row["eval/f1_macro"] = 0.6
    earlier = row | {"step": 2, "eval/f1_macro": 0.7, "eval/top1": 0.5}
    interval = scipy.stats.binomtest(round(64 * top1), 64).proportion_ci(method="wilson")
    part = {"step": 4, "top1": top1, "top1_interval": interval, "classes": CLASSES}
    part |= {"f1_macro_interval": (0.5, 0.7)}
    tile = main_tile(row, part, "top1", 64)
    assert (tile.name, tile.value) == ("evaluation top-1", f"{100 * top1:.1f} %")
    low, high = interval
    assert tile.remark == (
        f"95 % confidence interval {100 * low:.1f} % to {100 * high:.1f} %;"
        f"{' not clearly above the' * (not is_clear)} baseline 75.0 % (always the largest class)"
    )
    assert tile.shares == (top1, low, high, 0.75)
    assert main_tile(row, None, "top1", 64) == tile  # from the number of images
    # The F1 of the largest class is 2 × 0.75 / 1.75, that of the other 0.
    assert main_tile(row, part, "f1_macro", 64).shares == (0.6, 0.5, 0.7, pytest.approx(3 / 7))
    # Nothing says what a network without skill has.
    weak = main_tile(row, None, "f1_macro", 64)
    assert ("not clearly above" in weak.remark) == (not is_clear) and weak.value == "0.6"
    evaluated = [earlier, row]
    best = ("best top-1 of 2 evaluations", f"{100 * top1:.1f} %", "at step 4")
    assert best_tiles(evaluated, [2, 4], "top1") == [best]
    best = ("best macro F1 of 2 evaluations", "0.7", "at step 2")
    assert best_tiles(evaluated, [2, 4], "f1_macro") == [best]

    values = {"seed": 0, "eval.metric": "f1_macro"}
    run = RunSummary("a", "a", values, [earlier, row], 4, "", images=64)
    table = results_table([run])
    facts = dict(zip(table.head, table.rows[0], strict=True))
    assert facts["baseline"] == "75.00 %" and facts["best macro F1"] == "0.7"
    below = not is_clear
    assert facts["top-1"].endswith(" !") == below
    compared = compare_runs([run])
    for text in (as_text(compared), page(compared)):
        assert ("not clearly above the baseline" in " ".join(text.split())) == below
