"""The description of a configuration key."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from flax_resnet.registry import Registry


@dataclass(frozen=True)
class Key:
    """One configuration key. A value must have the type of the default.

    Attributes:
      default: the value of a configuration that does not set the key.
      meaning: one or two sentences for `--help`, error messages and the reference.
      choices: the valid values; empty for no such limit, or for those of the registry only.
      registry: registry of the part that the value must name; the default is valid, too.
      pattern: other valid names; they match this regular expression.
      separator: separates the names of several parts; ":": a name from its argument.
      minimum: smallest valid number, of every element of a tuple.
      maximum: largest valid number.
      below: exclusive upper limit.
      ascending: whether the numbers of a tuple must be in ascending order.
      example: an example of a tuple of any length, of integers or texts if the example is. A
        tuple without an example has as many numbers as its default.
      pair: whether two numbers of the default's type are valid, too.
      automatic: whether -1 is also valid; values between -1 and 0 are not.
      neutral: whether the key does not affect what is learned, so that a run may be resumed with
        another value.
      owner: who declared the key; None: the project. Only the project's must be in a
        configuration.
    """

    default: Any
    meaning: str
    choices: tuple = ()
    registry: Registry | None = None
    pattern: re.Pattern[str] | None = None
    separator: str = ""
    minimum: float | None = None
    maximum: float | None = None
    below: float | None = None
    ascending: bool = False
    example: tuple = ()
    pair: bool = False
    automatic: bool = False
    neutral: bool = False
    owner: Hashable = None

    @property
    def valid(self) -> tuple:
        """The values to choose from; empty for no such limit."""
        # A registry without reserved names is empty until other modules fill it.
        if self.registry is None or not self.registry.reserved:
            return self.choices
        defaults = () if isinstance(self.default, tuple) else (self.default,)
        return tuple(dict.fromkeys((*defaults, *self.choices, *self.registry)))

    def accepts(self, name: Any) -> bool:
        """Return whether a name, as in :meth:`chosen`, is one to choose from."""
        return name in self.valid or bool(
            self.pattern and isinstance(name, str) and self.pattern.fullmatch(name)
        )

    def chosen(self, value: Any) -> list:
        """Return what a value of the key's type chooses among the valid ones."""
        if isinstance(value, tuple):
            return list(value)
        names = value.split(self.separator) if self.separator else [value]
        return names[:1] if self.separator == ":" else names
