"""Everything that knows Orbax: saving and restoring the train state."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from train.errors import RunError, UsageError

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one workdir: the latest ``keep`` and the one of the best top-1.

    Saving is asynchronous: a failure shows at the next call. A save that a kill cut short
    never becomes visible, since Orbax renames it into place when it is complete.

    Args:
      workdir: the run's folder.
      keep: how many of the latest to keep; ``None`` opens them for reading alone.
    """

    def __init__(self, workdir: str, keep: int | None = None):
        self.folder = os.path.join(os.path.abspath(workdir), FOLDER)
        if not os.path.isdir(self.folder) and (keep is None or os.path.exists(self.folder)):
            raise RunError(f"{workdir!r} has no checkpoints: {self.folder} is no folder")
        options = ocp.CheckpointManagerOptions(
            read_only=keep is None,
            create=keep is not None,
            cleanup_tmp_directories=keep is not None,
            best_fn=_top1,
            preservation_policy=AnyPreservationPolicy(
                [
                    LatestN(keep),
                    BestN(get_metric_fn=_top1, n=1, keep_checkpoints_without_metrics=False),
                ]
            ),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        best = self.best()
        self._best_top1 = best[1] if best else -1.0

    def steps(self) -> list[int]:
        """Steps that can be restored, in order."""
        return sorted(self._manager.all_steps())

    def best(self) -> tuple[int, float] | None:
        """The step of the best top-1 and that top-1, if any was evaluated."""
        step = self._manager.best_step()
        metrics = self._manager.metrics(step) if step is not None else None
        return (step, _top1(metrics)) if metrics else None

    def improves(self, metrics: dict[str, float] | None) -> bool:
        """Whether these are an evaluation's and better than all that was saved."""
        return metrics is not None and metrics["top1"] > self._best_top1

    def save(self, state: Any, metrics: dict[str, float] | None = None) -> None:
        """Starts to save a state of host arrays under its own ``state.step``.

        ``metrics`` are the evaluation's, if there was one. Raises RunError if this or the
        save before it failed; what was saved earlier stays.
        """
        step = int(state.step)
        try:
            saved = self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)
        except Exception as error:
            raise RunError(f"cannot save step {step} in {self.folder}: {error}") from error
        if not saved:  # Orbax keeps quiet about it
            raise RunError(f"{self.folder} has step {self.steps()[-1]} already, not saving {step}")
        if self.improves(metrics):
            self._best_top1 = metrics["top1"]

    def restore(self, step: int | str, like: Any) -> Any:
        """Reads a state as host arrays.

        Args:
          step: a number, ``"last"`` or ``"best"``.
          like: a state of the same structure and shapes, its values unused.
        """
        number = self._resolve(step)
        template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        try:
            state = self._manager.restore(number, args=ocp.args.StandardRestore(template))
            jax.tree_util.tree_map_with_path(_check_shape, template, state)
            return state
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            others = ", ".join(str(other) for other in self.steps() if other != number) or "none"
            raise RunError(
                f"cannot read the checkpoint {os.path.join(self.folder, str(number))}: {reason}."
                f" Others: {others}; move this one away to use the last of them"
            ) from error

    def wait(self) -> None:
        """Returns once everything is on disk. Raises RunError where that failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise RunError(f"cannot save in {self.folder}: {error}") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        """Waits for what is being saved and lets go of the folder."""
        self._manager.close()

    def _resolve(self, step: int | str) -> int:
        steps = self.steps()
        if not steps:
            raise RunError(f"{self.folder} has no finished checkpoint yet")
        if step == "last":
            return steps[-1]
        if step == "best":
            best = self.best()
            return best[0] if best else steps[-1]
        if step not in steps:
            have = ", ".join(str(s) for s in steps)
            raise UsageError(f"{self.folder} has no step {step}; it has {have}")
        return step


def _check_shape(where: Any, wanted: np.ndarray, found: np.ndarray) -> None:
    if wanted.shape != found.shape:  # Orbax lets it pass
        name = jax.tree_util.keystr(where)
        raise ValueError(f"{name} is of shape {found.shape}, not {wanted.shape}")


def _top1(metrics: Any) -> float:
    return metrics["top1"]
