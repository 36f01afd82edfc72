"""A run's folder, which describes itself: what it holds and whether it may be continued.

``config.json`` is the configuration, ``run.json`` what predicting needs beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections

from flax_resnet.files import write_atomically
from flax_resnet.weights.checkpoints import FOLDER, steps_in
from train.config import loading
from train.data.loader import DataLoader
from train.data.source import DataSource
from train.runtime import distributed
from train.runtime.errors import RunError, UsageError
from train.runtime.files import Locked, append_line, check_writable, locked, writing
from train.runtime.formatting import one_line
from train.workdir import environment

SESSIONS = "sessions.jsonl"
_SESSION_HAS = {"time", "step", "versions", "devices", "device_kind", "platform", "processes"}
_SESSION_HAS |= {"xla_flags"}
_SEEN_SECONDS = 30  # that network file systems may take to show a new file


def check(path: str, config: ml_collections.ConfigDict) -> None:
    """Checks, and changes nothing, that ``config`` may train in the folder.

    Raises UsageError, with the keys that differ, where the folder's run learns otherwise
    and has something to lose, and RunError where the folder cannot be written.
    """
    check_writable(path, f"the workdir {path!r}")
    if has_checkpoints(path):
        differ = loading.differences(read_config(path), config)
        if differ:
            keys = "; ".join(f"{key} was {old!r}, is now {new!r}" for key, old, new in differ)
            raise UsageError(
                f"{path!r} holds a run with another configuration: {keys}. Give the same"
                " configuration to continue it, or another --workdir"
            )


def create(path: str, config: ml_collections.ConfigDict) -> None:
    """Makes the folder and writes the configuration there; RunError where that fails."""
    with writing(f"the workdir {path!r}"):
        os.makedirs(path, exist_ok=True)
    with writing(_config_file(path)):
        write_atomically(_config_file(path), loading.to_json(config))


@contextlib.contextmanager
def exclusive_lock(path: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Holds the workdir for one trainer. Raises RunError where another one has it."""
    with contextlib.ExitStack() as stack:
        try:
            with writing(f"the workdir {path!r}"):
                os.makedirs(path, exist_ok=True)
            place = os.path.join(path, "trainer.lock")
            with writing(place):
                if not stack.enter_context(locked(place)):
                    warn(f"{path!r} has no locks: do not start a second trainer there")
        except Locked as error:
            raise RunError(
                f"{error} trains in {path!r}; wait for its end, or take another --workdir"
            ) from None
        yield


def saved_steps(path: str) -> list[int]:
    """The steps that have a checkpoint in the workdir, in order."""
    return steps_in(os.path.join(path, FOLDER))


def has_checkpoints(path: str) -> bool:
    """Whether anything was saved in the workdir."""
    return bool(saved_steps(path))


def check_shared(path: str) -> None:
    """Raises RunError in all processes where one sees another folder at ``path``."""
    if distributed.process_count() == 1:
        return
    token = os.path.join(path, f".shared.{distributed.allgather(secrets.token_hex(8))[0]}")
    with distributed.raise_if_any_failed():
        if distributed.is_primary():
            with writing(token):
                open(token, "w").close()
    try:
        with distributed.raise_if_any_failed():
            deadline = time.monotonic() + _SEEN_SECONDS
            while not os.path.exists(token):
                if time.monotonic() > deadline:
                    raise RunError(
                        f"the workdir {path!r} is not the one that process 0 sees; it has to be"
                        " in a folder that all processes share"
                    )
                time.sleep(0.2)
    finally:
        if distributed.is_primary():
            with contextlib.suppress(OSError):
                os.unlink(token)


def sessions(path: str) -> list[dict[str, Any]]:
    """Each start of the run: its ``step``, ``num_steps`` of all, the batch norm's ``share``, the
    ``command`` where it was one, and the environment."""
    found = []
    with contextlib.suppress(OSError):
        with open(os.path.join(path, SESSIONS), encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # of a line cut short
                    found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict) and one.keys() >= _SESSION_HAS]


