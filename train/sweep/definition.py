"""What a sweep varies, from its command line; and whether a folder holds the same sweep."""

import dataclasses
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax_resnet import schema
from flax_resnet.files import write_atomically
from train.config import loading
from train.config.access import flatten
from train.config.checks import is_a, unknown_key
from train.config.keys import KEYS
from train.config.task_defaults import set_task_defaults
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.files import writing

FILE = "sweep.json"
# Keys that decide which images evaluate a run: its results over their values are averaged, since
# the best of them would be that of the easiest images.
DIVISIONS = ("dataset.fold", "dataset.val_seed")
MAX_NAME = 150  # characters; file systems allow 255 bytes
Settings = dict[str, Any]  # the keys of one run that differ from those of the others


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers of a search, from ``low`` to ``high``, both included.

    Attributes:
      low, high: the limits; of an integer key integers.
      log: whether the logarithm is sampled uniformly.
    """

    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f"{'log:' if self.log else ''}{self.low}..{self.high}"


@dataclasses.dataclass(frozen=True)
class Definition:
    """A sweep.

    Attributes:
      recipe: name or path of the recipe.
      overrides: ``(key, text)`` of all runs.
      grid: values by key; the runs are their product.
      space: values by key that a search chooses from; without a search empty.
      seeds: every combination is trained once with each.
    """

    recipe: str
    overrides: Sequence[tuple[str, str]]
    grid: Mapping[str, tuple[Any, ...]]
    space: Mapping[str, Range | tuple[Any, ...]]
    seeds: Sequence[int]

    def combinations(self) -> Iterator[Settings]:
        """Yield the settings of the grid, without seeds."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))

    def with_seeds(self, settings: Settings) -> list[Settings]:
        """Return the settings of the runs that differ only in the seed."""
        if len(self.seeds) == 1:
            return [settings]
        return [settings | {"seed": seed} for seed in self.seeds]

    def config(self, settings: Settings) -> ConfigDict:
        """Return the configuration that the single command with these keys has."""
        given = [(key, as_text(value)) for key, value in settings.items()]
        config = loading.load_config(self.recipe, [*self.overrides, *given])
        set_task_defaults(config)
        return config

    def to_json(self) -> dict[str, Any]:
        """Return everything that affects what is learned or chosen, as text or JSON."""
        content: dict[str, Any] = {"seeds": list(self.seeds)}
        for key, values in self.grid.items():
            content[f"--grid {key}"] = list(map(as_text, values))
        for key, values in self.space.items():
            is_range = isinstance(values, Range)
            content[f"--space {key}"] = str(values) if is_range else list(map(as_text, values))
        config = flatten(self.config({}))
        if config["recipe"]:  # its code trains the runs, so all must have the same
            content["checksum of the recipe and its modules"] = config["recipe"]
        for name, value in config.items():
            chooses = name == "eval.metric"  # the best settings, and what a search maximizes
            is_neutral = KEYS[name].neutral and not chooses
            if not (is_neutral or name in self.grid or name in self.space):
                content[f"config.{name}"] = value
        return json.loads(json.dumps(content))


def define(
    recipe: str,
    overrides: Sequence[tuple[str, str]],
    grid: Sequence[str],
    space: Sequence[str],
    seeds: int,
) -> Definition:
    """Parse and validate a sweep.

    Args:
      recipe: name or path of the recipe.
      overrides: ``(key, text)`` for all runs.
      grid: texts such as ``"schedule.learning_rate=0.02,0.05"``.
      space: texts such as ``"schedule.learning_rate=log:0.01..0.5"``.
      seeds: number of seeds, from ``config.seed`` on.

    Raises:
      UsageError: anything is invalid, including the combinations of the grid.
    """
    first = loading.load_config(recipe, overrides).seed  # the recipe declares its own keys
    parsed: dict[str, Any] = {}
    for flag, texts, parse in (("--grid", grid, parse_values), ("--space", space, parse_space)):
        for text in texts:
            key, equals, values = text.partition("=")
            if not equals:
                raise UsageError(f"{flag} needs KEY=VALUES, not {text!r}")
            key = key.removeprefix("config.")
            check_key(key, {*parsed, *(name for name, _ in overrides)}, seeds)
            if flag == "--space" and key in DIVISIONS:
                raise UsageError(
                    f"a search over config.{key} would choose the easiest images to evaluate; vary"
                    " it by --grid"
                )
            parsed[key] = parse(key, values)
    number = len(grid)
    definition = Definition(
        recipe=recipe,
        overrides=overrides,
        grid=dict(list(parsed.items())[:number]),
        space=dict(list(parsed.items())[number:]),
        seeds=range(first, first + seeds),
    )
    for settings in definition.combinations():
        for run in definition.with_seeds(settings):
            definition.config(run)
    return definition


