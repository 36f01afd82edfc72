"""Console output of a training run: lines, or a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence

import tqdm

from flax_resnet.program import reader_is_gone
from flax_resnet.text import one_line
from train.reporting.metric_names import format_metric
from train.runtime import distributed
from train.runtime.columns import hanging
from train.runtime.errors import discard_output, warn
from train.runtime.formatting import format_clock, format_percent
from train.workdir.metrics_log import FILE

_HEAD = 11  # columns of the names of facts


class Console:
    """A progress bar on a terminal; elsewhere a line every two seconds and for each evaluation.

    Only the primary process prints; the others print only warnings. These and notes go to stderr.

    Args:
      num_steps: length of the run.
      is_primary: whether this is the primary process.
      metrics: those of evaluations that are shown.
      trains: whether this is a training, which continues without its output.
    """

    SECONDS_BETWEEN_LINES = 2.0

    def __init__(
        self,
        num_steps: int,
        is_primary: bool = True,
        metrics: Sequence[str] = ("top1",),
        trains: bool = True,
    ):
        self._metrics, self._trains = tuple(dict.fromkeys(metrics)), trains
        self.start, self.num_steps, self.is_primary = 0, num_steps, is_primary
        self.start_time = time.monotonic()
        self.last_line_time = 0.0
        self.bar: tqdm.tqdm | None = None
        self._line_is_open = self._output_is_lost = False

    def info(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.is_primary:
            self._finish_line()
            self._print(one_line(text))

    def fact(self, name: str, text: str, items: bool = False) -> None:
        """Print a fact of the summary below the others, in lines of at most 80 columns.

        Args:
          name: of the fact.
          text: the fact.
          items: whether it is a list, whose lines are broken after commas.
        """
        if self.is_primary:
            self._finish_line()
            self._print(hanging(f"{name + ':':<{_HEAD}}", text, items=items))

    def note(self, text: str, wraps: bool = False) -> None:
        """Print a note to stderr, in the summary in lines of at most 80 columns."""
        if self.is_primary:
            self._print_remark("note: ", text, wraps)

    def warn(self, text: str, wraps: bool = False) -> None:
        """Print a warning to stderr, with the process number if it is not the primary process."""
        process = "" if self.is_primary else f" of process {distributed.process_index()}"
        self._print_remark(f"warning{process}: ", text, wraps)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show that something that takes a while is being done, then how long it took."""
        self._begin(name)
        try:
            yield
        except BaseException:
            self._finish_line()
            raise
        self._end(name)

    def compiling(self) -> None:
        """Announce the first step, which takes longer than all others."""
        self._begin("compiling")

    def compiled(self) -> None:
        """Report that the first step is done."""
        self._end("compiling")

    def _begin(self, name: str) -> None:
        if self.is_primary:
            # With several processes a thread of JAX may end any of them at any moment, with a
            # line of its own.
            self._line_is_open = distributed.process_count() == 1
            self._print(f"{name}…", end="" if self._line_is_open else "\n")
        self.start_time = time.monotonic()

    def _end(self, name: str) -> None:
        if self.is_primary:
            start, self._line_is_open = " " if self._line_is_open else f"{name}… ", False
            self._print(f"{start}done in {time.monotonic() - self.start_time:.1f} s")

    def start_clock(self, step: int) -> None:
        """Start to time the steps after ``step``, and show the bar on a terminal."""
        self.start_time, self.start = time.monotonic(), step
        if self.is_primary and sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            self.bar = tqdm.tqdm(
                total=self.num_steps,
                initial=step,
                unit="step",
                dynamic_ncols=width > 0,
                ncols=None if width else 80,  # terminals without a size report 0
            )

    def progress(self, row: dict[str, float]) -> None:
        """Show a row of metrics and the time left for the whole run."""
        if not self.is_primary:
            return
        step = row["step"]
        facts = {"epoch": f"{row['epoch']:.1f}"}
        if "train/loss" in row:
            facts["loss"] = f"{row['train/loss']:.4g}"
        for key, value in row.items():
            if key.startswith("train/") and key != "train/loss":
                facts[key.removeprefix("train/")] = format_percent(value)
        evaluated = [name for name in self._metrics if f"eval/{name}" in row]
        for name in evaluated:
            facts[f"eval {name}"] = format_metric(name, row[f"eval/{name}"])
        if "images_per_second" in row:
            facts["images/s"] = f"{row['images_per_second']:,.0f}"
        if "mfu" in row:
            facts["MFU"] = format_percent(row["mfu"])
        line = ", ".join(f"{name} {value}" for name, value in facts.items())
        line = f"step {step}/{self.num_steps}: {line}"
        if self.bar is not None:
            if evaluated:
                self.info(line)  # stays visible when the bar moves on
            self.bar.set_postfix(facts, refresh=False)
            self.bar.update(step - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last_line_time < self.SECONDS_BETWEEN_LINES and not evaluated:
            return
        self.last_line_time = now
        done, left = step - self.start, self.num_steps - step
        if done and left:
            line += f", {format_clock((now - self.start_time) / done * left)} left"
        self.info(line)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_) -> None:
        """Close the bar, and end a line that an error cut short."""
        self._finish_line()
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _finish_line(self) -> None:
        if self._line_is_open:
            self._print()
            self._line_is_open = False

    def _print_remark(self, head: str, text: object, wraps: bool) -> None:
        self._finish_line()
        line = hanging(head, str(text)) if wraps else one_line(f"{head}{text}")
        if self.bar is not None:
            self.bar.write(line, sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def _print(self, text: str = "", end: str = "\n") -> None:
        """Print; a closed pipe or a full disk ends the output, but not the run."""
        try:
            if self.bar is not None:
                self.bar.write(text, end=end)
            else:
                print(text, end=end)
            sys.stdout.flush()
        except OSError as error:
            discard_output()
            self._warn_of_loss(error.strerror)
        if reader_is_gone(sys.stdout):
            self._warn_of_loss("its reader has ended")

    def _warn_of_loss(self, reason: str) -> None:
        if self._trains and not self._output_is_lost:
            self._output_is_lost = True
            warn(f"console output failed ({reason}): training continues, see {FILE}")