def add_session(path: str, step: int, num_steps: int, share: int) -> None:
    """Notes a start at ``step`` of ``num_steps`` with what it runs on, see :func:`sessions`."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    session = {"time": now, "step": step, "num_steps": num_steps, "share": share}
    session |= {"command": environment.command()} | environment.describe()
    append_line(os.path.join(path, SESSIONS), json.dumps(session))


def read_config(path: str) -> ml_collections.ConfigDict:
    """The configuration of the run in ``path``. Raises RunError where there is none."""
    place = _config_file(path)
    advice = "put it back as it was, or train in another --workdir"
    try:
        with open(place, encoding="utf-8") as file:
            return loading.from_json(file.read())
    except FileNotFoundError:
        if has_checkpoints(path):  # of what, nothing else says
            raise RunError(f"{path!r} has checkpoints, but no config.json: {advice}") from None
        raise RunError(f"{path!r} holds no run: there is no {place}") from None
    except OSError as error:
        raise RunError(f"cannot read {place}: {error.strerror}; {advice}") from error
    except ValueError as error:
        raise RunError(f"cannot read {place}: {error}; {advice}") from error


def describe(
    path: str, config: ml_collections.ConfigDict, train_loader: DataLoader, eval_loader: DataLoader
) -> None:
    """Writes ``run.json``: what a prediction needs to know, and the versions of what runs."""
    description = {
        "model": config.model.name,
        "class_names": list(train_loader.source.class_names),
        "preprocessing": dataclasses.asdict(eval_loader.preprocessing),
        "images": {split.source.split: len(split) for split in (train_loader, eval_loader)},
    }
    description["versions"] = environment.versions()
    text = json.dumps(description, indent=2, ensure_ascii=False)
    with writing(_run_file(path)):
        write_atomically(_run_file(path), text + "\n")


def described(path: str) -> dict[str, Any] | None:
    """What :func:`describe` wrote; None where that is gone or damaged."""
    try:
        with open(_run_file(path), encoding="utf-8") as file:
            description = json.load(file)
        names, counts = description["class_names"], description["images"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return description if isinstance(names, list) and isinstance(counts, dict) else None


def read_description(path: str) -> dict[str, Any]:
    """As :func:`described`. Raises RunError where that gives None."""
    description = described(path)
    if description is None:
        raise RunError(
            f"cannot read {_run_file(path)}, which is missing or damaged: train.main writes it"
            " anew where the run is continued"
        )
    return description


def check_data(path: str, *splits: DataLoader, others: bool = False) -> None:
    """Raises RunError where data are others than those of the run in ``path``.

    Their folder may be another, but neither their classes nor their number: labels would
    mean something else, and the batches hold other images. Of ``others``, which the run has
    never seen, the number is free.
    """
    description = read_description(path)
    learned, counts = description["class_names"], description["images"]
    for split in splits:
        source = split.source
        if list(source.class_names) != learned:
            raise RunError(
                f"the run in {path!r} learned the classes {some(learned)}, but {source.name}"
                f" {source.split} has {some(source.class_names)}{_unlike(source, learned)}"
            )
        if not others and len(split) != counts.get(source.split, len(split)):
            raise RunError(
                f"the run in {path!r} had {counts[source.split]:,} images in {source.name}"
                f" {source.split}, which has {len(split):,} now; put them back, or take another"
                " --workdir"
            )


def _unlike(source: DataSource, learned: Sequence[str]) -> str:
    """What tells two lists of classes apart, where their beginnings do not."""
    unknown = [name for name in source.class_names if name not in learned]
    lacking = [name for name in learned if name not in source.class_names]
    if not unknown and not lacking:
        return ", in another order"
    told = [
        f"{what} {some(names)}"
        for what, names in (("unknown:", unknown), ("missing:", lacking))
        if names
    ]
    return f" ({'; '.join(told)})"


def some(names: Sequence[str], most: int = 8) -> str:
    """At most so many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(one_line, names[:most])) + more


def _config_file(path: str) -> str:
    return os.path.join(path, "config.json")


def _run_file(path: str) -> str:
    return os.path.join(path, "run.json")
