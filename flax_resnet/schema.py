"""Schemas of JSON files, which bound their types, sizes and numbers.

A schema is a function ``(value, field) -> value`` that raises SchemaError, which names the field;
the functions here build schemas from others::

    point = record(name=text(), sides=sequence(integer(1, 9)), color=optional(text()))
    read_json("point.json", point)
"""

import json
import os
import reprlib
from collections.abc import Callable
from typing import Any

from flax_resnet.files import read_file
from flax_resnet.text import error_reason

Schema = Callable[[Any, str], Any]

MAX_BYTES = 2**26  # of a file
_MAX_ITEMS = 4_000_000  # of a file; more could take gigabytes of memory
MAX_INTEGER = 2**53  # what JSON can represent everywhere
_MISSING = object()


class SchemaError(ValueError):
    """Content that differs from its schema; the message names the field."""


def read_json(path: str | os.PathLike[str], schema: Schema, max_bytes: int = MAX_BYTES) -> Any:
    """Return the content of a JSON file, checked by ``schema``.

    Raises:
      OSError: the file cannot be read.
      SchemaError: its content is invalid.
    """
    return parse_json(read_file(path, max_bytes), schema)


def parse_json(content: bytes, schema: Schema) -> Any:
    """Return the value of JSON text, checked by ``schema``; raise SchemaError if it is invalid."""
    # A shorter text cannot have more; a run may have a hundred thousand lines.
    is_long = len(content) > _MAX_ITEMS
    if is_long and sum(map(content.count, (b"[", b"{", b",", b":"))) > _MAX_ITEMS:
        raise SchemaError("it has too many values")
    try:
        value = _DECODER.decode(content.decode("utf-8"))
    except RecursionError:
        raise SchemaError("it is nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"it is not valid JSON: {error_reason(error)}") from error
    return schema(value, "")


def read_error(path: str | os.PathLike[str], error: Exception) -> str:
    """Return the message for an error of :func:`read_json`."""
    return f"cannot read {path}: {getattr(error, 'strerror', None) or error}"


def integer(low: int = 0, high: int = MAX_INTEGER) -> Schema:
    """Accept integers in a range."""

    def check(value: Any, field: str) -> int:
        if not _is(int, value) or not low <= value <= high:
            raise _wrong(field, f"an integer from {low:,} to {high:,}", value)
        return value

    return check


def number(low: float = -1e39, high: float = 1e39) -> Schema:
    """Accept finite numbers in a range; by default any float32 is in it."""

    def check(value: Any, field: str) -> float:
        if not _is((int, float), value) or not low <= value <= high:
            raise _wrong(field, f"a number from {low:g} to {high:g}", value)
        return value

    return check


def boolean(value: Any, field: str) -> bool:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise _wrong(field, "true or false", value)
    return value


def text(max_length: int = 1000, choices: tuple[str, ...] = (), any_path: bool = False) -> Schema:
    """Accept text that can be written as UTF-8.

    Args:
      max_length: maximum number of characters.
      choices: the valid values, if not all are.
      any_path: whether to accept the name of any file: its bytes that are not UTF-8 are the
        surrogates of ``os.fsdecode``.
    """

    def check(value: Any, field: str) -> str:
        if not isinstance(value, str) or len(value) > max_length:
            raise _wrong(field, f"text of at most {max_length:,} characters", value)
        try:
            value.encode("utf-8", "surrogateescape" if any_path else "strict")
        except UnicodeEncodeError:
            raise _wrong(field, "valid Unicode", value) from None
        if "\0" in value:
            raise _wrong(field, "text without null characters", value)
        if choices and value not in choices:
            raise _wrong(field, " or ".join(map(repr, choices)), value)
        return value

    return check


def optional(schema: Schema) -> Schema:
    """Accept null and a missing field as None, else as ``schema``."""

    def check(value: Any, field: str) -> Any:
        return None if value is None or value is _MISSING else schema(value, field)

    return check


def sequence(item: Schema, low: int = 0, high: int = 100_000) -> Schema:
    """Accept lists with a number of items in a range, and return tuples."""

    def check(value: Any, field: str) -> tuple:
        if not isinstance(value, list) or not low <= len(value) <= high:
            count = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            raise _wrong(field, f"a list of {count} values", value)
        return tuple(item(one, f"{field}[{index}]") for index, one in enumerate(value))

    return check


def mapping(item: Schema, high: int = 1000) -> Schema:
    """Accept objects with at most ``high`` fields of any name, all with the same schema."""
    name = text(4096, any_path=True)

    def check(value: Any, field: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > high:
            raise _wrong(field, f"an object of at most {high:,} fields", value)
        where = f"a name in {field or 'the file'}"
        return {name(key, where): item(one, _join(field, key)) for key, one in value.items()}

    return check


def record(make: Callable[..., Any] = dict, /, **fields: Schema) -> Schema:
    """Accept objects with certain fields, and return ``make(**fields)``; others are ignored.

    A ValueError that ``make`` raises becomes a SchemaError.
    """

    def check(value: Any, field: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(field, "an object", value)
        values = {
            name: schema(value.get(name, _MISSING), _join(field, name))
            for name, schema in fields.items()
        }
        try:
            return make(**values)
        except ValueError as error:
            raise SchemaError(f"{field or 'it'}: {error}") from None

    return check


def _is(kind: Any, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _join(field: str, name: str) -> str:
    return f"{field}.{name}"[:200] if field else name[:200]


def _wrong(field: str, expected: str, value: Any) -> SchemaError:
    given = "it is missing" if value is _MISSING else f"not {reprlib.repr(value)}"
    return SchemaError(f"{field or 'the file'} must be {expected}, {given}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object has a field twice")
    return content


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
