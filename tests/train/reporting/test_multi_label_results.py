"""The lines of an evaluation of images with any number of classes."""

from types import SimpleNamespace

import numpy as np
import pytest

from flax_resnet.schema import SchemaError
from train.reporting.multi_label import section
from train.reporting.multi_label.metrics import MultiLabelEvaluation
from train.reporting.multi_label.results import summary


def test_chosen_metrics_are_printed_once():
    names = ("f1_micro", "exact_match", "top1", "top3", "mine")
    result = dict.fromkeys(names, 0.25) | {"baseline": 0.5, "loss": 0.5, "examples": 4, "step": 2}
    evaluated = SimpleNamespace(
        result=result,
        weights="raw",
        loader=SimpleNamespace(source=SimpleNamespace(name="table", split="val")),
        config=SimpleNamespace(eval=SimpleNamespace(metrics=("top1", "mine"), metric="top3")),
    )
    evaluation = MultiLabelEvaluation([], {}, [], 0.0, np.empty(0, int), np.empty(0, bool))
    lines = summary(evaluated, evaluation).splitlines()
    first = [line.split()[0] for line in lines]
    assert first.count("top-1") == first.count("top-3") == first.count("mine") == 1
    assert next(line for line in lines if line.startswith("top-3")).split()[1:] == ["25.00", "%"]


def multi_label_part(**changes):
    one = {"name": "a", "examples": 3, "threshold": 0.5, "recall": 1.0}
    part = {
        **{"task": "multi_label", "dataset": "d", "split": "test", "weights": "raw", "step": 1},
        **{"examples": 5, "top1": 0.5, "top1_interval": [0.2, 0.8], "small": True},
        **{"baseline": 0.4, "exact_match": 0.1, "map": 0.5, "map_baseline": 0.3},
        **{"auroc_macro": 0.6, "classes": [one]},
        "reliability": [{"low": 0, "high": 1, "examples": 5, "confidence": 0.5, "accuracy": 0.5}],
    }
    return part | changes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        *(({name: None}, name) for name in ("baseline", "exact_match", "map_baseline")),
        ({"auroc_macro": None}, "auroc_macro"),
        ({"classes": [{"name": "a", "examples": 3, "threshold": 0.5}]}, "recall of 'a'"),
    ],
)
def test_damaged_parts_of_a_report_are_refused(changes, problem):
    assert section.PART(multi_label_part(), "part")["top1"] == 0.5
    with pytest.raises(SchemaError, match=f"it has no {problem}"):
        section.PART(multi_label_part(**changes), "part")
