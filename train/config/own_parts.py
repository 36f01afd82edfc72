"""Own configuration keys, and the own parts that a configuration uses."""

import re
from collections.abc import Hashable
from typing import Any

from flax_resnet.recipes import Recipe
from flax_resnet.registry import current_owner
from train.config.access import flatten
from train.config.keys import KEYS, Key
from train.config.registries import NAMED_BY
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names

_recipes: dict[Hashable, Recipe] = {}
_NAME = re.compile(r"([a-z]\w*\.)?[a-z]\w*")


def declare_key(name: str, default: Any, meaning: str, **limits: Any) -> None:
    """Declare a configuration key of a recipe.

    It is then validated, listed by ``--help`` and written to ``config.json`` as the others. Call
    it at the top level of the recipe, or of a module that it imports.

    >>> declare_key("optimizer.lion_b1", 0.9, "Decay of the update.", minimum=0, below=1)

    Args:
      name: with the group, such as ``"optimizer.lion_b1"``; the group may be new.
      default: value of configurations that do not set it; a bool, int, float, text, or a tuple of
        numbers.
      meaning: one or two sentences.
      **limits: fields of :class:`train.config.keys.Key`, such as ``minimum`` and ``choices``.

    Raises:
      ValueError: the name or the default is invalid, or the key is one of the project.
    """
    from train.config.checks import check_value

    owner, existing = current_owner(), KEYS.get(name)
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a configuration key must be like 'group.key_name', in lower case, not {name!r}"
        )
    if existing is not None and existing.owner is None:
        raise ValueError(f"config.{name} is a key of the project; choose another name")
    if name in _groups() or name.rpartition(".")[0] in KEYS:
        raise ValueError(f"config.{name} cannot be a key and a group of keys")
    if not isinstance(default, (bool, int, float, str, tuple)):
        raise ValueError(f"config.{name}: {default!r} is not a bool, number, text or tuple")
    KEYS[name] = Key(default, meaning, owner=owner, **limits)
    try:
        check_value(name, default)
    except UsageError:
        del KEYS[name]
        raise


def remember(recipe: Recipe) -> None:
    """Keep a recipe that ran, so that runs with its parts can store it."""
    _recipes[recipe.digest] = recipe


def recipe_of(config: ConfigDict) -> Recipe | None:
    """Return the recipe of the own parts that a configuration uses.

    None if it uses none, or those of a Python session.

    Raises:
      UsageError: they are of several recipes.
    """
    parts = own_parts(config)
    owners = set(parts.values())
    if len(owners) > 1:
        raise UsageError(
            f"the configuration uses parts of {len(owners)} recipes: {join_names(sorted(parts))};"
            " register them in one, or in a module that it imports"
        )
    return _recipes.get(owners.pop()) if owners else None


def own_parts(config: ConfigDict) -> dict[str, Hashable]:
    """Return the own parts that a configuration uses and its own keys, with their owners."""
    values, parts = flatten(config), {}
    for key, (registry, separator) in NAMED_BY.items():
        value = values.get(key) or ""
        if isinstance(value, tuple):
            names = list(value)
        else:
            names = value.split(separator) if separator else [value]
        for name in names[:1] if separator == ":" else names:
            if (owner := registry.owner(name)) is not None:
                parts[f"{registry.kind} {name}"] = owner
    for name in values:
        if name in KEYS and KEYS[name].owner is not None:
            parts[f"key {name}"] = KEYS[name].owner
    return parts


def _groups() -> set[str]:
    return {key.rpartition(".")[0] for key in KEYS} - {""}
