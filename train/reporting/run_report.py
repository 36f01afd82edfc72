"""``report.html``: what a run's folder holds, as one page.

``metrics.jsonl``, ``config.json``, ``run.json`` and ``sessions.jsonl`` say most of it. The rest,
pictures above all, is in ``report.json``: the samples, and what was found by evaluations.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flax_resnet.files import write_atomically
from train.config.access import flatten
from train.config.keys import KEYS
from train.engine.evaluation import Evaluated
from train.reporting import curves, evaluation_results, evaluation_section, html_page, svg
from train.reporting.plots import Plots
from train.runtime.formatting import join_names
from train.workdir import run_files
from train.workdir.metrics_log import evaluated_rows, read_rows

FILE, PARTS = "report.html", "report.json"
SAMPLES = 24
EXPLAINED = 8  # half of them mistakes, where there are as many
_MOST_CELLS = 20  # classes whose confusions are shown as a table
_SMALL = 64  # pixels; smaller pictures are shown as the pixels they are


class LiveReport(Plots):
    """The pictures and the page of a run that trains. Pictures of evaluations are made when the
    page is, and not each time.
    """

    def __init__(self, workdir: str, warn: Callable[[str], None]):
        super().__init__(workdir, warn)
        self._evaluated: Callable[[], Evaluated] | None = None
        self._samples: dict[str, Any] | None = None

    def draw_samples(self, take: Callable[[], tuple[np.ndarray, Sequence[str]]]) -> None:
        """Draws the images and captions that ``take`` gives, and begins the page."""

        def noted() -> tuple[np.ndarray, Sequence[str]]:
            images, captions = take()
            self._samples = samples_part(images, captions)
            return images, captions

        super().draw_samples(noted)
        self._try(FILE, self._write)

    def set_evaluation(self, tell: Callable[[], Evaluated]) -> None:
        """``tell`` gives the newest evaluation, once it is asked for."""
        self._evaluated = tell

    def redraw(self) -> None:
        """Draws the curves, and makes the page anew."""
        super().redraw()
        self._try(FILE, self._write)

    def _write(self) -> None:
        # Read each time: train.evaluate may have added something meanwhile.
        parts = before = read_parts(self._workdir)
        if self._samples is not None:
            parts = parts | {"samples": self._samples}
        if self._evaluated is not None:
            parts = add_evaluation(parts, self._evaluated())
        self._samples = self._evaluated = None
        if parts is not before:
            write_parts(self._workdir, parts)
        write(self._workdir, parts=parts)


def write(path: str, folder: str = "", parts: dict[str, Any] | None = None) -> None:
    """Writes the report of the run in ``path`` there, or in another folder.

    ``parts`` are what ``report.json`` would hold. Raises RunError where there is no run, and
    OSError where the page cannot be written.
    """
    text = page(path, read_parts(path) if parts is None else parts)
    write_atomically(os.path.join(folder or path, FILE), text)


def read_parts(path: str) -> dict[str, Any]:
    """What ``report.json`` holds; empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        with open(os.path.join(path, PARTS), encoding="utf-8") as file:
            parts = json.load(file)
        if isinstance(parts, dict):
            return parts
    return {}


def write_parts(path: str, parts: dict[str, Any]) -> None:
    """Writes ``report.json``."""
    write_atomically(os.path.join(path, PARTS), json.dumps(parts) + "\n")


def samples_part(images: np.ndarray, captions: Sequence[str]) -> dict[str, Any]:
    """Some of the augmented training images uint8 ``(N, H, W, 3)``, with what they are."""
    shown = zip(images[:SAMPLES], captions, strict=False)
    return {
        "small": images.shape[1] < _SMALL,
        "cells": [{"picture": html_page.picture(i), "caption": c} for i, c in shown],
    }


def name_of(evaluated: Evaluated) -> str:
    """What was evaluated, whatever the step: a later evaluation of the same takes its place."""
    folder = os.path.basename(evaluation_results.folder_of("", evaluated))
    return folder.partition("_")[2]


def add_evaluation(parts: dict[str, Any], evaluated: Evaluated) -> dict[str, Any]:
    """The parts with an evaluation, in place of an earlier one of the same data."""
    found = parts.get("evaluations", {})
    return parts | {"evaluations": found | {name_of(evaluated): evaluation_part(evaluated)}}


