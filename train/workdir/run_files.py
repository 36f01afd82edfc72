"""The files that describe a run in its workdir, and whether the run may be resumed there.

``config.json`` holds the configuration, ``run.json`` whatever else prediction needs, and
``sessions.jsonl`` one line per start with the software and hardware it used.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flax_resnet import recipe_store, schema
from flax_resnet.files import write_atomically
from flax_resnet.weights.checkpoints import FOLDER, steps_in
from flax_resnet.weights.run_info import RUN_INFO, BestBy, RunInfo
from train.config import loading
from train.config.followed_keys import keep_followed
from train.config.keys import KEYS
from train.config.own_parts import own_parts, recipe_of
from train.config.registries import larger_is_better
from train.data.loader import DataLoader
from train.data.source import DataSource
from train.runtime import distributed
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError, warn
from train.runtime.files import (
    Locked,
    append_line,
    check_operations,
    check_writable,
    locked,
    writing,
)
from train.runtime.formatting import join_names
from train.workdir import environment
from train.workdir.metrics_log import read_optional_lines

SESSIONS = "sessions.jsonl"
_LENGTH_KEYS = ("num_epochs", "num_steps")
_text, _count = schema.text(), schema.integer()
_SESSION = schema.record(
    time=_text,
    step=_count,
    num_steps=schema.optional(_count),
    batch_norm_images=schema.optional(_count),
    command=schema.optional(schema.text(2**20, any_path=True)),
    versions=schema.mapping(_text),
    git=schema.optional(schema.record(revision=_text, changed=schema.boolean)),
    platform=_text,
    device_kind=_text,
    devices=_count,
    processes=_count,
    xla_flags=schema.text(2**17, any_path=True),
)
_VISIBLE_SECONDS = 30  # time that network file systems may take to show a new file


def check(path: str, config: ConfigDict) -> bool:
    """Check that ``config`` may be trained in the folder, without changing anything there.

    Keys that followed the preprocessing of ``init_from`` when the run started, and are not set in
    ``config``, get the values that they had.

    Whether the run may have another length depends on its schedule and is not checked here.

    Returns:
      Whether the folder has checkpoints, so that the run is resumed.

    Raises:
      UsageError: the folder has checkpoints of a run with another configuration.
      RunError: the folder cannot be written, or its config.json cannot be read.
    """
    check_writable(path, f"the workdir {path!r}")
    # The folder may be of another user.
    check_writable(os.path.join(path, FOLDER), f"the workdir {path!r}")
    if not saved_steps(path):
        return False
    stored = read_config(path)
    keep_followed(config, stored)
    different = loading.differences(stored, config)
    names = {name for name, _, _ in different}
    if names - {*_LENGTH_KEYS}:
        keys = "; ".join(f"{name} was {old!r}, is now {new!r}" for name, old, new in different)
        other_weights = any(name.startswith(("model.", "init_")) for name in names)
        raise UsageError(
            f"{path!r} holds a run with another configuration: {keys}. Use the same configuration"
            f" to resume it, or {'another --workdir' if other_weights else advise_new_run(path)}"
        )
    if distributed.is_primary():
        _warn_of_changed_recipe(path, config)
    return True


def _warn_of_changed_recipe(path: str, config: ConfigDict) -> None:
    info, recipe = find_description(path), recipe_of(config)
    if info is not None and info.recipe is not None and recipe is not None:
        if recipe.digest != info.recipe.digest:
            warn(
                f"the recipe {recipe.path!r} or a module that it imports has changed since"
                f" {path!r} was started; the run continues with the new code"
            )


def advise_new_run(path: str) -> str:
    """Return how to train the weights of the run in ``path`` further, with the whole command."""
    number = 2
    while os.path.exists(new := f"{path.rstrip('/')}_{number}"):
        number += 1
    command = environment.command_with({"--workdir": new, "--config.init_from": path})
    return f"train its weights further in a new run: {command}"


@contextlib.contextmanager
def exclusive_lock(path: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Lock the workdir, created if needed, for this trainer.

    Raises:
      RunError: another trainer holds the lock, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            with writing(f"the workdir {path!r}"):
                os.makedirs(path, exist_ok=True)
            lock = os.path.join(path, "trainer.lock")
            with writing(lock):
                has_locks = stack.enter_context(locked(lock))
            with writing(f"the workdir {path!r}"):
                check_operations(path)
        except Locked as error:
            raise RunError(
                f"{error} trains in {path!r}; wait until it ends, or use another --workdir"
            ) from None
        if not has_locks:
            warn(f"the file system of {path!r} has no locks: do not start a second trainer there")
        yield


def create(path: str, config: ConfigDict) -> None:
    """Create the folder, and write ``config.json`` and the recipe of own parts.

    Raises:
      RunError: that fails.
    """
    with writing(f"the workdir {path!r}"):
        os.makedirs(path, exist_ok=True)
    with writing(_config_file(path)):
        write_atomically(_config_file(path), loading.to_json(config))
    recipe = recipe_of(config)
    if recipe and own_parts(config):
        with writing(os.path.join(path, recipe_store.FOLDER)):
            recipe_store.store(path, recipe)
        try:
            recipe_store.trust(recipe)
        except OSError as error:
            warn(
                f"cannot note that you train with the recipe {recipe.path!r}: {error}; commands"
                " that use the run will need --trust_recipe"
            )


def read_config(path: str) -> ConfigDict:
    """Return the configuration of the run in ``path``; raise RunError if there is none."""
    file_path = _config_file(path)
    advice = "restore the file, or train in another --workdir"
    try:
        return loading.read_json_file(file_path)
    except FileNotFoundError:
        if saved_steps(path):  # without the configuration they are useless
            raise RunError(f"{path!r} has checkpoints, but no config.json: {advice}") from None
        raise RunError(f"{path!r} holds no run: there is no {file_path}") from None
    except loading.InvalidKeyError as error:
        if not _is_own_key(path, error.key):
            raise RunError(f"{schema.read_error(file_path, error)}; {advice}") from error
        problem = f"no longer permits: {error}" if error.key in KEYS else "no longer declares"
        raise RunError(
            f"the run in {path!r} has config.{error.key}, which its recipe {problem}; use the"
            " recipe as it was, or train in another --workdir"
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{schema.read_error(file_path, error)}; {advice}") from error


def _is_own_key(path: str, name: str) -> bool:
    info = find_description(path)
    return info is not None and f"key {name}" in info.own_parts


def saved_steps(path: str) -> list[int]:
    """Return the steps that have a checkpoint in the workdir, in ascending order."""
    return steps_in(os.path.join(path, FOLDER))


def check_shared(path: str) -> None:
    """Raise RunError in all processes if one of them sees another folder at ``path``."""
    if distributed.process_count() == 1:
        return
    token = os.path.join(path, f".shared.{distributed.allgather(secrets.token_hex(8))[0]}")
    with distributed.raise_if_any_failed():
        if distributed.is_primary():
            with writing(token):
                open(token, "w").close()
    try:
        with distributed.raise_if_any_failed():
            deadline = time.monotonic() + _VISIBLE_SECONDS
            while not os.path.exists(token):
                if time.monotonic() > deadline:
                    raise RunError(
                        f"the workdir {path!r} is not the one that process 0 sees; it must be in"
                        " a folder that all processes share"
                    )
                time.sleep(0.2)
    finally:
        if distributed.is_primary():
            with contextlib.suppress(OSError):
                os.unlink(token)


# sessions.jsonl -----------------------------------------------------------------------------


def add_session(path: str, step: int, num_steps: int, batch_norm_images: int) -> None:
    """Record a start of the run.

    Args:
      path: the workdir.
      step: the step from which the run starts.
      num_steps: total number of steps.
      batch_norm_images: images over which batch norm computes its statistics.
    """
    session = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step,
        "num_steps": num_steps,
        "batch_norm_images": batch_norm_images,
        "command": environment.command(),
    } | environment.describe()
    append_line(os.path.join(path, SESSIONS), json.dumps(session))


def read_sessions(path: str, warn: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Return all starts of the run, as :func:`add_session` wrote them.

    ``command`` is None if the run was started from Python. ``warn`` receives a message if some of
    them cannot be read.
    """
    return read_optional_lines(os.path.join(path, SESSIONS), _SESSION, warn)


