"""Own configuration keys of recipes."""

import dataclasses
import keyword
import re
from collections.abc import Hashable
from typing import Any

from flax_resnet.registry import SESSION, Registry, current_owner
from train.config.checks import check_value, is_a
from train.config.key import Key
from train.config.keys import KEYS
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError

_NAME = re.compile(r"([a-z][a-z0-9_]*\.)?[a-z][a-z0-9_]*")
_FIELDS = [field.name for field in dataclasses.fields(Key)]
_LIMITS = [name for name in _FIELDS if name not in ("default", "meaning", "owner")]
_NUMBERS = ("minimum", "maximum", "below")
_OF_NUMBERS = (*_NUMBERS, "ascending", "pair", "automatic")


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
      name: in lower case, with at most one group, such as ``"optimizer.lion_b1"``; the group may
        be new.
      default: value of configurations that do not set it; a bool, int, float, text, or a tuple of
        numbers or of texts.
      meaning: one or two sentences.
      **limits: fields of :class:`train.config.keys.Key`, such as ``minimum`` and ``choices``.

    Raises:
      ValueError: the name, the default or a limit is invalid, or the key is one of the project or
        already declared.
    """
    owner = current_owner()
    _check_name(name, owner)
    if not isinstance(default, (bool, int, float, str, tuple)):
        raise ValueError(f"config.{name}: {default!r} is not a bool, number, text or tuple")
    limits = {key: tuple(v) if isinstance(v, list) else v for key, v in limits.items()}
    _check_limits(name, default, limits)
    if isinstance(default, tuple) and (not default or isinstance(default[0], str)):
        limits.setdefault("example", default or (1.0,))
    existing, KEYS[name] = KEYS.get(name), Key(default, meaning, owner=owner, **limits)
    try:
        check_value(name, default)
    except UsageError as error:
        del KEYS[name]
        if existing is not None:
            KEYS[name] = existing
        raise ValueError(f"the default of {error}") from None
    _OWN_KEYS.add(name, KEYS[name], owner)


def _check_name(name: str, owner: Hashable) -> None:
    """Raise ValueError if ``owner`` cannot declare a key of this name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "a configuration key must be like 'key_name' or 'group.key_name', with at most one"
            f" group, of lower-case letters, digits and '_', not {name!r}"
        )
    existing = KEYS.get(name)
    if existing is not None and existing.owner is None:
        raise ValueError(f"config.{name} is a key of the project; choose another name")
    if existing is not None and existing.owner == owner != SESSION:
        raise ValueError(f"config.{name} is declared twice; rename or remove one")
    # Keys of other recipes in this process do not matter.
    others = [other for other, key in KEYS.items() if key.owner in (None, owner) and other != name]
    if any(f"{one}.".startswith(f"{two}.") for other in others for one, two in _pairs(name, other)):
        raise ValueError(f"config.{name} cannot be a key and a group of keys")
    for part in name.split("."):
        if hasattr(ConfigDict, part):
            raise ValueError(f"config.{name} is a method of configurations; choose another name")
        if keyword.iskeyword(part):
            raise ValueError(
                f"a recipe cannot set config.{name}, since {part!r} is a keyword of Python; choose"
                " another name"
            )


def _check_limits(name: str, default: Any, limits: dict[str, Any]) -> None:
    """Raise ValueError for a limit that does not exist, or that does not fit the default."""
    example = limits.get("example")
    values = [
        v for part in (default, example) for v in (part if isinstance(part, tuple) else [part])
    ]
    is_number = not any(isinstance(value, (bool, str)) for value in values)
    for limit, value in limits.items():
        problem = ""
        if limit not in _LIMITS:
            problem = f"there is no {limit}=…; valid are {', '.join(_LIMITS)}"
        elif limit in _NUMBERS and value is not None and not is_a(float, value):
            problem = f"{limit} must be a number, not {value!r}"
        elif limit in ("choices", "example") and not isinstance(value, tuple):
            problem = f"{limit} must be a tuple, not {value!r}"
        elif limit == "separator" and not isinstance(default, str):
            problem = f"{limit}={value!r} needs a text, and the default is {default!r}"
        elif limit in _OF_NUMBERS and not is_number and not (value is None or value is False):
            problem = f"{limit}={value!r} needs numbers, and the default is {default!r}"
        if problem:
            raise ValueError(f"config.{name}: {problem}")


def _pairs(one: str, other: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (one, other), (other, one)
