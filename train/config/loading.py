"""Configurations: recipes, overrides, checks, and JSON. ``keys.py`` explains every key.

A recipe is a Python file with ``get_config()`` that starts from :func:`default_config`,
changes what differs and returns it; see ``configs/``.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import os
import re
import runpy
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import ml_collections

from train.config.keys import KEYS, Key
from train.runtime.errors import UsageError
from train.runtime.files import ROOT


def default_config() -> ml_collections.ConfigDict:
    """A new configuration with every key at its default."""
    nested: dict[str, Any] = {}
    for path, key in KEYS.items():
        *groups, leaf = path.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = key.default
    # What a recipe sets is checked once it is complete, by check_config: its messages
    # tell the meaning of a key, which ConfigDict's own checks can't.
    return ml_collections.ConfigDict(nested, type_safe=False)


def load_config(path: str, overrides: Sequence[tuple[str, str]] = ()) -> ml_collections.ConfigDict:
    """Runs the recipe at ``path``, applies ``(key, text)`` overrides, and checks the result.

    Raises UsageError, in one line, for anything that is wrong with any of the three.
    """
    config = _run_recipe(path)
    chosen = {name for name, _ in overrides}
    for name, text in overrides:
        set_key(config, name, parse(name, text))
    if "num_epochs" in chosen and "num_steps" not in chosen:
        set_key(config, "num_steps", 0)  # the recipe's length, which would prevail
    check_config(config)
    if config.smoke:
        from train.config.smoke import shrink  # imports JAX, which takes a second

        shrink(config, chosen)
        check_config(config)
    return config


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises UsageError for an unknown or missing key, a wrong type or a value out of range."""
    values = flatten(config)
    for name in values:
        if name not in KEYS:
            raise UsageError(unknown(name))
    for name, key in KEYS.items():
        if name not in values:
            raise UsageError(f"config.{name} is missing; start from train.config.default_config()")
        _check_value(name, key, values[name])


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The configuration as ``{"group.key": value}``, tuples for sequences."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, group: ml_collections.ConfigDict) -> None:
        for name, value in group.items():
            if isinstance(value, ml_collections.ConfigDict):
                visit(f"{prefix}{name}.", value)
            else:
                flat[prefix + name] = tuple(value) if isinstance(value, list) else value

    visit("", config)
    return flat


