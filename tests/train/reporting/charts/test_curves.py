"""Learning curves: what is drawn raw, smoothed and as points, over epochs and in percent."""

import math
from itertools import pairwise

import numpy as np
import pytest

from tests.train.reporting.charts.drawings import parse, places, with_class
from train.reporting.charts import curves, svg


def make_rows(count, epochs=10.0):
    rng = np.random.default_rng(0)
    rows = []
    for n in range(1, count + 1):
        share = n / count
        row = {"step": 10 * n, "epoch": epochs * share, "learning_rate": 0.1 * (1 - share)}
        row |= {"train/loss": 3 * math.exp(-3 * share) + 0.1 * rng.normal()}
        row |= {"train/top1": 0.90 + 0.05 * share + 0.002 * rng.normal()}
        row |= {"images_per_second": 12500.0, "input_wait_fraction": 0.25}
        if n % (count // 5) == 0:
            row |= {"eval/loss": 1 - share / 2, "eval/top1": 0.92 + 0.05 * share}
        rows.append(row)
    return rows


def test_panels_have_titles_units_epochs_and_percent():
    panels = curves.run_panels(make_rows(40), "with mixup")
    root, texts = parse(svg.document(panels, "a <run>"))
    assert [e.text for e in with_class(root, "heading")] == ["a <run>"]
    titles = [e.text for e in with_class(root, "title")]
    assert titles == ["Loss", "Top-1 accuracy", "Learning rate"]
    assert texts.count("epoch") == 3 and "step" not in texts
    assert {"loss (nats)", "top-1 accuracy", "learning rate"} <= set(texts)
    assert texts.count("Training is measured with mixup, evaluation without.") == 2
    assert {"evaluation 0.5", "evaluation 97 %"} <= set(texts)
    # The axis shows the change from 90 to 97 %, not 0 to 100 %.
    percents = [
        float(text.split()[0]) for text in texts if text.endswith(" %") and text[0] in "019"
    ]
    assert 86 < min(percents) and max(percents) < 100
    speed, waiting = curves.time_panels(make_rows(40))
    _, texts = parse(svg.document([speed, waiting]))
    assert {"images/s", "share of time", "images per second, smoothed over 2 epochs 12,500"} <= {
        *texts
    }


def test_training_is_pale_and_smoothed_and_evaluations_are_points_as_they_are():
    rows = make_rows(100)
    loss = curves.run_panels(rows)[0]
    raw, smoothed, evaluation = loss.series
    assert raw.pale and not smoothed.pale and not evaluation.pale and evaluation.dots
    assert raw.points == [(row["epoch"], row["train/loss"]) for row in rows]
    assert evaluation.points == [(r["epoch"], r["eval/loss"]) for r in rows if "eval/loss" in r]
    assert smoothed.label == "training, smoothed over 0.5 epochs"
    assert np.std(np.diff([y for _, y in smoothed.points])) < np.std(
        np.diff([y for _, y in raw.points])
    )
    # With few points the line itself is shown.
    [line] = curves.run_panels(make_rows(5))[0].series[:-1]
    assert line.label == "training" and not line.pale and len(line.points) == 5


def test_drawn_points_are_where_the_axes_say():
    rows = [
        {"step": n, "epoch": float(n), "eval/loss": y} for n, y in ((1, 2.0), (2, 1.0), (4, 0.0))
    ]
    root, _ = parse(svg.document(curves.run_panels(rows)))
    [line] = with_class(root, "line")
    (x1, y1), (x2, y2), (x4, y4) = places(line.get("d"))
    assert (x4 - x2) / (x2 - x1) == pytest.approx(2, abs=0.01)
    assert (y2 - y1) / (y4 - y2) == pytest.approx(1, abs=0.01) and y4 > y2 > y1
    zero = next(e for e in root.iter() if e.text == "0" and e.get("text-anchor") == "end")
    assert float(zero.get("y")) - 4 == pytest.approx(y4, abs=0.1)


def test_gaps_marks_and_empty_panels():
    rows = make_rows(60)
    rows[20]["train/loss"], rows[40]["train/loss"] = None, 1e6
    root, _ = parse(svg.document(curves.run_panels(rows)[:1]))
    [raw] = with_class(root, "line pale")
    assert raw.get("d").count("M") == 2
    [cross] = with_class(root, "cross")
    assert cross[0].text == f"training, as logged, epoch {rows[20]['epoch']:.4g}: not finite"
    titles = [e[0].text for e in with_class(root, "dot") if "1e6" in e[0].text]
    assert titles == [f"training, as logged, epoch {rows[40]['epoch']:.4g}: 1e6"]
    # Neither the axis nor the smoothed line follows that value.
    [smoothed, _] = with_class(root, "line")
    heights = [y for _, y in places(smoothed.get("d"))]
    assert max(abs(b - a) for a, b in pairwise(heights)) < 20

    assert curves.run_panels([]) == [] == curves.time_panels([])
    assert curves.run_panels([{"step": 1, "epoch": 1.0, "train/loss": float("nan")}]) == []
    assert curves.evaluation_panel(make_rows(5), "eval/top7", "top-7", True) is None
    # A single point is only visible as a mark.
    [panel] = curves.run_panels([{"step": 1, "epoch": 1.0, "train/loss": 2.0}])
    root, texts = parse(svg.document([panel]))
    assert len(with_class(root, "dot")) == 1 and "training 2" in texts


def test_rows_without_epochs_are_shown_over_steps():
    rows = [{"step": n, "train/loss": 3 / n} for n in range(1, 30)]
    _, texts = parse(svg.document(curves.run_panels(rows)))
    assert "step" in texts and "epoch" not in texts
    assert any(text.startswith("training, smoothed over 5 steps") for text in texts)


def test_many_rows_are_means_and_say_so():
    raw, smoothed, evaluation = curves.run_panels(make_rows(10_000))[0].series
    assert raw.label == "training, means of 34 logged values" and len(raw.points) <= 300
    assert len(smoothed.points) <= 300 and len(evaluation.points) == 5


def test_schedule_chart():
    panel = curves.schedule_panel(np.linspace(0, 20, 1000), np.linspace(0.1, 0, 1000))
    root, texts = parse(svg.document([panel], "planned"))
    [line] = with_class(root, "line")
    assert line.get("d").count("L") == 999
    assert {"planned", "Learning rate", "learning rate", "epoch", "20", "0.1", "0"} <= set(texts)


def test_lines_of_a_chart_differ_without_color():
    panel = curves.Panel("", [curves.Series(f"{n}", [(0, n), (1, n)], n) for n in range(8)])
    root, _ = parse(svg.document([panel]))
    styles = [
        dict(p.split(":") for p in e.get("style").split(";")) for e in with_class(root, "line")
    ]
    dashes = [style["stroke-dasharray"] for style in styles]
    assert len(set(dashes[:4])) == 4 and len({tuple(style.values()) for style in styles}) == 8
