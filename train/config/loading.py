"""Configurations: defaults, recipes, overrides and JSON.

A recipe is a Python file with a function ``get_config()`` that starts from
:func:`default_config`, sets what differs and returns the result; see ``configs/``. It may register
own parts and declare own keys; see docs/extend.md.
"""

import ast
import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Hashable, Sequence
from typing import Any

from flax_resnet import schema
from flax_resnet.recipes import read_recipe, running
from flax_resnet.registry import parts_of, running_owner
from flax_resnet.text import error_reason
from train.config.access import flatten, set_key
from train.config.checks import check_list, check_value, is_a, unknown_key
from train.config.followed_keys import FOLLOWED, mark_unset
from train.config.keys import KEYS
from train.config.task_defaults import default_value, set_label_separator
from train.data.channels import mean_and_std
from train.data.splits import parse_fold
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.files import ROOT

RECIPES = ROOT / "configs"  # installed beside the packages


class InvalidKeyError(ValueError):
    """The key :attr:`key` of a file does not exist, or has an invalid value."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def default_config() -> ConfigDict:
    """Return a new configuration with every key at its default.

    In a recipe it has the keys that the recipe has declared so far, too.
    """
    nested: dict[str, Any] = {}
    for path, key in KEYS.items():
        if key.owner not in (None, running_owner()):
            continue
        group, _, leaf = path.rpartition(".")
        follows = group == "dataset" and leaf in FOLLOWED
        value = mark_unset(key.default) if follows else key.default
        (nested.setdefault(group, {}) if group else nested)[leaf] = value
    # Recipes are validated as a whole by check_config, whose messages explain the key;
    # ConfigDict's own type checks cannot.
    return ConfigDict(nested, type_safe=False)


def load_config(recipe: str, overrides: Sequence[tuple[str, str]] = ()) -> ConfigDict:
    """Run a recipe, apply ``(key, text)`` overrides and validate the result.

    Args:
      recipe: the name of one of the project's recipes, such as ``"resnet20_digits"``, or a path.
      overrides: as from the command line.

    Raises:
      UsageError: the recipe, an override or the resulting configuration is invalid.
    """
    config, digest = _run_recipe(recipe)
    config.recipe = digest if parts_of(digest) else ""
    given = {name for name, _ in overrides}
    for name, text in overrides:
        set_key(config, name, parse(name, text))
    if "num_epochs" in given and "num_steps" not in given:
        set_key(config, "num_steps", 0)  # or the recipe's num_steps would take precedence
    check_config(config)
    if config.smoke:
        from train.config.smoke import shrink  # imports JAX, which takes a second

        shrink(config, given)
        check_config(config)
    return config


def owner_of(recipe: str) -> Hashable:
    """Run a recipe and return the owner of its own keys, for :func:`describe`."""
    return _run_recipe(recipe)[1]


def check_config(config: ConfigDict) -> None:
    """Validate all keys and values; missing own keys and the separator of labels get defaults.

    ``eval.metric`` may stay empty until the run is built, since its default depends on the task,
    which Python code may set until then.

    Raises:
      UsageError: a key is unknown or missing, or a value has the wrong type or range.
    """
    values = flatten(config)
    for name in values:
        if name not in KEYS:
            raise UsageError(unknown_key(name))
    for name, key in KEYS.items():
        if name not in values:
            if key.owner is not None:
                if key.owner == config.get("recipe"):
                    set_key(config, name, key.default)
                continue
            raise UsageError(
                f"config.{name} is missing; start from train.config.loading.default_config()"
            )
        check_value(name, values[name])
        check_list(name, values[name])
    set_label_separator(config)
    mean_and_std(config.dataset)  # as many as there are channels
    if config.dataset.fold:
        parse_fold(config.dataset.fold)


def to_json(config: ConfigDict) -> str:
    """Return the configuration as text for :func:`read_json_file`."""
    return json.dumps(flatten(config), indent=2) + "\n"


def read_json_file(path: str) -> ConfigDict:
    """Return the configuration in a file with the text of :func:`to_json`.

    The values are validated as those of a command line. Missing keys get their defaults.

    Raises:
      OSError: the file cannot be read.
      ValueError: it does not contain a valid configuration.
    """
    config = default_config()
    for name, value in schema.read_json(path, schema.mapping(lambda value, _: value)).items():
        value = tuple(value) if isinstance(value, list) else value
        try:
            if name not in KEYS:
                raise UsageError(unknown_key(name))
            check_value(name, value)
        except UsageError as error:
            raise InvalidKeyError(name, str(error)) from None
        set_key(config, name, value)
    # Only files of older versions lack it.
    config.eval.metric = config.eval.metric or default_value("eval.metric", config.task)
    return config


def differences(one: ConfigDict, other: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Return ``(key, value, other value)`` of the keys that differ and affect what is learned."""
    first, second = flatten(one), flatten(other)
    pairs = {
        name: (first.get(name, key.default), second.get(name, key.default))
        for name, key in KEYS.items()
        if not key.neutral
    }
    return [(name, old, new) for name, (old, new) in pairs.items() if old != new]


