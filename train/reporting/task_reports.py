"""How evaluations are reported, by the kind of their task."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from flax_resnet.schema import SchemaError
from train.data.source import DataSource
from train.engine import stored_pixel_counts, stored_predictions
from train.engine.evaluation import Evaluated
from train.engine.predictions import Rows, prediction_rows
from train.reporting import baselines, cautions, evaluation_results
from train.reporting.multi_label import metrics as multi_label_metrics
from train.reporting.multi_label import results as multi_label_results
from train.reporting.multi_label import section as multi_label_section
from train.reporting.report import class_tiles, evaluation_section, majority, result_sentence
from train.reporting.segmentation import metrics as segmentation_metrics
from train.reporting.segmentation import results as segmentation_results
from train.reporting.segmentation import section as segmentation_section

Part = Mapping[str, Any]


class TaskReport(NamedTuple):
    """The report of evaluations of one kind.

    ``metrics`` are those of :attr:`compute`, ``part`` is the content of a section, for JSON.

    Attributes:
      leading: metric of the result that is always shown.
      identity: metric by which an evaluation is found in ``metrics.jsonl``.
      compute: ``(evaluated) -> metrics``, which have ``intervals``, 95 % intervals by metric.
      cautions: ``(result, metrics) -> lines`` on results that are worse than they look.
      summary: ``(evaluated, metrics) -> text`` for the console.
      write_results: ``(folder, evaluated, metrics, warn) -> names`` of the files.
      build_part: ``(evaluated, metrics) -> part``.
      part: schema of a part.
      section: ``(name, part) -> HTML``.
      sentence: ``(part) -> text``: the result in plain words.
      tiles: ``(part) -> tiles`` on the first screen.
      baseline: ``(metric, part) -> value`` of an answer without looking at the images; None where
        that has no meaning.
      describe_baseline: ``(metric, evaluated) -> text``: that answer.
      rows: of a ``.csv`` of the predictions, as for ``engine.predictions.write_predictions``.
      confusion: ``(evaluated) -> (K, K)``, labels by predictions; None if there is no such.
      store: ``(workdir, step, predictions, source)``: keep the predictions of the last
        evaluation, for comparisons with other runs.
    """

    leading: str
    identity: str
    compute: Callable[[Evaluated], Any]
    cautions: Callable[[dict[str, Any], Any], list[str]]
    summary: Callable[[Evaluated, Any], str]
    write_results: Callable[[str, Evaluated, Any, Callable[[str], None]], list[str]]
    build_part: Callable[[Evaluated, Any], dict[str, Any]]
    part: Callable[[Any, str], dict[str, Any]]
    section: Callable[[str, dict[str, Any]], str]
    sentence: Callable[[Part], str]
    tiles: Callable[[Part], list]
    baseline: Callable[[str, Part], float | None]
    describe_baseline: Callable[[str, Evaluated], str]
    rows: Rows
    confusion: Callable[[Evaluated], np.ndarray | None]
    store: Callable[[str, int, Any, DataSource], Any]


REPORTS = {
    "classification": TaskReport(
        leading="top1",
        identity="top1",
        compute=evaluation_results.evaluation_metrics,
        cautions=lambda result, metrics: cautions.cautions(result, metrics.classes),
        summary=evaluation_results.summary,
        write_results=evaluation_results.write_results,
        build_part=evaluation_section.build_part,
        part=evaluation_section.PART,
        section=evaluation_section.section,
        sentence=result_sentence.describe_result,
        tiles=class_tiles.class_tiles,
        baseline=majority.majority_metric,
        describe_baseline=baselines.of_one_label,
        rows=prediction_rows,
        confusion=evaluation_results.count_pairs,
        store=stored_predictions.store,
    ),
    "multi_label": TaskReport(
        leading="map",
        identity="top1",
        compute=multi_label_metrics.compute,
        cautions=multi_label_metrics.cautions,
        summary=multi_label_results.summary,
        write_results=multi_label_results.write_results,
        build_part=multi_label_section.build_part,
        part=multi_label_section.PART,
        section=multi_label_section.section,
        sentence=result_sentence.describe_result,
        tiles=class_tiles.class_tiles,
        baseline=majority.majority_metric,
        describe_baseline=baselines.of_several_labels,
        rows=prediction_rows,
        confusion=lambda evaluated: None,
        store=stored_predictions.store,
    ),
    "segmentation": TaskReport(
        leading="miou",
        identity="miou",
        compute=segmentation_metrics.compute,
        cautions=segmentation_metrics.cautions,
        summary=segmentation_results.summary,
        write_results=segmentation_results.write_results,
        build_part=segmentation_section.build_part,
        part=segmentation_section.PART,
        section=segmentation_section.section,
        sentence=segmentation_section.sentence,
        tiles=segmentation_section.tiles,
        baseline=segmentation_section.baseline,
        describe_baseline=baselines.of_pixels,
        rows=segmentation_results.rows,
        confusion=segmentation_results.confusion,
        store=stored_pixel_counts.store,
    ),
}


def task_report(evaluated: Evaluated) -> TaskReport:
    """Return the report of an evaluation."""
    return REPORTS[evaluated.predictions.kind]


def part_report(part: Part) -> TaskReport:
    """Return the report of a section with this content."""
    # Parts of older kinds do not name theirs.
    return REPORTS[part.get("kind") or ("multi_label" if "task" in part else "classification")]


def part(value: Any, field: str) -> dict[str, Any]:
    """Check the content of a section of any kind; a schema of :mod:`flax_resnet.schema`."""
    if not isinstance(value, dict):
        raise SchemaError(f"{field} must be an object")
    if value.get("kind") not in (None, *REPORTS):
        raise SchemaError(f"{field}.kind must be one of {', '.join(REPORTS)}")
    return part_report(value).part(value, field)


def section(name: str, part: dict[str, Any]) -> str:
    """Return the HTML of the evaluation ``name`` from its content."""
    return part_report(part).section(name, part)