def evaluation_part(evaluated: Evaluated) -> dict[str, Any]:
    """All about an evaluation; where it has its variables, Grad-CAM's maps of some images."""
    predictions = evaluated.predictions
    names = evaluation_results.outputs_of(evaluated)
    scores = evaluation_results.score_of(evaluated)
    part = evaluation_results.as_json(evaluated, scores)
    part["small"] = evaluated.loader.image_shape[0] < _SMALL
    if len(scores.confusion) > _MOST_CELLS:
        counts = scores.confusion
        del part["confusion"]  # of a thousand classes: megabytes
        part["heat_map"] = html_page.heat_map(
            counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        )

    def cells(which: np.ndarray, images: np.ndarray) -> list[dict[str, str]]:
        captions = evaluation_results.captions_of(predictions, which, names)
        shown = zip(images, captions, strict=True)
        return [{"picture": html_page.picture(i), "caption": c} for i, c in shown]

    if len(scores.mistakes):
        squares = evaluated.loader.center_crops(predictions.record[scores.mistakes])
        part["mistakes"] = cells(scores.mistakes, squares)
        for cell, told in zip(part["mistakes"], part["most_confident_mistakes"], strict=True):
            cell["caption"] += f"\n{told['image']}"  # to look at, or to put in its right place
    if evaluated.variables is not None:
        which = to_explain(evaluated, scores.mistakes)
        part["explained"] = cells(which, explanations(evaluated, which))
    return part