# run.json -----------------------------------------------------------------------------------


def describe(
    path: str,
    config: ConfigDict,
    train_loader: DataLoader,
    eval_loader: DataLoader,
    task: Mapping[str, Any],
) -> None:
    """Write ``run.json``: whatever prediction needs, and the versions of the software.

    ``task`` is what :meth:`train.tasks.base.BaseTask.describe` returns.
    """
    description = {
        "model": config.model.name,
        "class_names": list(train_loader.source.class_names),
        **task,
        "best_by": best_by(config)._asdict(),
        "preprocessing": dataclasses.asdict(eval_loader.preprocessing),
        "images": {loader.source.split: len(loader) for loader in (train_loader, eval_loader)},
        "records": {
            loader.source.split: loader.source.fingerprint
            for loader in (train_loader, eval_loader)
            if loader.source.fingerprint
        },
        "versions": environment.versions(),
    }
    if parts := own_parts(config):
        description["own_parts"] = sorted(parts)
        recipe = recipe_of(config)
        description["recipe"] = recipe and recipe_store.to_json(recipe)
    text = json.dumps(description, indent=2, ensure_ascii=False)
    with writing(_run_file(path)):
        write_atomically(_run_file(path), text + "\n")


def best_by(config: ConfigDict) -> BestBy:
    """Return how a run of this configuration chooses its best checkpoint."""
    return BestBy(config.eval.metric, larger_is_better(config.eval.metric))


