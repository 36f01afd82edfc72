"""Validation of keys and values, with the right key for a wrong one."""

import difflib
import os
import reprlib
import sys
from typing import Any

from train.config.key import Key
from train.config.keys import KEYS
from train.config.other_names import ANSWERS, OTHER_NAMES
from train.runtime.errors import UsageError

MAX_LENGTH = 1000  # of a tuple
MAX_ARGUMENT = 2**17  # Linux's limit in bytes

GROUPS = tuple(dict.fromkeys(key.rpartition(".")[0] for key in KEYS if "." in key))


def check_value(name: str, value: Any) -> None:
    """Raise UsageError if ``value`` is not valid for the key ``name``."""
    key = KEYS[name]

    def error(expected: str) -> UsageError:
        return _wrong(name, expected, value)

    if key.pair and isinstance(value, tuple):
        kind = type(key.default)
        if len(value) != 2 or not all(is_a(kind, v) for v in value):
            raise error(f"{_TYPE_NAMES[kind]}, or two such as {key.default},{key.default}")
    elif isinstance(key.default, tuple):
        kind, numbers = _elements(key)
        valid = isinstance(value, tuple) and all(is_a(kind, v) for v in value)
        if not valid or not (key.example or len(value) == len(key.default)):
            example = ",".join(str(v) for v in key.example or key.default)
            count = "" if key.example else f"{len(key.default)} "
            raise error(f"{count}{numbers} such as {example}")
        if len(value) > MAX_LENGTH:
            raise error(f"at most {MAX_LENGTH} {numbers}")
    elif not is_a(type(key.default), value):
        raise error(_TYPE_NAMES[type(key.default)])
    if isinstance(value, str) and not _is_argument(value):
        raise error("text that a command line can hold")

    if key.valid and not all(map(key.accepts, key.chosen(value))):
        choices = " or ".join(repr(choice) for choice in key.valid)
        raise _wrong(name, choices, value, _unknown_part(key, value))
    if key.automatic and -1 < value < 0:
        raise error("-1, 0 or more")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and abs(number) >= 2**53:  # inexact as a float
            raise error("below 2**53")
        if key.minimum is not None and number < key.minimum:
            raise error(f"at least {key.minimum:g}")
        if key.below is not None and number >= key.below:
            raise error(f"below {key.below:g}")
        if key.maximum is not None and number > key.maximum:
            raise error(f"at most {key.maximum:g}")
    if key.ascending and list(value) != sorted(value):
        raise error("in ascending order")


def _wrong(name: str, expected: str, value: Any, hint: str = "") -> UsageError:
    text = f"config.{name} must be {expected}, not {_shown(value)}{hint}"
    return UsageError(f"{text} ({KEYS[name].meaning})")


def _unknown_part(key: Key, value: Any) -> str:
    """Return which of the names in a value is unknown, with the one probably meant."""
    names = key.chosen(value)
    wrong = next(name for name in names if not key.accepts(name))
    if wrong == "":
        return ": one name is empty"
    close = difflib.get_close_matches(str(wrong), map(str, key.valid), n=1)
    hint = f"did you mean {close[0]!r}?" if close else ""
    if len(names) == 1:
        return f"; {hint}" * bool(hint)
    return f": {wrong!r} is unknown" + f"; {hint}" * bool(hint)


def check_list(name: str, value: Any) -> None:
    """Raise UsageError if a list of parts has an empty or repeated name.

    Augmentations, which are applied in order, may be repeated.
    """
    key = KEYS[name]
    names = key.chosen(value) if key.registry is not None else ()
    if len(names) > 1 and "" in names:
        raise _wrong(name, f"names separated by {key.separator!r}", value, ": one name is empty")
    repeated = [part for part in names if names.count(part) > 1]
    if repeated and isinstance(value, tuple):
        raise _wrong(name, "different names", value, f": {repeated[0]!r} is repeated; remove one")


def _elements(key: Key) -> tuple[type, str]:
    """Return the type of the elements of a tuple, and what they are called."""
    for kind, name in ((int, "integers"), (str, "names")):
        if key.example and is_a(kind, key.example[0]):
            return kind, name
    return float, "numbers"


def _shown(value: Any) -> str:
    text = reprlib.repr(value)  # bounds depth and length
    return repr(value) if isinstance(value, str) and len(value) < 200 else text


_TYPE_NAMES = {bool: "True or False", int: "an integer", float: "a number", str: "text"}


def is_a(kind: type, value: Any) -> bool:
    """Return whether ``value`` is of ``kind``: an int is a float, a bool is neither."""
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max  # math.isfinite() fails for 10**400
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _is_argument(value: str) -> bool:
    """Return whether the system can pass the text on, for example as the name of a file."""
    try:
        return len(os.fsencode(value)) < MAX_ARGUMENT and "\0" not in value
    except UnicodeEncodeError:
        return False


def unknown_key(name: str) -> str:
    """Return the error message for a key that does not exist, with the key probably meant."""
    prefix = f"there is no key config.{name}; "
    name = name.lower().replace("-", "_")
    group, _, leaf = name.rpartition(".")
    for other in (name.replace(".", "_"), leaf):
        if other in ANSWERS:
            return prefix + ANSWERS[other]
    groups = difflib.get_close_matches(group or leaf, GROUPS, n=1, cutoff=0.7)
    in_group = [key for key in KEYS if groups and key.startswith(f"{groups[0]}.")]
    candidates = (
        [OTHER_NAMES.get(name)],
        difflib.get_close_matches(name, KEYS, n=1, cutoff=0.85),
        # The right leaf in the wrong group or in none, such as "learning_rate".
        [key for key in KEYS if key.rpartition(".")[2] == leaf],
        [OTHER_NAMES.get(name.replace(".", "_")), OTHER_NAMES.get(leaf)],
        [key for other, key in OTHER_NAMES.items() if other.rpartition(".")[2] == leaf],
        difflib.get_close_matches(name, in_group, n=1, cutoff=0.5) if group else in_group,
        # A low cutoff only finds a key that was not meant.
        difflib.get_close_matches(name, KEYS, n=1, cutoff=0.7),
        [key for key in KEYS if difflib.get_close_matches(leaf, [key.rpartition(".")[2]], 1, 0.75)],
    )
    key = next((key for keys in candidates for key in keys if key), None)
    if key is None:
        return f"{prefix}--help lists all keys"
    return f"{prefix}did you mean config.{key}? ({KEYS[key].meaning})"
