"""The first screen of ``report.html``: title, result in words, facts on the run, and tiles."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax_resnet.text import truncate
from train.config.access import flatten
from train.config.task_defaults import default_value
from train.reporting import html_page
from train.reporting.report import evaluation_tiles
from train.reporting.report.progress import progress, throughput
from train.reporting.report.sessions import Session, describe_duration
from train.reporting.task_reports import part_report
from train.runtime.formatting import (
    MAX_CAPTION,
    format_number,
    format_percent,
    format_time,
    join_names,
)
from train.workdir import run_files
from train.workdir.metrics_log import evaluated_rows

_MAX_COUNTS = 600  # characters of the class counts
Part = Mapping[str, Any]


def first_screen(
    workdir: str,
    name: str,
    config: Any,
    rows: Sequence[dict],
    starts: Sequence[dict],
    sessions: Sequence[Session],
    parts: Mapping[str, Any],
) -> list[str]:
    """Return the HTML of header and tiles.

    Args:
      workdir: the run.
      name: title of the page.
      config: its configuration.
      rows: rows of ``metrics.jsonl``.
      starts: content of ``sessions.jsonl``.
      sessions: the same with their ends.
      parts: content of ``report.json``.
    """
    info = run_files.find_description(workdir)
    evaluated = evaluated_rows(rows)
    part = newest_part(evaluated, parts.get("evaluations", {})) if evaluated else None
    lead = _describe_progress(rows, starts, info)
    if part is not None:
        lead = f"{lead} {part_report(part).sentence(part)}".lstrip()
    in_words = html_page.paragraph(lead, "lead").replace(" %", "&nbsp;%") if lead else ""
    date = format_time(sessions[0].start) if sessions else ""
    facts = filter(None, (date, describe_duration(sessions), _device(starts), _network(config)))
    data = [("data", _data(config, info)), ("images by class", _class_counts(parts))]
    tiles, main = _progress_tiles(rows, starts), None
    metrics = ""
    if evaluated:
        metric, images = config.eval.metric, _evaluated_images(info, evaluated[-1])
        if evaluated[-1].get(f"eval/{metric}") is None:  # of an own metric since renamed
            metric = default_value("eval.metric", config.task)
        main = evaluation_tiles.main_tile(evaluated[-1], part, metric, images)
        first = part_report(part).tiles(part) if part else []
        saved = run_files.saved_steps(workdir)
        tiles = [*first, *evaluation_tiles.best_tiles(evaluated, saved, config.eval.metric), *tiles]
        values = evaluation_tiles.all_metrics(evaluated[-1])
        metrics = html_page.folded(
            f"All metrics of the evaluation at step {evaluated[-1]['step']:,}",
            html_page.table(("metric", "value"), values, "metrics of the newest evaluation"),
        )
    return [
        f"<header>\n<h1>{html_page.escape(name)}</h1>\n"
        f"{html_page.paragraph(' · '.join(facts), 'weak')}\n"
        f"{in_words}\n</header>",
        html_page.tiles(tiles, main),
        html_page.facts(data),
        metrics,
    ]


def newest_part(evaluated: Sequence[dict], evaluations: Mapping[str, Part]) -> Part | None:
    """Return the newest evaluation of the run in ``report.json``; None if it is not there.

    Args:
      evaluated: rows of metrics with an evaluation, at least one.
      evaluations: those of ``report.json``, perhaps of other data or an earlier step.
    """
    row = evaluated[-1]
    for part in evaluations.values():
        identity = part_report(part).identity
        if (part["step"], part[identity]) == (row["step"], row.get(f"eval/{identity}")):
            return part
    return None


def _describe_progress(rows: Sequence[dict], starts: Sequence[dict], info: Any) -> str:
    """Return how far a run is that has not reached its last step; empty for a finished one."""
    step, total = progress(rows, starts)
    if info is not None and info.early_end:
        return f"{info.early_end[:1].upper()}{info.early_end[1:].rstrip('.')}."
    if total is None or step >= total:
        return ""
    text = f"Not finished: step {step:,} of {total:,} ({format_percent(step / total, 0)})"
    evaluated = evaluated_rows(rows)
    if not evaluated:
        return f"{text}; not evaluated yet."
    return f"{text}; evaluated at step {evaluated[-1]['step']:,}."


def _device(starts: Sequence[dict]) -> str:
    if not starts:
        return ""
    newest = starts[-1]
    text = f"{newest['devices']} × {newest['device_kind']}"
    if newest["platform"].lower() not in newest["device_kind"].lower():
        text += f" ({newest['platform']})"
    if newest["processes"] > 1:
        text += f" in {newest['processes']} processes"
    return text


def _network(config: Any) -> str:
    values = flatten(config)
    changed = [
        f"{key.removeprefix('model.').replace('_', ' ')} {_plain(value)}"
        for key, value in values.items()
        if key.startswith("model.") and key != "model.name"
        if value != default_value(key, values["task"])
    ]
    text = config.model.name + (f" with {', '.join(changed)}" if changed else "")
    if config.init_from:
        text += f", from {config.init_from}"
    return text


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return format_number(value) if isinstance(value, float) else str(value)


def _data(config: Any, info: Any) -> str:
    text = config.dataset.name
    if info is None:
        return text
    counts = " and ".join(f"{n:,} images in {split}" for split, n in info.images.items())
    names = [truncate(name, MAX_CAPTION) for name in info.class_names]
    size = info.preprocessing.image_size
    pixels = "×".join(map(str, size if isinstance(size, tuple) else (size, size)))
    return f"{text}: {counts} of {pixels} pixels; {len(names):,} classes ({join_names(names, 4)})"


def _evaluated_images(info: Any, row: Mapping[str, Any]) -> int | None:
    """Return the number of images of an evaluation, without corrupt ones; None if unknown."""
    counts = list(info.images.values()) if info else []
    # Those of training and evaluation, in this order.
    return max(0, int(counts[-1] - (row.get("eval/bad") or 0))) if counts else None


def _class_counts(parts: Mapping[str, Any]) -> str:
    """Return the images of each class, which the findings on the data hold."""
    texts = [one["text"] for one in parts.get("findings", ()) if one["kind"] == "class counts"]
    counts = texts[0].partition(": ")[2] if texts else ""
    return counts if len(counts) <= _MAX_COUNTS else ""


def _progress_tiles(rows: Sequence[dict], starts: Sequence[dict]) -> list[html_page.Tile]:
    """Return training loss, or step, and speed, which matters least."""
    step, total = progress(rows, starts)
    last = rows[-1] if rows else {}
    of = f"at step {step:,}" + (f" of {total:,}" if total else "")
    tiles = []
    if "train/loss" in last:
        loss = last["train/loss"]
        text = "not finite" if loss is None else format_number(loss, 3)
        tiles.append(("training loss", text, of))
    else:
        tiles.append(("step", f"{step:,}", f"of {total:,}" if total else ""))
    if (rate := throughput(rows)) is not None:
        tiles.append(("images per second", f"{rate:,.0f}", "median"))
    return tiles
