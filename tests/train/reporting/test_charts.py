"""Charts as SVG and image grids as PNG, including hostile class names."""

import numpy as np
import pytest

from tests.train.reporting.charts.drawings import SVG, parse, with_class
from train.reporting import plots
from train.reporting.charts import axes, reliability, svg
from train.reporting.charts.panel import Band, Panel, Scatter, Series
from train.reporting.classification_metrics import reliability_bins
from train.reporting.report.run_report import LiveReport


def test_charts_and_grids_survive_any_class_name_and_missing_folder(tmp_path):
    warned = []
    images = np.zeros((3, 8, 8, 3), np.uint8)
    captions = ("$\\frac$", "cost_$5 and_$^", "$\\frac$")
    plots.Plots(str(tmp_path), warned.append).draw_samples(lambda: plots.Pictures(images, captions))
    assert (tmp_path / "samples.png").stat().st_size > 1000 and not warned
    LiveReport(str(tmp_path / "gone"), warned.append).update(force=True)
    assert len(warned) == 2 and "cannot draw curves.svg: RunError" in warned[0]
    assert "cannot draw report.html: RunError" in warned[1]


def test_reliability_diagram_shows_accuracy_confidence_and_counts():
    confidence = np.concatenate([np.full(1000, 0.95), np.full(10, 0.55)])
    correct = np.concatenate([np.arange(1000) < 900, np.arange(10) < 8])
    bins = reliability_bins(confidence, correct)
    root, texts = parse(svg.document(reliability.reliability_panels(bins, 0.0123)))
    titles = [element.text for element in with_class(root, "title")]
    assert titles == ["reliability diagram (ECE 1.23 %)", "images per confidence bin"]
    assert texts.count("confidence") == 2 and "accuracy" in texts and "images" in texts
    labels = [bar[0].text for bar in with_class(root, "bar")]
    assert len(labels) == 2 * 15
    assert "accuracy of the bin, confidence 53.33 % to 60 %: 80 %" in labels
    assert "images, confidence 93.33 % to 100 %: 1,000" in labels
    legend = ["perfect calibration", "accuracy at the mean confidence", "accuracy of the bin"]
    assert set(legend) <= {text.strip() for text in texts}
    dots = [dot[0].text for dot in with_class(root, "dot")]
    assert sorted(dot.split("confidence ")[-1] for dot in dots) == ["55 %: 80 %", "95 %: 90 %"]
    assert {"1", "10", "100", "1,000"} <= set(texts)  # logarithmic axis


def test_reliability_diagram_without_any_finite_confidence():
    bins = reliability_bins(np.full(3, np.nan), np.zeros(3, bool))
    root, _ = parse(svg.document(reliability.reliability_panels(bins, 0.0)))
    assert len(with_class(root, "axis")) == 2


@pytest.mark.parametrize("low, high", ((0, 1), (0.02, 0.0201), (-3, 12500), (1e-9, 1e-8)))
def test_ticks_are_round_and_within_the_axis(low, high):
    ticks = axes.ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert min(ticks) >= low - 1e-12 and max(ticks) <= high * (1 + 1e-9)
    assert all(float(f"{tick:.6g}") == pytest.approx(tick, abs=1e-15) for tick in ticks)


def test_numbers_stand_above_the_bars_that_have_a_height():
    bins = reliability_bins(np.array([0.2] * 2500 + [0.9] * 3), np.ones(2503, bool))
    root, _ = parse(svg.document(reliability.reliability_panels(bins, 0.0)[1:]))
    tops = {bar[0].text.split(": ")[-1]: float(bar.get("y")) for bar in with_class(root, "bar")}
    numbers = {e.text: e for e in root.iter(f"{SVG}text") if e.text in ("2,500", "3")}
    assert numbers.keys() == {"2,500", "3"} and tops.keys() == {"0", *numbers}
    upright = numbers["2,500"].get("transform")  # too long for the width of its bar
    assert float(upright.split()[1].rstrip(")")) < tops["2,500"]
    assert 6.5 * len("2,500") < tops["2,500"]  # above the bar there is room for it
    assert float(numbers["3"].get("y")) < tops["3"]


def test_bands_and_points_are_placed_between_the_axes():
    band = Band("mean ± deviation", [(0, 0.2, 0.4), (10, 0.5, 0.9)])
    points = Scatter("runs", [(1e-3, 0.5), (1e-1, 0.7)], color=1, names=["one", "<two>"])
    options = {"low": 0, "high": 1, "percent": True}
    root, texts = parse(svg.document([Panel("means", bands=[band], **options)]))
    [area] = with_class(root, "band")
    places = [tuple(map(float, p.split())) for p in area.get("d")[1:-1].split("L")]
    ys = [y for _, y in places]
    # Pixels go down: 0.4, 0.9, then back along 0.5, 0.2.
    assert (ys[1] - ys[0]) / (ys[3] - ys[0]) == pytest.approx((0.9 - 0.4) / (0.2 - 0.4), abs=0.01)
    assert "mean ± deviation" in [text.strip() for text in texts]
    panel = Panel("keys", scatter=[points], x="learning rate", x_log=True, **options)
    root, texts = parse(svg.document([panel]))
    titles = [dot[0].text for dot in with_class(root, "dot")]
    assert titles == ["one, learning rate 0.001: 50 %", "<two>, learning rate 0.1: 70 %"]
    assert {"0.001", "0.01", "0.1"} <= set(texts)  # logarithmic axis


def test_gaps_and_values_far_off_are_marked():
    values = [1.0 + n % 2 / 10 for n in range(50)]
    values[10], values[30] = float("nan"), 1e6
    line = Series("train", list(enumerate(values)))
    root, texts = parse(svg.document([Panel("loss", [line], cut_outliers=True)]))
    [path] = [e for e in with_class(root, "line") if e.get("d").count("L") > 1]
    assert path.get("d").count("M") == 2
    assert [e[0].text for e in with_class(root, "cross")] == ["train, epoch 10: not finite"]
    assert [e[0].text for e in with_class(root, "dot")] == ["train, epoch 30: 1e6"]
    assert "1.1" in texts and "1e6" not in texts  # the axis ends before it
