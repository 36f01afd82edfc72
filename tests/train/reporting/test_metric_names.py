"""Names and values of metrics as people read them: shares in percent, also on axes of charts."""

import pytest

from train.reporting.metric_names import format_metric, has_percent_axis, is_percentage, title


@pytest.mark.parametrize(
    ("metric", "name", "text", "has_percent"),
    [
        ("top1", "top-1", "12.34 %", True),
        ("top5", "top-5", "12.34 %", True),
        ("map", "mAP", "12.34 %", True),
        ("balanced_accuracy", "balanced accuracy", "0.1234", True),
        ("f1_macro", "macro F1", "0.1234", False),
        ("loss", "loss", "0.1234", False),
    ],
)
def test_metrics_for_people(metric, name, text, has_percent):
    assert (title(metric), format_metric(metric, 0.1234)) == (name, text)
    assert is_percentage(metric) == text.endswith("%")
    assert has_percent_axis(metric) == has_percent
