"""The facts about a run that travel with an exported file."""

import dataclasses
from typing import Any

from flax_resnet.runs import Run
from train.export.outputs import exported_output


def file_metadata(run: Run) -> dict[str, Any]:
    """Return class names, preprocessing, calibration and facts of the kind, as JSON has them."""
    return {
        "class_names": [run.class_name(i) for i in range(run.model.num_classes)],
        "preprocessing": dataclasses.asdict(run.preprocessing),
        **calibration_metadata(run),
        **exported_output(run).metadata(run),
    }


def calibration_metadata(run: Run) -> dict[str, Any]:
    """Return the temperature and the thresholds of the decisions, if there are any."""
    if run.calibration is None:
        return {}
    decisions = {name: one.threshold for name, one in run.calibration.decisions.items()}
    found = {"temperature": run.temperature, "decision_thresholds": decisions}
    return {name: value for name, value in found.items() if value}