def to_explain(evaluated: Evaluated, mistakes: np.ndarray) -> np.ndarray:
    """Entries of the predictions: the most confident mistakes, and right answers of many classes,
    the most confident first.
    """
    predictions = evaluated.predictions
    right = np.flatnonzero(predictions.right)
    right = right[np.argsort(-predictions.confidence[right], kind="stable")]
    _, first = np.unique(predictions.label[right], return_index=True)
    first = np.sort(first)
    right = np.concatenate([right[first], np.delete(right, first)])
    wrong = mistakes[: max(EXPLAINED // 2, EXPLAINED - len(right))]
    return np.concatenate([wrong, right[: EXPLAINED - len(wrong)]]).astype(int)


def explanations(evaluated: Evaluated, which: np.ndarray) -> np.ndarray:
    """The images side by side with what speaks for the predicted class, ``(N, S, 2 S, 3)``."""
    from flax_resnet.gradcam import gradcam, overlay

    squares = evaluated.loader.center_crops(evaluated.predictions.record[which])
    filled = np.resize(squares, (EXPLAINED, *squares.shape[1:]))  # one compiled shape
    classes = np.resize(evaluated.predictions.predicted[which], EXPLAINED)
    images = evaluated.loader.preprocessing.normalize(filled)
    heats = np.asarray(gradcam(evaluated.model, evaluated.variables, images, classes))
    return np.stack(
        [np.hstack([i, overlay(i, heat)]) for i, heat in zip(squares, heats, strict=False)]
    )


def page(path: str, parts: dict[str, Any]) -> str:
    """The HTML of a run's report. Raises RunError where ``path`` holds no run."""
    config = run_files.read_config(path)
    rows, sessions = read_rows(path), run_files.read_sessions(path)
    name = os.path.basename(os.path.abspath(path))
    evaluations: dict[str, dict] = parts.get("evaluations", {})
    panels = curves.of_run(rows, "epoch" if all("epoch" in row for row in rows) else "step")
    samples = parts.get("samples")
    body = [
        "<header>",
        f"<h1>{html_page.escape(name)}</h1>",
        html_page.paragraph(_what(path, config), "weak"),
        "</header>",
        html_page.tiles(_facts(rows, sessions, evaluations, run_files.saved_steps(path))),
        html_page.section("Curves", _charts(panels)),
        *(evaluation_section.section(one, evaluated) for one, evaluated in evaluations.items()),
        html_page.section(
            "Training images, as the network sees them",
            html_page.cells(samples["cells"], samples["small"]) if samples else "",
        ),
        html_page.section("Configuration", *_configuration(config)),
        html_page.section("Environment", *_environment(path, sessions)),
    ]
    return html_page.page(f"{name} – flax-resnet", body)


def _what(path: str, config: Any) -> str:
    told = f"{config.model.name} on {config.dataset.name}"
    described = run_files.find_description(path)
    if described:
        counts = ", ".join(f"{n:,} images in {s}" for s, n in described["images"].items())
        names = described["class_names"]
        told += f": {counts}; {len(names):,} classes ({join_names(names, 4)})"
    return told


def state_of(rows: Sequence[dict], sessions: Sequence[dict]) -> tuple[int, int | None]:
    """The last step that was told, and how many there are to be, where that is known."""
    total = next((s["num_steps"] for s in reversed(sessions) if "num_steps" in s), None)
    return max((row["step"] for row in rows), default=0), total


def _facts(
    rows: Sequence[dict],
    sessions: Sequence[dict],
    evaluations: dict[str, dict],
    saved: Sequence[int],
) -> list[tuple[str, str, str]]:
    step, total = state_of(rows, sessions)
    last = rows[-1] if rows else {}
    progress = "finished" if step == total else f"of {total:,}" if total else ""
    facts = [("step", f"{step:,}", progress)]
    evaluated = evaluated_rows(rows)
    if evaluated:
        newest = evaluated[-1]
        # Of equals the one that --step best takes: the last that is saved.
        best = max(evaluated, key=lambda r: (r["eval/top1"], r["step"] in saved, r["step"]))
        interval = next(
            (
                e["top1_interval"]
                for e in evaluations.values()
                if e["step"] == newest["step"] and e["top1"] == newest["eval/top1"]
            ),
            None,
        )
        told = "95 % interval {:.2%} to {:.2%}".format(*interval) if interval else ""
        facts.append(("top-1, evaluation", f"{newest['eval/top1']:.2%}", told))
        if newest.get("eval/top5") is not None:
            facts.append(("top-5, evaluation", f"{newest['eval/top5']:.2%}", ""))
        if newest.get("eval/loss") is not None:
            facts.append(("loss, evaluation", f"{newest['eval/loss']:.4g}", ""))
        facts.append(("best top-1", f"{best['eval/top1']:.2%}", f"at step {best['step']:,}"))
    if last.get("train/loss") is not None:
        facts.append(("loss, training", f"{last['train/loss']:.4g}", "mean of the last steps"))
    rates = sorted(r["images_per_second"] for r in rows if r.get("images_per_second"))
    if rates:
        facts.append(("images per second", f"{rates[len(rates) // 2]:,.0f}", "median"))
    return facts


def _charts(panels: Sequence[curves.Panel]) -> str:
    inside = "".join(svg.figure(panel) for panel in panels)
    return f'<div class="charts">{inside}</div>' if inside else ""


def _configuration(config: Any) -> list[str]:
    """Keys that are not at their defaults first, the others on request."""
    values = flatten(config)
    chosen, others = [], []
    for name, key in KEYS.items():
        if values[name] != key.default:
            chosen.append(
                (f"{name}\n{key.meaning}", value_text(values[name]), value_text(key.default))
            )
        else:
            others.append((f"{name}\n{key.meaning}", value_text(values[name])))
    return [
        html_page.table(("key", "value", "default"), chosen, "keys that were set"),
        html_page.folded(
            f"{len(others)} keys at their defaults",
            html_page.table(("key", "value"), others, "keys at their defaults"),
        ),
    ]


def value_text(value: Any) -> str:
    """A configuration's value for people."""
    return repr(value) if isinstance(value, str) else str(value)


def command_of(path: str, sessions: Sequence[dict]) -> str:
    """What was typed to train the run; to go on where that is not known."""
    typed = next((s["command"] for s in sessions if s.get("command")), None)
    return typed or shlex.join(["python", "-m", "train.main", "--workdir", path, "--config", "…"])


def _environment(path: str, sessions: Sequence[dict[str, Any]]) -> list[str]:
    asked = shlex.quote(path)
    commands = (
        f"{command_of(path, sessions)}\npython -m train.evaluate --workdir {asked}\n"
        f"python -m train.predict --workdir {asked} PICTURE"
    )
    rows = []
    for one in sessions:
        git = one.get("git") or {}
        revision = git.get("revision", "–")[:12] + (" + changes" if git.get("changed") else "")
        where = (
            f"{one['devices']} × {one['device_kind']} ({one['platform']}),"
            f" {one['processes']} process{'es' * (one['processes'] > 1)}"
        )
        rows.append((one["time"], one["step"], where, revision, one["xla_flags"]))
    head = ("started (UTC)", "at step", "devices", "revision", "XLA_FLAGS")
    versions = sessions[-1]["versions"].items() if sessions else ()
    return [
        "<h3>Train, evaluate, predict</h3>",
        f"<pre>{html_page.escape(commands)}</pre>",
        "<h3>Sessions</h3>",
        html_page.table(head, rows, "sessions") if rows else html_page.paragraph("none yet"),
        html_page.folded(
            "Versions of the libraries",
            html_page.table(("library", "version"), list(versions), "versions of the libraries"),
        )
        if versions
        else "",
    ]