def to_json(config: ml_collections.ConfigDict) -> str:
    """The configuration as text that :func:`from_json` reads back."""
    return json.dumps(flatten(config), indent=2) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """Reads :func:`to_json`'s text. Keys that it lacks get their defaults.

    Raises ValueError where the text is not a configuration.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("not a configuration")
    config = default_config()
    for name, value in values.items():
        if name not in KEYS:
            raise ValueError(unknown(name))
        set_key(config, name, tuple(value) if isinstance(value, list) else value)
    return config


def differences(
    one: ml_collections.ConfigDict, other: ml_collections.ConfigDict
) -> list[tuple[str, Any, Any]]:
    """Keys that change what is learned and differ, with both values."""
    first, second = flatten(one), flatten(other)
    return [
        (name, first[name], second[name])
        for name, key in KEYS.items()
        if not key.neutral and first[name] != second[name]
    ]


def describe() -> str:
    """All keys with defaults and meanings, a line each."""
    defaults = {name: f"{name}={_abbreviated(key.default)}" for name, key in KEYS.items()}
    width = max(map(len, defaults.values()))
    return "\n".join(
        f"  --config.{defaults[name]:{width}}  {key.meaning}"
        + (f" One of {', '.join(map(repr, key.choices))}." if key.choices else "")
        for name, key in KEYS.items()
    )


def _abbreviated(value: Any) -> str:
    """A default for people: a third is 0.3333."""
    if isinstance(value, tuple):
        return f"({', '.join(_abbreviated(v) for v in value)})"
    return f"{value:.4g}" if isinstance(value, float) and value > 1e-4 else repr(value)


def parse(name: str, text: str) -> Any:
    """The value of key ``name`` that ``text`` spells. Raises UsageError where it spells none."""
    if name not in KEYS:
        raise UsageError(unknown(name))
    default = KEYS[name].default
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    if isinstance(default, tuple) and isinstance(value, list):
        value = tuple(value)
    if KEYS[name].such_as and _is_a(float, value):
        value = (value,)
    _check_value(name, KEYS[name], value)
    return value


def unknown(name: str) -> str:
    """What to say of a key that does not exist."""
    close = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.5)
    # A name alone is likely meant for the group it is in: "learning_rate".
    close = [key for key in KEYS if key.split(".")[-1] == name] or close
    if close:
        hint = f"; did you mean config.{close[0]}? ({KEYS[close[0]].meaning})"
    else:
        hint = "; python -m train.main --help lists the keys"
    return f"there is no key config.{name}{hint}"


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _check_value(name: str, key: Key, value: Any) -> None:
    def wrong(wanted: str) -> UsageError:
        return UsageError(f"config.{name} must be {wanted}, not {value!r} ({key.meaning})")

    if isinstance(key.default, tuple):
        whole = key.such_as and all(_is_a(int, v) for v in key.such_as)
        kind, numbers = (int, "whole numbers") if whole else (float, "numbers")
        good = isinstance(value, tuple) and all(_is_a(kind, v) for v in value)
        if not good or not (key.such_as or len(value) == len(key.default)):
            example = ",".join(str(v) for v in key.such_as or key.default)
            count = "" if key.such_as else f"{len(key.default)} "
            raise wrong(f"{count}{numbers} such as {example}")
    elif not _is_a(type(key.default), value):
        raise wrong(_KINDS[type(key.default)])

    if key.choices and value not in key.choices:
        raise wrong(" or ".join(repr(choice) for choice in key.choices))
    if key.automatic and -1 < value < 0:
        raise wrong("-1, 0 or more")
    for number in value if isinstance(value, tuple) else (value,):
        if key.minimum is not None and number < key.minimum:
            raise wrong(f"at least {key.minimum:g}")
        if key.below is not None and number >= key.below:
            raise wrong(f"below {key.below:g}")
        if key.most is not None and number > key.most:
            raise wrong(f"at most {key.most:g}")
    if key.rising and list(value) != sorted(value):
        raise wrong("in rising order")


def _is_a(kind: type, value: Any) -> bool:
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def set_key(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Sets the key ``name``, such as ``"model.width"``, unchecked."""
    *groups, leaf = name.split(".")
    for group in groups:
        config = config[group]
    config[leaf] = value


def _run_recipe(path: str) -> ml_collections.ConfigDict:
    if not os.path.isfile(path):
        raise UsageError(f"there is no config file {path!r}{_neighbours(path)}")
    # Wherever the recipe is, and whatever else is called configs: for configs.bases.
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        recipe = runpy.run_path(path)
        if "get_config" not in recipe:
            raise UsageError(f"{path} has no function get_config()")
        config = recipe["get_config"]()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(_where(path, error)) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(
            f"{path}: get_config() must return an ml_collections ConfigDict,"
            f" not {type(config).__name__}"
        )
    return config


def _neighbours(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f", and no folder {folder!r} either"
    others = ("__init__.py", "bases.py")
    names = sorted(n for n in os.listdir(folder) if n.endswith(".py") and n not in others)
    close = difflib.get_close_matches(os.path.basename(path), names, n=3) or names[:8]
    more = f" and {len(names) - len(close)} more" if len(names) > len(close) else ""
    return f"; {folder} has {', '.join(close)}{more}" if close else f"; {folder} has no .py file"


def _where(path: str, error: BaseException) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    line = f", line {lines[-1]}" if lines else ""
    text = " ".join(str(error).split())
    name = re.match(r"\W*(\w+)\W", text)
    if isinstance(error, AttributeError) and name and "Did you mean" in text:
        return f"{path}{line}: {unknown(name[1])}"  # ConfigDict's own word for it
    return f"{path}{line}: {type(error).__name__}: {text}"
