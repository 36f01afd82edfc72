"""Choose one of the networks that a file of a training script may hold.

timm saves the weights and their moving average (EMA), DINO a student and a teacher, MoCo an
encoder of queries and one of keys. ``FILE#PART`` names the one to read; without it, the library's
own convention decides and is reported. A choice without a convention is an error.
"""

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

from flax_resnet.text import truncate
from flax_resnet.weights.tensors import WeightsError

_MAX_PARTS = 20
_ROOT = "."  # the label of a network without a key or prefix

# (second, first, reason): a part with the word ``second`` yields to one with the word ``first``,
# or to any other part if that is empty.
_CONVENTIONS = (
    ("k", "q", "MoCo's encoder of queries"),
    ("student", "teacher", "DINO's convention"),
    ("target", "online", "BYOL's convention"),
    ("net", "online", "BYOL's convention"),  # byol-pytorch names one module twice
    ("momentum", "", "the trained weights"),
    ("current", "", "Lightning's convention"),  # the average is under state_dict
    ("ema", "", "the trained weights"),
)

# The last layer of these networks is a projection for their loss, not a classifier.
_PROJECTED = {"encoder_q", "encoder_k", "base_encoder", "momentum_encoder"}
_PROJECTED_WORDS = {"online", "target"}


@dataclasses.dataclass(frozen=True)
class Part:
    """One network in a file.

    Attributes:
      group: the keys of the dictionaries around its state dict, such as ``state_dict``.
      prefix: the start of its tensors' names, such as ``encoder_q.``.
    """

    group: str = ""
    prefix: str = ""

    @property
    def label(self) -> str:
        """The name for messages, and of ``FILE#PART``."""
        return ".".join(filter(None, (self.group, self.prefix.rstrip("./")))) or _ROOT

    @property
    def keys(self) -> set[str]:
        """The keys and modules around the network: ``encoder_q``."""
        return set(re.split(r"[./]", self.label))

    @property
    def words(self) -> set[str]:
        """The words of the keys: ``encoder`` and ``q``."""
        return set(re.split(r"[./_]", self.label.lower()))

    @property
    def is_projected(self) -> bool:
        """Whether the network's last layer is a projection of self-supervised training."""
        return bool(self.keys & _PROJECTED or self.words & _PROJECTED_WORDS)


def split_part(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return the file and the part of ``FILE#PART``; the part is empty if none is named.

    An existing path is a file, even if its name has a ``#``.
    """
    text = os.fspath(path)
    file, mark, part = text.rpartition("#")
    if not mark or os.path.lexists(text) or not file:
        return Path(text), ""
    return Path(file), part


def choose_part(parts: Iterable[Part], wanted: str, source: str) -> tuple[Part, tuple[str, ...]]:
    """Return one of the networks of a file, and notes on the others.

    Args:
      parts: the networks; at least one.
      wanted: the part of ``FILE#PART``, a key or a word of one; empty without a request.
      source: the file, for messages.

    Raises:
      WeightsError: there is no such part, or no convention chooses one of several.
    """
    found = sorted(set(parts), key=lambda part: part.label)
    if len(found) > _MAX_PARTS:
        raise WeightsError(f"{source} has {len(found):,} networks; save the state dict of one")
    named = [part for part in found if part.label == wanted]
    named = named or [part for part in found if wanted in part.keys]
    named = named or [part for part in found if wanted.lower() in part.words]
    candidates = named if wanted else found
    if not candidates:
        its = f"; it has {_listed(found)}"
        if len(found) == 1:
            its = f": it has one network, so leave out '#{truncate(wanted)}'"
        raise WeightsError(f"{source} has no part {truncate(wanted)!r}{its}")
    reasons = {part: _outranked(part, candidates) for part in candidates}
    first = [part for part, reason in reasons.items() if not reason]
    if len(first) != 1:
        raise WeightsError(
            f"{source} has several networks: {_listed(candidates)}; name one as FILE#PART, for"
            f" example {source}#{_short(candidates[0], found)}"
        )
    others = [part for part in found if part != first[0]]
    if not others:
        return first[0], ()
    why = next((f" ({reason})" for reason in reasons.values() if reason), "")
    hints = " or ".join(f"#{_short(part, found)}" for part in others)
    return first[0], (
        f"read {_listed(first)}{why}, not {_listed(others)}: add {hints} to the file's name for"
        f" {'that' if len(others) == 1 else 'those'}",
    )


def _outranked(part: Part, others: Iterable[Part]) -> str:
    """Return why the part yields to another one, or an empty text."""
    for second, first, reason in _CONVENTIONS:
        for other in others:
            if first == "teacher":  # not of other ways to distill, which keep the student
                yields = other.group == "teacher" and "backbone" in other.keys
            elif first:
                yields = first in other.words - part.words
            else:
                yields = second not in other.words
            if second in part.words and yields and other != part:
                return reason
    return ""


def _short(part: Part, parts: Iterable[Part]) -> str:
    """Return the shortest name of a part that no other part has."""
    others = set().union(*(other.keys | {other.label} for other in parts if other != part))
    if "ema" in part.words and not any("ema" in p.words for p in parts if p != part):
        return "ema"
    own = sorted(part.keys - others, key=lambda key: (len(key), key))
    return truncate(own[0] if own else part.label)


def _listed(parts: Iterable[Part]) -> str:
    return ", ".join(repr(truncate(part.label)) for part in parts)
