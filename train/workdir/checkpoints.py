"""Everything that knows Orbax: saving and restoring the train state.

Each step is a folder that any user of Orbax can restore from, with a checksum manifest
(``flax_resnet/weights/manifest.py``). Nothing older is removed before the new one was read back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from flax_resnet.weights import manifest
from flax_resnet.weights.checkpoints import FOLDER, best_in, check_step, steps_in
from train.runtime import distributed
from train.runtime.errors import RunError, UsageError
from train.runtime.files import writing

DAMAGED = "damaged_checkpoints"
_REMOVED = "removed."  # before the number of a step that is being removed


class Checkpoints:
    """The checkpoints of one workdir: the latest ``keep`` and the one of the best top-1.

    Saving happens in a thread: a failure shows at the next call. A save that a kill cut short
    never becomes visible, since Orbax renames it into place when it is complete.

    Args:
      workdir: the run's folder.
      keep: how many of the latest to keep; ``None`` opens them for reading alone.
      warn: is told of checkpoints that cannot be used.
    """

    def __init__(
        self, workdir: str, keep: int | None = None, warn: Callable[[str], None] = lambda _: None
    ):
        self.folder = os.path.join(os.path.abspath(workdir), FOLDER)
        self._keep, self._warn = keep, warn
        if not os.path.isdir(self.folder) and (keep is None or os.path.exists(self.folder)):
            raise RunError(f"{workdir!r} has no checkpoints: {self.folder} is no folder")
        self._saver = ThreadPoolExecutor(1, "saver")
        self._saving: Future | None = None
        if keep is not None:
            with writing(self.folder):
                os.makedirs(self.folder, exist_ok=True)
                _clear(self.folder)
        self._manager = ocp.CheckpointManager(self.folder, options=_options(keep is None))
        best = self.best()
        self._best_top1 = best[1] if best else -1.0

    def steps(self) -> list[int]:
        """Steps that are saved, in order."""
        return steps_in(self.folder)

    def best(self) -> tuple[int, float] | None:
        """The step of the best top-1 and that top-1, if any was evaluated; of equals the last."""
        return best_in(self.folder)

    def is_best(self, metrics: dict[str, float] | None) -> bool:
        """Whether these are an evaluation's and better than all that was saved."""
        return metrics is not None and metrics["top1"] > self._best_top1

    def save(self, state: Any, metrics: dict[str, float] | None = None) -> None:
        """Starts to save a state of host arrays under its own ``state.step``.

        ``metrics`` are the evaluation's, if there was one. Raises RunError if the save before
        it failed, or where a later step is saved already; what was saved earlier stays.
        """
        self.wait()
        step, saved = int(state.step), self.steps()
        if saved and step <= saved[-1]:
            raise RunError(f"{self.folder} has step {saved[-1]} already, not saving {step}")
        if self.is_best(metrics):
            self._best_top1 = metrics["top1"]
        copy = jax.tree.map(np.array, state)  # the caller may go on to change it
        self._saving = self._saver.submit(self._save, step, copy, metrics)

    def has_metrics(self, step: int) -> bool:
        """Whether a saved step was evaluated."""
        return bool(manifest.read_metrics(self._path(step)))

    def attach_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Adds the evaluation to a step that was saved without one."""
        self.wait()
        with writing(self._path(step)):
            manifest.write(self._path(step), metrics)
        self._remove_others()  # the best until now may have been kept as such alone
        self._best_top1 = max(self._best_top1, metrics["top1"])

    def check(self) -> None:
        """Raises RunError where a save has failed; one that goes on is not waited for."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Returns once everything is on disk. Raises RunError where that failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def restore(self, step: int | str, like: Any) -> Any:
        """Reads a state as host arrays, and checks that they are what was saved.

        Args:
          step: a number, ``"last"`` or ``"best"``.
          like: a state of the same structure and shapes, its values unused.

        In place of a last one that is damaged the one before it is read, and told; where these
        checkpoints are written to, too, the damaged one is moved away. Raises RunError where
        none can be read, or not the one that was asked for, and UsageError where there is none.
        """
        if step != "last":
            number = self._resolve(step)
            try:
                return self._read(number, like)
            except CorruptCheckpointError as error:
                raise RunError(f"{error}. {self._others(number)}") from error
        damaged: list[tuple[int, CorruptCheckpointError]] = []
        for number in reversed(self.steps()):
            try:
                state = self._read(number, like)
            except CorruptCheckpointError as error:
                damaged.append((number, error))
                continue
            for other, error in damaged:
                moved = f"; it is now {self._move_away(other)}" if self._keep is not None else ""
                self._warn(f"{error}{moved}. Step {number} is used")
            return state
        if not damaged:
            raise RunError(f"{self.folder} has no finished checkpoint yet")
        number, error = damaged[0]
        raise RunError(
            f"{error}. None of {len(damaged)} checkpoints can be read: put a good copy of one back"
            f" into {self.folder}, or begin anew in another --workdir"
        ) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        """Waits for what is being saved and lets go of the folder."""
        self._saver.shutdown(wait=True)
        self._manager.close()

    def _save(self, step: int, state: Any, metrics: dict[str, float] | None) -> None:
        """Runs in the saver's thread: writes, reads back, adds the manifest, removes others."""
        place = self._path(step)
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
            self._manager.wait_until_finished()
            _check_same(state, self._restore(step, state))
            manifest.write(place, metrics or {})
        except Exception as error:
            with contextlib.suppress(OSError):
                # What is half written takes room on a disk that may be full.
                if os.path.exists(place):
                    self._remove(step)
                _clear(self.folder)
            raise RunError(f"cannot save step {step} in {self.folder}: {_told(error)}") from error
        self._remove_others()

    def _read(self, step: int, like: Any) -> Any:
        place = self._path(step)
        try:
            verified = check_step(self.folder, step)
        except (OSError, ValueError) as error:
            raise CorruptCheckpointError(
                f"cannot read the checkpoint {place}: {_told(error)}"
            ) from error
        try:
            state = self._restore(step, like)
            jax.tree_util.tree_map_with_path(_check_shape, like, state)
            return state
        except Exception as error:
            # Files that match the manifest are not corrupt.
            kind = RunError if verified else CorruptCheckpointError
            raise kind(f"cannot read the checkpoint {place}: {_told(error)}") from error

    def _restore(self, step: int, like: Any) -> Any:
        template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(template))

    def _resolve(self, step: int | str) -> int:
        steps = self.steps()
        if not steps:
            raise RunError(f"{self.folder} has no finished checkpoint yet")
        if step == "best":
            best = self.best()
            return best[0] if best else steps[-1]
        if step not in steps:
            have = ", ".join(str(s) for s in steps)
            raise UsageError(f"{self.folder} has no step {step}; it has {have}")
        return step

    def _others(self, step: int) -> str:
        others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
        return f"Others: {others}"

    def _path(self, step: int) -> str:
        return os.path.join(self.folder, str(step))

    def _move_away(self, step: int) -> str:
        """Out of the way of what will be saved, for whoever wants to look at it."""
        away = os.path.join(os.path.dirname(self.folder), DAMAGED, str(step))
        try:
            shutil.rmtree(away, ignore_errors=True)
            os.makedirs(os.path.dirname(away), exist_ok=True)
            os.rename(self._path(step), away)
        except OSError as error:  # with it in the way nothing could be saved under this step
            raise RunError(
                f"the damaged checkpoint {self._path(step)} cannot be moved to {away}:"
                f" {error.strerror or error}; move it away, and give the same command again"
            ) from error
        self._manager.reload()
        return away

    def _remove_others(self) -> None:
        """All but the latest and the best."""
        best = self.best()
        kept = set(self.steps()[-self._keep :]) | ({best[0]} if best else set())
        with writing(self.folder):
            for other in set(self.steps()) - kept:
                self._remove(other)
        self._manager.reload()

    def _remove(self, step: int) -> None:
        """At once, under its name; then file by file: a kill leaves no half of a checkpoint."""
        away = os.path.join(self.folder, f"{_REMOVED}{step}")
        os.rename(self._path(step), away)
        shutil.rmtree(away, ignore_errors=True)


