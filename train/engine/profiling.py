"""Profile of some training steps, written by ``jax.profiler``."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax

from flax_resnet.text import error_reason
from train.runtime.errors import UsageError

FOLDER = "profile"


def check_profile_steps(steps: tuple[int, ...], num_steps: int) -> None:
    """Raise UsageError if ``config.log.profile_steps`` is not ``()`` or two steps of the run."""
    if steps and (len(steps) != 2 or steps[1] > num_steps):
        raise UsageError(
            f"config.log.profile_steps must be the first and the last step to profile, of 1 to"
            f" {num_steps:,}, such as 1,{min(5, num_steps)}; not {','.join(map(str, steps))}"
        )


def describe_steps(steps: tuple[int, int]) -> str:
    """Return ``"steps 10 to 15"``."""
    first, last = steps
    return f"step {first}" if first == last else f"steps {first} to {last}"


class Profiler(contextlib.AbstractContextManager):
    """Profiler of the calls that contain the steps; a failure is a warning.

    Args:
      steps: first and last step, counted from 1; or () for no profile.
      start: number of steps that are done already.
      workdir: the run's folder; the profile is written to ``profile/`` in it.
      info, warn: receive messages.
    """

    def __init__(
        self,
        steps: tuple[int, ...],
        start: int,
        workdir: str,
        info: Callable[[str], None],
        warn: Callable[[str], None],
    ):
        self._folder = os.path.join(workdir, FOLDER)
        self._info, self._warn = info, warn
        self._active = False
        self._steps = steps
        if steps and steps[0] <= start:
            self._warn(
                f"log.profile_steps: {describe_steps(steps)} will not be profiled, since"
                f" the run continues after step {start}"
            )
            self._steps = ()

    def before(self, call: range, running: Any) -> None:
        """Start the profile if it is due.

        Args:
          call: the steps of the next call, counted from 0.
          running: arrays of earlier steps, which are awaited so that they are not in the profile.
        """
        if self._steps and not self._active and call.stop >= self._steps[0]:
            jax.block_until_ready(running)
            self._try(jax.profiler.start_trace, self._folder)
            self._active = bool(self._steps)

    def after(self, call: range, results: Any) -> bool:
        """Return whether the profile ended after the steps of ``call``, with ``results``."""
        if not self._active or call.stop < self._steps[1]:
            return False
        jax.block_until_ready(results)
        self._stop(describe_steps(self._steps))
        return True

    def __exit__(self, *_) -> None:
        """End the profile of a run that ends early."""
        if self._active:
            self._stop(f"{describe_steps(self._steps)}, cut short")

    def _stop(self, what: str) -> None:
        self._active = False
        if self._try(jax.profiler.stop_trace):
            self._info(f"profile: {what} in {self._folder}; docs/logging.md shows how to view it")
        self._steps = ()

    def _try(self, function: Callable, *arguments: Any) -> bool:
        try:
            function(*arguments)
        except Exception as error:  # for example a full disk, or another profiler at work
            self._warn(f"cannot profile: {type(error).__name__}: {error_reason(error)}")
            self._steps = ()
            return False
        return True
