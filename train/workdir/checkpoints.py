"""Checkpoints of the train state: the trainer's only access to Orbax.

Every step is a folder that any Orbax user can restore. In addition it holds a manifest
(``flax_resnet/weights/manifest.py``) with the checksums of its files. No older checkpoint is
removed before the new one was read back and compared.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from flax_resnet import schema
from flax_resnet.files import write_atomically
from flax_resnet.text import error_reason
from flax_resnet.weights import manifest
from flax_resnet.weights.checkpoints import FOLDER, best_in, check_step, is_step_name, steps_in
from flax_resnet.weights.run_info import BY_TOP1, BestBy
from train.runtime import distributed
from train.runtime.errors import RunError, UsageError
from train.runtime.files import writing

CORRUPT_FOLDER = "damaged_checkpoints"
_REMOVED = "removed."  # prefix of the folder of a step that is being removed
_WINDOW = "metrics_window.json"  # in the folder of a step, beside its arrays
_WINDOW_NUMBERS = ("steps", "learning_rate", "loss", "nonfinite")  # besides metrics of the task


def _window(value: Any, field: str) -> dict[str, float]:
    """Accept the sums of an unfinished window of steps; a schema."""
    window = schema.mapping(schema.number())(value, field)
    if missing := [name for name in _WINDOW_NUMBERS if name not in window]:
        raise schema.SchemaError(f"{field or 'it'}: {missing[0]} is missing")
    return window


class CorruptCheckpointError(Exception):
    """A checkpoint that differs from what was saved, or belongs to another network."""


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one workdir: the latest ones and the one with the best evaluation.

    Saving runs in a thread; if it fails, the next call raises. An interrupted save never becomes
    visible, since Orbax renames a step into place only when it is complete.

    Args:
      workdir: the run's folder.
      max_to_keep: number of latest checkpoints to keep; ``None`` opens them read-only.
      warn: receives a message for each checkpoint that cannot be used.
      best_by: the metric that decides about the best one.

    Raises:
      RunError: ``workdir`` has no checkpoints to read, or the folder cannot be created.
    """

    def __init__(
        self,
        workdir: str,
        max_to_keep: int | None = None,
        warn: Callable[[str], None] = lambda _: None,
        best_by: BestBy = BY_TOP1,
    ):
        self.folder = os.path.join(os.path.abspath(workdir), FOLDER)
        self._max_to_keep, self._warn, self._best_by = max_to_keep, warn, best_by
        self._read_only = max_to_keep is None
        if not os.path.isdir(self.folder) and (self._read_only or os.path.exists(self.folder)):
            raise RunError(f"{workdir!r} has no checkpoints: {self.folder} is not a folder")
        self._saver = ThreadPoolExecutor(1, "saver")
        self._saving: Future | None = None
        if not self._read_only:
            with writing(self.folder):
                os.makedirs(self.folder, exist_ok=True)
                _remove_leftovers(self.folder)
            if distributed.is_primary():
                self._move_foreign()
        self._manager = ocp.CheckpointManager(self.folder, options=_options(self._read_only))
        self._best = self.best()

    def steps(self) -> list[int]:
        """Return the saved steps in ascending order."""
        return steps_in(self.folder)

    def best(self) -> tuple[int, float] | None:
        """Return the step and metric of the best evaluated checkpoint, the latest of equals."""
        return best_in(self.folder, self._best_by)

    def is_best(self, metrics: dict[str, float] | None) -> bool:
        """Return whether the metrics of an evaluation, if any, beat all saved checkpoints."""
        value = (metrics or {}).get(self._best_by.metric)
        if value is None or self._best is None:
            return value is not None
        return self._best_by.score(value) > self._best_by.score(self._best[1])

    def save(
        self,
        state: Any,
        metrics: dict[str, float] | None = None,
        window: dict[str, float] | None = None,
    ) -> None:
        """Start saving a state of host arrays under its ``state.step``.

        Args:
          state: the train state; it is copied, so the caller may change it afterwards.
          metrics: the evaluation of this state, if there was one.
          window: what :meth:`read_window` returns.

        Raises:
          RunError: the previous save failed, or this step or a later one is saved already.
        """
        self.wait()
        step, saved = int(state.step), self.steps()
        if saved and step <= saved[-1]:
            raise RunError(f"{self.folder} already has step {saved[-1]}, cannot save step {step}")
        self._note(step, metrics)
        state = jax.tree.map(np.array, state)
        self._saving = self._saver.submit(self._save, step, state, metrics, window)

    def read_window(self, step: int) -> dict[str, float]:
        """Return the sums of metrics that a saved step has not logged yet; empty without any.

        Raises:
          RunError: they cannot be read.
        """
        path = os.path.join(self._path(step), _WINDOW)
        try:
            return schema.read_json(path, _window)
        except FileNotFoundError:
            return {}
        except (OSError, schema.SchemaError) as error:
            raise RunError(schema.read_error(path, error)) from error

    def has_metrics(self, step: int) -> bool:
        """Return whether a saved step was evaluated."""
        return bool(manifest.read_metrics(self._path(step)))

    def attach_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Add the evaluation to a step that was saved without one."""
        self.wait()
        with writing(self._path(step)):
            manifest.write(self._path(step), metrics)
        self._remove_old()  # the previous best may have been kept for no other reason
        self._note(step, metrics)

    def _note(self, step: int, metrics: dict[str, float] | None) -> None:
        """Remember an evaluation that beats all others."""
        if self.is_best(metrics):
            self._best = step, metrics[self._best_by.metric]

    def check(self) -> None:
        """Raise RunError if a save has failed; do not wait for a running one."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is on disk; raise RunError if that failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def restore(self, step: int | str, template: Any) -> Any:
        """Restore a state as host arrays and verify that they are what was saved.

        If the latest checkpoint is corrupt, restore the previous one and log a warning; if these
        checkpoints are open for writing, move the corrupt one out of the way.

        Args:
          step: a step number, ``"last"`` or ``"best"``.
          template: a state of the same structure, shapes and dtypes; its values are not used.

        Raises:
          RunError: there is no checkpoint, or the requested one or all of them are corrupt.
          UsageError: there is no such step.
        """
        steps = self.steps()
        if not steps:
            raise RunError(f"{self.folder} has no finished checkpoint yet")
        if step != "last":
            number = self._resolve(step, steps)
            try:
                return self._read(number, template)
            except CorruptCheckpointError as error:
                others = ", ".join(str(other) for other in steps if other != number)
                raise RunError(f"{error}. Other steps: {others or 'none'}") from error
        corrupt: list[tuple[int, CorruptCheckpointError]] = []
        for number in reversed(steps):
            try:
                state = self._read(number, template)
            except CorruptCheckpointError as error:
                corrupt.append((number, error))
                continue
            for other, error in corrupt:
                moved = "" if self._read_only else f"; moved to {self._move_away(other)}"
                self._warn(f"{error}{moved}. Using step {number} instead")
            return state
        _, error = corrupt[0]
        raise RunError(
            f"{error}. None of the {len(corrupt)} checkpoints can be read: copy an intact one into"
            f" {self.folder}, or start a new run in another --workdir"
        ) from error

    def __exit__(self, *_) -> None:
        """Wait for a running save and close the folder."""
        self._saver.shutdown(wait=True)
        self._manager.close()

    def _save(
        self,
        step: int,
        state: Any,
        metrics: dict[str, float] | None,
        window: dict[str, float] | None,
    ) -> None:
        """Write a checkpoint with its manifest, verify it, then remove old ones (in the thread)."""
        path = self._path(step)
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
            self._manager.wait_until_finished()
            if not jax.tree.all(jax.tree.map(np.array_equal, state, self._restore(step, state))):
                raise ValueError("the restored arrays differ from the saved ones")
            if window:
                write_atomically(os.path.join(path, _WINDOW), json.dumps(window) + "\n")
            manifest.write(path, metrics or {})
        except Exception as error:
            with contextlib.suppress(OSError):
                # A partial checkpoint takes space on a disk that may be full.
                if os.path.exists(path):
                    self._remove(step)
                _remove_leftovers(self.folder)
            raise RunError(f"cannot save step {step} in {self.folder}: {_reason(error)}") from error
        self._remove_old()

    def _read(self, step: int, template: Any) -> Any:
        message = f"cannot read the checkpoint {self._path(step)}"
        try:
            verified = check_step(self.folder, step)
        except (OSError, ValueError) as error:
            raise CorruptCheckpointError(f"{message}: {_reason(error)}") from error
        try:
            state = self._restore(step, template)
            jax.tree_util.tree_map_with_path(_check_shape, template, state)
            return state
        except Exception as error:
            # Files that match the manifest are not corrupt; the template is another network's.
            kind = RunError if verified else CorruptCheckpointError
            raise kind(f"{message}: {_reason(error)}") from error

    def _restore(self, step: int, template: Any) -> Any:
        saved = ocp.PyTreeCheckpointHandler().metadata(Path(self._path(step), "default")).tree
        _check_shapes(template, saved)  # before arrays are allocated that might not fit in memory
        arrays = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        return self._manager.restore(step, args=ocp.args.StandardRestore(arrays))

    def _resolve(self, step: int | str, steps: list[int]) -> int:
        if step == "best":
            best = self.best()
            return best[0] if best else steps[-1]
        if step not in steps:
            raise UsageError(f"{self.folder} has no step {step}; it has {str(steps)[1:-1]}")
        return step

    def _path(self, step: int) -> str:
        return os.path.join(self.folder, str(step))

    def _move_foreign(self) -> None:
        """Move files and links with the name of a step, which would block saving it."""
        foreign = set(filter(is_step_name, os.listdir(self.folder))) - set(map(str, self.steps()))
        for name in sorted(foreign, key=int):
            path = self._path(int(name))
            away = self._rename_away(int(name))
            self._warn(f"{path} is a file or link, not a checkpoint; moved to {away}")

    def _move_away(self, step: int) -> str:
        """Move a corrupt checkpoint out of the way of later saves; return its new path."""
        away = self._rename_away(step)
        self._manager.reload()
        return away

    def _rename_away(self, step: int) -> str:
        away = os.path.join(os.path.dirname(self.folder), CORRUPT_FOLDER, str(step))
        try:
            shutil.rmtree(away, ignore_errors=True)
            os.makedirs(os.path.dirname(away), exist_ok=True)
            os.rename(self._path(step), away)
        except OSError as error:  # left in place, it would block saving this step
            raise RunError(
                f"the corrupt checkpoint {self._path(step)} cannot be moved to {away}:"
                f" {error.strerror or error}; move it away, then run the same command again"
            ) from error
        return away

    def _remove_old(self) -> None:
        """Remove all checkpoints except the latest and the best."""
        best = self.best()
        kept = set(self.steps()[-self._max_to_keep :]) | ({best[0]} if best else set())
        with writing(self.folder):
            for step in set(self.steps()) - kept:
                self._remove(step)
        self._manager.reload()

    def _remove(self, step: int) -> None:
        """Rename, then delete: if the process is killed, no partial checkpoint is left."""
        away = os.path.join(self.folder, f"{_REMOVED}{step}")
        os.rename(self._path(step), away)
        shutil.rmtree(away, ignore_errors=True)