def add_early_end(path: str, text: str) -> None:
    """Add why the run ended before its last step to ``run.json``, until it is written again."""
    with writing(_run_file(path)):
        with open(_run_file(path), encoding="utf-8") as file:
            description = json.load(file)
        text = json.dumps(description | {"early_end": text}, indent=2, ensure_ascii=False)
        write_atomically(_run_file(path), text + "\n")


def ended_early(path: str) -> bool:
    """Return whether early stopping ended the run before its last step."""
    description = find_description(path)
    return description is not None and description.early_end is not None


def find_description(path: str) -> RunInfo | None:
    """Return the content of ``run.json``, or None if it is missing or corrupt."""
    with contextlib.suppress(RunError):
        return read_description(path)
    return None


def read_description(path: str) -> RunInfo:
    """Return the content of ``run.json``; raise RunError if it is missing or corrupt."""
    try:
        return schema.read_json(_run_file(path), RUN_INFO)
    except (OSError, schema.SchemaError) as error:
        raise RunError(
            f"{schema.read_error(_run_file(path), error)}; train.main rewrites it when the run is"
            " resumed"
        ) from error


def check_data(path: str, *loaders: DataLoader, other_data: bool = False) -> None:
    """Check that the data are those of the run in ``path``.

    Their folder may have moved, but classes, number of images and the rows of a table must be the
    same: otherwise labels would have another meaning and batches would hold other images.

    Args:
      path: the workdir.
      loaders: splits to check.
      other_data: whether the run never used these data; then their number does not matter.

    Raises:
      RunError: the data differ.
    """
    info = read_description(path)
    trained, counts = info.class_names, info.images
    for loader in loaders:
        source = loader.source
        if tuple(source.class_names) != trained:
            raise RunError(
                f"the run in {path!r} was trained on the classes {join_names(trained)}, but"
                f" {source.name} {source.split} has"
                f" {join_names(source.class_names)}{_difference(source, trained)}"
            )
        if not other_data and len(loader) != counts.get(source.split, len(loader)):
            raise RunError(
                f"the run in {path!r} had {counts[source.split]:,} images in {source.name}"
                f" {source.split}, which has {len(loader):,} now; restore them, or use another"
                " --workdir"
            )
        before, now = info.records.get(source.split), source.fingerprint
        if not other_data and before and now and before != now:
            raise RunError(
                f"the run in {path!r} had other images or labels in {source.name} {source.split}:"
                " they have changed since; restore them, or use another --workdir"
            )


def _difference(source: DataSource, trained: Sequence[str]) -> str:
    """Return how the classes differ, since the beginnings of two lists may be equal."""
    unknown = [name for name in source.class_names if name not in trained]
    missing = [name for name in trained if name not in source.class_names]
    if not unknown and not missing:
        return ", in another order"
    parts = {"unknown": unknown, "missing": missing}
    text = "; ".join(f"{label}: {join_names(names)}" for label, names in parts.items() if names)
    return f" ({text})"


def _config_file(path: str) -> str:
    return os.path.join(path, "config.json")


def _run_file(path: str) -> str:
    return os.path.join(path, "run.json")