def check_key(key: str, others: set[str], seeds: int) -> None:
    """Raise UsageError unless a sweep can vary ``key`` beside the ``others``."""
    if key not in KEYS:
        raise UsageError(unknown_key(key))
    if key in others:
        raise UsageError(f"config.{key} is given twice; vary it or set it, once")
    if key == "seed" and seeds > 1:
        raise UsageError("config.seed is varied by --seeds already; remove one of them")
    if KEYS[key].neutral or key == "smoke":
        raise UsageError(f"config.{key} does not affect what is learned; set it for all runs")


def parse_values(key: str, text: str) -> tuple[Any, ...]:
    """Parse values that are separated by commas, or by semicolons.

    Commas separate unless the key takes tuples or the text has a semicolon.

    Raises:
      UsageError: a value is invalid or repeated.
    """
    semicolons = ";" in text or isinstance(KEYS[key].default, tuple)
    values = [loading.parse(key, part) for part in text.split(";" if semicolons else ",")]
    for index, value in enumerate(values):
        if value in values[:index]:
            raise UsageError(f"the values of config.{key} include {as_text(value)!r} twice")
    return tuple(values)


def parse_space(key: str, text: str) -> Range | tuple[Any, ...]:
    """Parse ``LOW..HIGH`` or ``log:LOW..HIGH`` of a number, or values to choose from.

    Raises:
      UsageError: it is invalid.
    """
    limits = text.removeprefix("log:")
    if ".." not in limits or isinstance(KEYS[key].default, str):
        return parse_values(key, text)
    low, high = (loading.parse(key, part) for part in limits.split("..", 1))
    if not (is_a(float, low) and is_a(float, high)):
        raise UsageError(f"config.{key} is no number; list its values in place of {text!r}")
    log = limits != text
    if low >= high or (log and low <= 0):
        positive = " and the first must be above 0" if log else ""
        raise UsageError(f"config.{key}: of {text!r} the second must be larger{positive}")
    return Range(low, high, log)


def as_text(value: Any) -> str:
    """Return a value as the command line has it."""
    return ",".join(map(str, value)) or "()" if isinstance(value, tuple) else str(value)


def run_name(settings: Settings) -> str:
    """Return the name of a run's folder, such as ``learning_rate=0.02,seed=1``.

    It has the last part of each key unless two are equal. Characters other than ASCII letters,
    digits and ``._+-=,`` are replaced; a checksum then keeps the name unique.
    """
    leaves = [key.rpartition(".")[2] for key in settings]
    parts = []
    for (key, value), leaf in zip(settings.items(), leaves, strict=True):
        text = as_text(value)
        text = text.replace(",", "-") if isinstance(value, tuple) else text
        parts.append(f"{leaf if leaves.count(leaf) == 1 else key}={text}")
    name = ",".join(parts)
    safe = re.sub(r"[^\w.+=,-]", "_", name, flags=re.ASCII)[:MAX_NAME]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def is_in(workdir: str, definition: Definition) -> bool:
    """Return whether the folder holds this sweep already, rather than none.

    Raises:
      UsageError: it holds another sweep, or a run.
      RunError: its ``sweep.json`` cannot be read.
    """
    path, new = os.path.join(workdir, FILE), definition.to_json()
    try:
        old = schema.read_json(path, schema.mapping(lambda value, _: value))
    except FileNotFoundError:
        if os.path.exists(os.path.join(workdir, "config.json")):
            raise UsageError(f"{workdir!r} holds a run; use another --workdir") from None
        return False
    except (OSError, schema.SchemaError) as error:
        advice = "restore the file, or use another --workdir"
        raise RunError(f"{schema.read_error(path, error)}; {advice}") from error
    changed = [
        f"{name} was {old.get(name, 'not there')}, is now {new.get(name, 'not there')}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise UsageError(
            f"{workdir!r} holds another sweep: {'; '.join(changed)}. Use the same command to"
            " continue it, or another --workdir"
        )
    return True


def write(workdir: str, definition: Definition) -> None:
    """Write ``sweep.json``; raise RunError if that fails."""
    path = os.path.join(workdir, FILE)
    with writing(path):
        write_atomically(path, json.dumps(definition.to_json(), indent=2) + "\n")
