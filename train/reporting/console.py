"""Progress on the console: lines, or a bar on a terminal."""

from __future__ import annotations

import os
import sys
import time

import tqdm

from train.runtime import distributed
from train.runtime.errors import discard_output, warn
from train.runtime.formatting import format_clock
from train.workdir.metrics_log import FILE


class Console:
    """A progress bar on a terminal; elsewhere a line every two seconds and an evaluation.

    Of several processes only the first one's is ``heard``; what others warn of is, all the same.
    """

    SECONDS_BETWEEN_LINES = 2.0

    def __init__(self, num_steps: int, is_primary: bool = True):
        self.start, self.num_steps, self.is_primary = 0, num_steps, is_primary
        self.began = time.monotonic()
        self.told = 0.0
        self.bar: tqdm.tqdm | None = None
        self._unfinished = False  # whether a line still waits for its end

    def info(self, text: str) -> None:
        """One line for the reader, above the bar if there is one."""
        if self.is_primary:
            self._finish_line()
            self._print(text)

    def warn(self, text: str) -> None:
        """One line that asks for attention."""
        if self.is_primary:
            self.info(f"warning: {text}")
        else:
            self._print(f"warning of process {distributed.process_index()}: {text}")

    def compiling(self) -> None:
        """The first step is about to start, and takes longer than all others."""
        if self.is_primary:
            # Of several processes each may end at any moment, by a thread of JAX's, with a line.
            self._unfinished = distributed.process_count() == 1
            self._print("compiling…", end="" if self._unfinished else "\n")
        self.began = time.monotonic()

    def compiled(self) -> None:
        """The first step is done."""
        if self.is_primary:
            start, self._unfinished = " " if self._unfinished else "compiling… ", False
            self._print(f"{start}done in {time.monotonic() - self.began:.1f} s")

    def start_clock(self, step: int) -> None:
        """From ``step`` on steps are timed."""
        self.began, self.start = time.monotonic(), step
        if self.is_primary and sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            self.bar = tqdm.tqdm(
                total=self.num_steps,
                initial=step,
                unit="step",
                dynamic_ncols=width > 0,
                ncols=None if width else 80,  # terminals without a size say 0
            )

    def progress(self, row: dict[str, float]) -> None:
        """Shows a row of metrics and the time left for the whole run."""
        if not self.is_primary:
            return
        step = row["step"]
        facts = {
            "epoch": f"{row['epoch']:.1f}",
            "loss": f"{row['train/loss']:.4g}",
            "top1": f"{row['train/top1']:.1%}",
        }
        if "eval/top1" in row:
            facts["eval top1"] = f"{row['eval/top1']:.2%}"
        if "images_per_second" in row:
            facts["images/s"] = f"{row['images_per_second']:,.0f}"
        if "mfu" in row:
            facts["MFU"] = f"{row['mfu']:.1%}"
        line = ", ".join(f"{name} {value}" for name, value in facts.items())
        line = f"step {step}/{self.num_steps}: {line}"
        if self.bar is not None:
            if "eval/top1" in row:
                self.info(line)  # to stay when the bar moves on
            self.bar.set_postfix(facts, refresh=False)
            self.bar.update(step - self.bar.n)
            return
        now = time.monotonic()
        if now - self.told < self.SECONDS_BETWEEN_LINES and "eval/top1" not in row:
            return
        self.told = now
        done, left = step - self.start, self.num_steps - step
        eta = f", {format_clock((now - self.began) / done * left)} left" if done and left else ""
        self.info(line + eta)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_) -> None:
        """Ends the bar, or a line that an error cut short."""
        self._finish_line()
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _finish_line(self) -> None:
        if self._unfinished:
            self._print()
            self._unfinished = False

    def _print(self, text: str = "", end: str = "\n") -> None:
        """Who reads may go, or the file's disk be full; the run has more to lose, and goes on."""
        try:
            if self.bar is not None:
                self.bar.write(text, end=end)
            else:
                print(text, end=end)
            sys.stdout.flush()
        except OSError as error:
            discard_output()
            warn(f"no output any more ({error.strerror}): the run goes on, and {FILE} tells of it")
