"""Registries: the parts of one kind by name, the project's own and those of users.

A part is registered by a decorator, in the project as in a recipe:

>>> @register_block("wide")
... class WideBlock(Block): ...
"""

import contextlib
import difflib
import re
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

PACKAGES = ("flax_resnet", "train")
SESSION = "session"  # owner of what is registered outside of a recipe, for example in a notebook

_NO_PART: Any = object()
_NAME = re.compile(r"[A-Za-z][\w.-]*")  # ":", "+" and "," separate names from others
_owner: Hashable = SESSION
_registries: dict[str, "Registry"] = {}


class _Entry(NamedTuple):
    part: Any
    owner: Hashable


@contextlib.contextmanager
def owned_by(owner: Hashable) -> Iterator[None]:
    """Register parts as those of ``owner`` inside the context."""
    global _owner
    previous, _owner = _owner, owner
    try:
        yield
    finally:
        _owner = previous


def current_owner() -> Hashable:
    """Return the owner of what the caller's caller registers; None for the project itself."""
    # By module: a recipe may be the first to import a module of the project.
    package = sys._getframe(2).f_globals.get("__name__", "").partition(".")[0]
    return None if package in PACKAGES else _owner


def running_owner() -> Hashable:
    """Return the owner of the recipe that runs; ``SESSION`` if none does."""
    return _owner


class Registry(Mapping):
    """Parts of one kind by name.

    Looking up an unknown name raises a KeyError whose message lists the registered ones.

    Args:
      kind: what a part is, for messages, such as ``"optimizer"``.
      reserved: names of the project's parts, which are known before their modules are imported.
      forbidden: other names that no part may have.
    """

    def __init__(self, kind: str, reserved: Sequence[str] = (), forbidden: Sequence[str] = ()):
        self.kind = kind
        self.reserved, self.forbidden = tuple(reserved), tuple(forbidden)
        self._entries: dict[str, _Entry] = {}
        _registries[kind] = self

    def register(self, name: str, part: Any = _NO_PART) -> Any:
        """Register a part, as a decorator or with ``part`` itself, which is returned.

        A part of the same name is replaced if a recipe or a notebook cell runs again, or by that
        of another recipe; networks and runs that exist keep theirs.

        Raises:
          ValueError: the name is invalid, one of the project, or used twice in a recipe.
        """
        if not isinstance(name, str) and callable(name):  # a decorator without parentheses
            decorator = f"@register_{self.kind.split()[-1]}"
            raise ValueError(f'write {decorator}("NAME"), not {decorator}: a part needs a name')
        owner = current_owner()
        if part is _NO_PART:
            return lambda part: self.add(name, part, owner)
        return self.add(name, part, owner)

    def add(self, name: str, part: Any, owner: Hashable) -> Any:
        """Register a part of an owner; see :meth:`register`."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"the name of a registered {self.kind} must be letters, digits, '_', '-' or '.',"
                f" beginning with a letter, not {name!r}"
            )
        if part is None:
            raise ValueError(f"{self.kind} {name!r} must be a function or class, not None")
        existing = self._entries.get(name)
        taken = name in (*self.reserved, *self.forbidden) or (existing and existing.owner is None)
        if owner is not None and taken:
            raise ValueError(f"{self.kind} {name!r} is a name of the project; choose another")
        again = existing and existing.owner == owner and existing.part is not part
        if again and owner not in (None, SESSION):
            raise ValueError(f"{self.kind} {name!r} is registered twice; rename one")
        self._entries[name] = _Entry(part, owner)
        return part

    def forget(self, owner: Hashable) -> None:
        """Remove the parts of an owner."""
        own = [name for name, entry in self._entries.items() if entry.owner == owner]
        for name in own:
            del self._entries[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise KeyError(self.unknown(name))
        return self._entries[name].part

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.reserved, *self._entries)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def owner(self, name: str) -> Hashable:
        """Return the owner of a part; None for one of the project or an unknown name."""
        return self._entries[name].owner if name in self._entries else None

    def unknown(self, name: Any) -> str:
        """Return the error message for a name that is not registered."""
        close = difflib.get_close_matches(str(name), self, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"unknown {self.kind} {name!r}{hint}; valid are {', '.join(self)}"


def forget(owner: Hashable) -> None:
    """Remove all parts of an owner, before its code registers them again."""
    for registry in _registries.values():
        registry.forget(owner)


def parts_of(owner: Hashable) -> set[str]:
    """Return what an owner has registered, such as ``{"block sk"}``."""
    return {
        f"{kind} {name}"
        for kind, registry in _registries.items()
        for name in registry
        if registry.owner(name) == owner
    }


def missing_parts(parts: Iterable[str], owner: Hashable) -> list[str]:
    """Return those of ``parts``, such as ``"block sk"``, that nobody or another owner registered.

    Those of the session count as registered. Kinds without a registry in this process are not
    checked.
    """
    missing = []
    for part in parts:
        kind, _, name = part.rpartition(" ")
        registry = _registries.get(kind)
        if registry is not None and registry.owner(name) not in (owner, SESSION):
            missing.append(part)
    return missing


MODELS = Registry("model")  # flax_resnet/variants.py fills it
BLOCKS = Registry("block", ("residual", "bottleneck"))  # flax_resnet/blocks.py
NORMS = Registry("norm", ("batch", "group", "layer"))  # flax_resnet/norms.py
ACTIVATIONS = Registry(  # flax_resnet/layers.py
    "activation",
    ("relu", "relu6", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "hard_silu", "mish"),
)
