"""Plots of a run."""

import numpy as np

from train.reporting import plots
from train.workdir.metrics_log import MetricsLog


def test_any_class_name_can_be_drawn_and_failures_are_warnings(tmp_path):
    warnings = []
    figures = plots.Plots(str(tmp_path), warnings.append)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    figures.draw_samples(lambda: (images, ("$\\frac$", "cost_$5 and_$^", "$\\frac$")))
    assert (tmp_path / "samples.png").stat().st_size > 1000 and not warnings
    plots.Plots(str(tmp_path / "gone"), warnings.append).update(force=True)
    assert len(warnings) == 1 and "cannot draw curves.png: FileNotFoundError" in warnings[0]


def test_curves_show_all_rows(tmp_path):
    with MetricsLog(str(tmp_path), start=0) as log:
        for step in range(1, 30):
            log.write({"step": step, "train/loss": 3 / step, "train/top1": 0.1})
    plots.draw_curves(str(tmp_path))
    few = (tmp_path / "curves.png").read_bytes()
    with MetricsLog(str(tmp_path), start=29) as log:
        log.write({"step": 30, "eval/loss": 1.0, "eval/top1": 0.9, "learning_rate": 0.1})
    plots.draw_curves(str(tmp_path))
    assert (tmp_path / "curves.png").read_bytes() != few
