"""How evaluations are reported: of images with one class each, or with any number of classes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax_resnet.schema import SchemaError
from train.engine.evaluation import Evaluated
from train.reporting import cautions, evaluation_results
from train.reporting.multi_label import metrics as multi_label_metrics
from train.reporting.multi_label import results as multi_label_results
from train.reporting.multi_label import section as multi_label_section
from train.reporting.report import evaluation_section


class TaskReport(NamedTuple):
    """The report of evaluations of one kind; all functions take :attr:`compute`'s metrics.

    Attributes:
      compute: ``(evaluated) -> metrics``.
      cautions: ``(result, metrics) -> lines`` on results that are worse than they look.
      summary: ``(evaluated, metrics) -> text`` for the console.
      write_results: ``(folder, evaluated, metrics, warn) -> names`` of the files.
      build_part: ``(evaluated, metrics) -> content`` of ``section``, for JSON.
      part: schema of that content.
      section: ``(name, content) -> HTML``.
    """

    compute: Callable[[Evaluated], Any]
    cautions: Callable[[dict[str, Any], Any], list[str]]
    summary: Callable[[Evaluated, Any], str]
    write_results: Callable[[str, Evaluated, Any, Callable[[str], None]], list[str]]
    build_part: Callable[[Evaluated, Any], dict[str, Any]]
    part: Callable[[Any, str], dict[str, Any]]
    section: Callable[[str, dict[str, Any]], str]


_CLASSIFICATION = TaskReport(
    evaluation_results.evaluation_metrics,
    lambda result, metrics: cautions.cautions(result, metrics.classes),
    evaluation_results.summary,
    evaluation_results.write_results,
    evaluation_section.build_part,
    evaluation_section.PART,
    evaluation_section.section,
)
_MULTI_LABEL = TaskReport(
    multi_label_metrics.compute,
    multi_label_metrics.cautions,
    multi_label_results.summary,
    multi_label_results.write_results,
    multi_label_section.build_part,
    multi_label_section.PART,
    multi_label_section.section,
)


def task_report(evaluated: Evaluated) -> TaskReport:
    """Return the report for the labels of an evaluation."""
    return _MULTI_LABEL if evaluated.predictions.several_labels else _CLASSIFICATION


def part(value: Any, field: str) -> dict[str, Any]:
    """Check the content of a section of either kind; a schema of :mod:`flax_resnet.schema`."""
    if not isinstance(value, dict):
        raise SchemaError(f"{field} must be an object")
    return _of_part(value).part(value, field)


def section(name: str, part: dict[str, Any]) -> str:
    """Return the HTML of the evaluation ``name`` from the content of either kind."""
    return _of_part(part).section(name, part)


def _of_part(part: dict[str, Any]) -> TaskReport:
    return _MULTI_LABEL if "task" in part else _CLASSIFICATION
