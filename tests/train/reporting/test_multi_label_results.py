"""The lines of an evaluation of images with any number of classes."""

from types import SimpleNamespace

import numpy as np

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