def restore_together(checkpoints: Checkpoints, step: int | str, like: Any) -> Any:
    """A state, of several processes the one that the first takes. All must call it.

    A trainer may be saving meanwhile, or the last one be damaged: which is the last is for one
    to say. Raises what :meth:`Checkpoints.restore` does.
    """
    state = None
    with distributed.raise_if_any_failed():
        if distributed.is_primary():
            state = checkpoints.restore(step, like)
    number = distributed.allgather(None if state is None else int(state.step))[0]
    with distributed.raise_if_any_failed():
        return checkpoints.restore(number, like) if state is None else state


class CorruptCheckpointError(Exception):
    """A checkpoint that is not what was saved, or of another network."""


def _options(read_only: bool) -> ocp.CheckpointManagerOptions:
    # Whoever opens a folder is alone with it: of several processes only the first one writes, and
    # the others need not wait for each other to read.
    own = jax.process_index()
    return ocp.CheckpointManagerOptions(
        read_only=read_only,
        create=False,
        enable_async_checkpointing=False,  # the whole of saving has a thread of its own
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        ),
    )


def _clear(folder: str) -> None:
    """Removes what a process left that was killed while it saved or removed a checkpoint."""
    for name in os.listdir(folder):
        if ".orbax-checkpoint-tmp" in name or name.startswith(_REMOVED):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    for told, short in (
        ("No space left", "no space left on the disk"),
        ("File too large", "the file system takes no file of that size; is there a quota?"),
        ("Disk quota exceeded", "the disk's quota is used up"),
    ):
        if told in text:
            return short
    return text[:200] or type(error).__name__


def _check_same(saved: Any, found: Any) -> None:
    if not all(jax.tree.leaves(jax.tree.map(np.array_equal, saved, found))):
        raise ValueError("what was read back is not what was written")


def _check_shape(where: Any, wanted: np.ndarray, found: np.ndarray) -> None:
    if wanted.shape != found.shape:  # Orbax lets it pass
        name = jax.tree_util.keystr(where)
        raise ValueError(f"{name} is of shape {found.shape}, not {wanted.shape}")