def describe(owner: Hashable = None) -> str:
    """Return all keys with their defaults and meanings, one per line, for ``--help``.

    Args:
      owner: the recipe whose own keys are listed, too.
    """
    keys = {name: key for name, key in KEYS.items() if key.owner in (None, owner)}
    defaults = {name: f"{name}={abbreviate(key.default)}" for name, key in keys.items()}
    width = max(map(len, defaults.values()))
    return "\n".join(
        f"  --config.{defaults[name]:{width}}  {key.meaning}"
        + (f" One of {', '.join(map(repr, key.valid))}." if key.valid else "")
        for name, key in keys.items()
    )


def abbreviate(value: Any) -> str:
    """Return a default value as text, with a third as 0.3333."""
    if isinstance(value, tuple):
        return f"({', '.join(abbreviate(v) for v in value)})"
    return f"{value:.4g}" if isinstance(value, float) and value > 1e-4 else repr(value)


def parse(name: str, text: str) -> Any:
    """Parse a value of the key ``name`` from the command line.

    Raises:
      UsageError: there is no such key, or the value is invalid.
    """
    if name not in KEYS:
        raise UsageError(unknown_key(name))
    default = KEYS[name].default
    example = KEYS[name].example
    if isinstance(default, str):
        value = text
    elif example and isinstance(example[0], str):
        value = _texts(text)
    elif isinstance(default, bool):
        value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    if (isinstance(default, tuple) or KEYS[name].pair) and isinstance(value, list):
        value = tuple(value)
    if example and is_a(float, value):
        value = (value,)
    check_value(name, value)
    return value


def _texts(text: str) -> tuple[str, ...]:
    """Return the texts of ``"a,b"`` or ``"('a', 'b')"``; an empty one stays, to be reported."""
    parts = [part.strip(" ()'\"") for part in text.split(",")]
    if not parts[-1]:  # nothing, or the comma of Python's ("a",)
        parts.pop()
    return tuple(parts)


def find_recipe(name: str) -> str:
    """Return the path of a recipe: of the file ``name``, or of the project's recipe of that name.

    Raises:
      UsageError: there is neither.
    """
    if os.path.isfile(name):
        return name
    stem = os.path.basename(name).removesuffix(".py")
    if name == stem and stem in _recipe_names():
        return os.path.join(RECIPES, f"{stem}.py")
    if name == stem and os.path.isfile(f"{name}.py"):
        raise UsageError(f"there is no recipe {name!r}; did you mean the file {name}.py?")
    if name == stem:
        raise UsageError(f"there is no recipe {name!r}{_similar_recipes(name)}")
    if stem in _recipe_names():
        raise UsageError(f"there is no config file {name!r}; did you mean the recipe {stem}?")
    raise UsageError(f"there is no config file {name!r}{_similar_files(name)}")


def _recipe_names() -> list[str]:
    names = {file.stem for file in RECIPES.glob("*.py")} - {"__init__", "bases"}
    return sorted(names)


def _similar_recipes(name: str) -> str:
    names = _recipe_names()
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; the recipes are {', '.join(names)}"


def _run_recipe(name: str) -> tuple[ConfigDict, Hashable]:
    path = find_recipe(name)
    # For `configs.bases`, from any folder and if another package has the same name.
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        recipe = read_recipe(path)
        with running(recipe) as module:
            if not hasattr(module, "get_config"):
                raise UsageError(f"{path} has no function get_config()")
            registered = parts_of(recipe.digest)
            config = module.get_config()
            if late := parts_of(recipe.digest) - registered:
                # Evaluation imports the recipe, but the configuration is that of the run.
                raise UsageError(
                    f"{path} does not register {', '.join(sorted(late))} when it is imported; do"
                    " that at its top level, not in get_config()"
                )
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(_recipe_error(path, error)) from error
    if not isinstance(config, ConfigDict):
        raise UsageError(
            f"{path}: get_config() must return an ml_collections ConfigDict,"
            f" not {type(config).__name__}"
        )
    return config, recipe.digest


def _similar_files(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f", and no folder {folder!r} either"
    names = sorted(n for n in os.listdir(folder) if n.endswith(".py") and n != "__init__.py")
    close = difflib.get_close_matches(os.path.basename(path), names, n=3) or names[:8]
    more = f" and {len(names) - len(close)} more" if len(names) > len(close) else ""
    return f"; {folder} has {', '.join(close)}{more}" if close else f"; {folder} has no .py file"


def _recipe_error(path: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == os.path.abspath(path)]
    line = f", line {lines[-1]}" if lines else ""
    text = error_reason(error, 1000)
    name = re.match(r"\W*(\w+)\W", text)
    if isinstance(error, AttributeError) and name and "Did you mean" in text:
        return f"{path}{line}: {unknown_key(name[1])}"  # ConfigDict's wording of a wrong key
    return f"{path}{line}: {type(error).__name__}: {text}"
