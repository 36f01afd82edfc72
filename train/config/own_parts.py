"""Own configuration keys, and the own parts that a configuration uses."""

import re
from collections.abc import Hashable
from typing import Any

from flax_resnet import recipes
from flax_resnet.recipes import Recipe
from flax_resnet.registry import SESSION, Registry, current_owner
from train.config.access import flatten
from train.config.keys import KEYS, Key
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError

_NAME = re.compile(r"([a-z]\w*\.)?[a-z]\w*")


class _OwnKeys(Registry):
    """The keys in ``KEYS`` that are not the project's."""

    def forget(self, owner: Hashable) -> None:
        """Remove the keys of an owner."""
        for name in [name for name in self if self.owner(name) == owner]:
            del KEYS[name]
        super().forget(owner)


_OWN_KEYS = _OwnKeys("key")


def declare_key(name: str, default: Any, meaning: str, **limits: Any) -> None:
    """Declare a configuration key of a recipe.

    It is then validated, listed by ``--help`` and written to ``config.json`` as the others. Call
    it at the top level of the recipe, or of a module that it imports.

    >>> declare_key("optimizer.lion_b1", 0.9, "Decay of the update.", minimum=0, below=1)

    Args:
      name: with the group, such as ``"optimizer.lion_b1"``; the group may be new.
      default: value of configurations that do not set it; a bool, int, float, text, or a tuple of
        numbers or of texts.
      meaning: one or two sentences.
      **limits: fields of :class:`train.config.keys.Key`, such as ``minimum`` and ``choices``.

    Raises:
      ValueError: the name or the default is invalid, or the key is one of the project.
    """
    from train.config.checks import check_value

    owner, existing = current_owner(), KEYS.get(name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"a configuration key must be like 'group.key_name', in lower case, not {name!r}"
        )
    if existing is not None and existing.owner is None:
        raise ValueError(f"config.{name} is a key of the project; choose another name")
    # Keys of other recipes in this process do not matter.
    others = [other for other, key in KEYS.items() if key.owner in (None, owner) and other != name]
    if any(f"{one}.".startswith(f"{two}.") for other in others for one, two in _pairs(name, other)):
        raise ValueError(f"config.{name} cannot be a key and a group of keys")
    if any(hasattr(ConfigDict, part) for part in name.split(".")):
        raise ValueError(f"config.{name} is a method of configurations; choose another name")
    if not isinstance(default, (bool, int, float, str, tuple)):
        raise ValueError(f"config.{name}: {default!r} is not a bool, number, text or tuple")
    if isinstance(default, tuple) and (not default or isinstance(default[0], str)):
        limits.setdefault("example", default or (1.0,))
    KEYS[name] = Key(default, meaning, owner=owner, **limits)
    try:
        check_value(name, default)
        _OWN_KEYS.add(name, KEYS[name], owner)
    except (UsageError, TypeError, ValueError) as error:
        del KEYS[name]
        if existing is not None:
            KEYS[name] = existing
        raise ValueError(f"the default of {error}") from None


def _pairs(one: str, other: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (one, other), (other, one)


def recipe_of(config: ConfigDict) -> Recipe | None:
    """Return the recipe that registered the own parts of a configuration; None without one.

    Its parts are registered again if others of their names were since.

    Raises:
      UsageError: the recipe did not run in this process, or does not register the parts.
    """
    if not config.recipe:
        return None
    recipe = recipes.known.get(config.recipe)
    if recipe is None:
        raise UsageError(
            f"the recipe with the checksum {config.recipe[:16]}… has not run in this process; make"
            " the configuration with load_config(RECIPE)"
        )
    if set(own_parts(config).values()) - {config.recipe, SESSION}:
        with recipes.running(recipe):
            pass
    return recipe


def own_parts(config: ConfigDict) -> dict[str, Hashable]:
    """Return the own parts that a configuration uses and its own keys, with their owners."""
    parts = {}
    for name, value in flatten(config).items():
        key = KEYS.get(name)
        if key is None:
            continue
        for part in key.chosen(value) if key.registry is not None else ():
            if (owner := key.registry.owner(part)) is not None:
                parts[f"{key.registry.kind} {part}"] = owner
        if key.owner is not None:
            parts[f"key {name}"] = key.owner
    return parts
