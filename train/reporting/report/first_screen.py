"""The first screen of ``report.html``: title, data and tiles."""

from collections.abc import Sequence
from typing import Any

from train.reporting import html_page
from train.reporting.report.evaluation_tiles import Tile, evaluation_tiles
from train.reporting.report.progress import progress, throughput
from train.runtime.formatting import join_names
from train.workdir import run_files
from train.workdir.metrics_log import evaluated_rows


def first_screen(
    workdir: str,
    name: str,
    config: Any,
    rows: Sequence[dict],
    sessions: Sequence[dict],
    evaluations: dict[str, dict],
) -> list[str]:
    """Return the HTML of header and tiles.

    Args:
      workdir: the run.
      name: title of the page.
      config: its configuration.
      rows: rows of ``metrics.jsonl``.
      sessions: content of ``sessions.jsonl``.
      evaluations: evaluations of the report, as in ``report.json``.
    """
    subtitle = html_page.paragraph(_subtitle(workdir, config), "weak")
    saved = run_files.saved_steps(workdir)
    return [
        f"<header>\n<h1>{html_page.escape(name)}</h1>\n{subtitle}\n</header>",
        html_page.tiles(_tiles(rows, sessions, evaluations, saved, config.eval.metric)),
    ]


def _subtitle(workdir: str, config: Any) -> str:
    text = f"{config.model.name} on {config.dataset.name}"
    if described := run_files.find_description(workdir):
        counts = ", ".join(f"{n:,} images in {s}" for s, n in described.images.items())
        names = described.class_names
        text += f": {counts}; {len(names):,} classes ({join_names(names, 4)})"
        text += f"; {described.early_end}" if described.early_end else ""
    return text


def _tiles(
    rows: Sequence[dict],
    sessions: Sequence[dict],
    evaluations: dict[str, dict],
    saved: list[int],
    metric: str,
) -> list[Tile]:
    step, total = progress(rows, sessions)
    last = rows[-1] if rows else {}
    state = "finished" if step == total else f"of {total:,}" if total else ""
    facts = []
    if evaluated := evaluated_rows(rows):
        facts += evaluation_tiles(evaluated, evaluations, saved, metric)
    facts.append(("step", f"{step:,}", state))
    if last.get("train/loss") is not None:
        facts.append(("training loss", f"{last['train/loss']:.4g}", "mean since the last log"))
    if (rate := throughput(rows)) is not None:
        facts.append(("images per second", f"{rate:,.0f}", "median"))
    return facts
