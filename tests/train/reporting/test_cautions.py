"""Plain lines on runs that learned nothing, in the console, the report and the comparison."""

import numpy as np
import pytest
import scipy.stats

from train.compare.comparison import as_text, compare_runs
from train.compare.page import page
from train.compare.runs import RunSummary
from train.compare.tables import results_table
from train.engine.predictions import Predictions
from train.reporting.cautions import cautions
from train.reporting.classification_metrics import compute_metrics
from train.reporting.multi_label.metrics import MultiLabelEvaluation
from train.reporting.multi_label.metrics import cautions as multi_label_cautions
from train.reporting.report.evaluation_tiles import evaluation_tiles


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
    evaluation = MultiLabelEvaluation([], intervals, [], 0.0, np.empty(0, int))
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


@pytest.mark.parametrize(("top1", "clearly"), [(0.75, "not clearly above"), (0.95, "above")])
def test_first_tile_and_comparison_show_the_baseline(tmp_path, top1, clearly):
    row = {"step": 4, "eval/top1": top1, "eval/loss": 0.5, "eval/baseline": 0.75}
    row["eval/f1_macro"] = 0.6
    earlier = row | {"step": 2, "eval/f1_macro": 0.7, "eval/top1": 0.5}
    interval = scipy.stats.binomtest(round(64 * top1), 64).proportion_ci(method="wilson")
    part = {"step": 4, "top1": top1, "top1_interval": interval}
    tiles = evaluation_tiles([earlier, row], {"test": part}, [2, 4], "top1")
    assert tiles[0][:2] == ("evaluation top-1", f"{100 * top1:.2f} %")
    assert tiles[0][2].startswith(f"{clearly} the baseline, 75.00 %; 95 % confidence interval")
    assert tiles[-1] == ("best top-1", f"{100 * top1:.2f} %", "at step 4")
    tiles = evaluation_tiles([earlier, row], {"test": part}, [2, 4], "f1_macro")
    assert ("not clearly above" in tiles[0][2]) == clearly.startswith("not")
    assert tiles[0][:2] == ("evaluation macro F1", "0.6")
    assert tiles[-1] == ("best macro F1", "0.7", "at step 2")

    values = {"seed": 0, "eval.metric": "f1_macro"}
    run = RunSummary("a", "a", values, [earlier, row], 4, "", images=64)
    table = results_table([run])
    facts = dict(zip(table.head, table.rows[0], strict=True))
    assert facts["baseline"] == "75.00 %" and facts["best macro F1"] == "0.7"
    below = clearly.startswith("not")
    assert facts["top-1"].endswith(" !") == below
    compared = compare_runs([run])
    for text in (as_text(compared), page(compared)):
        assert ("not clearly above the baseline" in " ".join(text.split())) == below