def restore_on_all(checkpoints: Checkpoints, step: int | str, template: Any) -> Any:
    """Restore the same checkpoint in all processes, which must all call this.

    Process 0 selects it, since another trainer may be saving meanwhile or the latest checkpoint
    may be corrupt. Raises what :meth:`Checkpoints.restore` raises.
    """
    state = None
    with distributed.raise_if_any_failed():
        if distributed.is_primary():
            state = checkpoints.restore(step, template)
    number = distributed.allgather(None if state is None else int(state.step))[0]
    with distributed.raise_if_any_failed():
        return checkpoints.restore(number, template) if state is None else state


def _options(read_only: bool) -> ocp.CheckpointManagerOptions:
    # Only process 0 writes and the others read independently: no process waits for another.
    process = jax.process_index()
    return ocp.CheckpointManagerOptions(
        read_only=read_only,
        create=False,
        enable_async_checkpointing=False,  # all of saving already runs in a thread
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=process,
            active_processes={process},
            barrier_sync_key_prefix=f"process{process}",
        ),
    )


def _remove_leftovers(folder: str) -> None:
    """Remove what a killed process left while it saved or removed a checkpoint."""
    for name in os.listdir(folder):
        if ".orbax-checkpoint-tmp" in name or name.startswith(_REMOVED):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    for system, short in (
        ("No space left", "no space left on the disk"),
        ("File too large", "the file system does not accept a file this large; is there a quota?"),
        ("Disk quota exceeded", "disk quota exceeded"),
    ):
        if system in text:
            return short
    return error_reason(error)


def _check_shapes(template: Any, saved: Any) -> None:
    """Compare with the metadata of Orbax, in which all containers are dictionaries or lists."""
    paths = jax.tree_util.tree_leaves_with_path
    arrays = {_name(path): leaf for path, leaf in paths(saved)}
    for path, leaf in paths(template):
        if _name(path) in arrays:
            _check_shape(path, leaf, arrays[_name(path)])


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check_shape(path: Any, template: np.ndarray, restored: np.ndarray) -> None:
    if template.shape != restored.shape:  # Orbax does not check
        name = jax.tree_util.keystr(path)
        raise ValueError(f"{name} has shape {restored.shape}, expected {template.shape}")
