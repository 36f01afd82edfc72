"""What became of each tensor of a file and of each leaf of the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from flax_resnet.weights.tensors import shortened


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a file's tensors and of the network's leaves; ``str`` tells it in words.

    Attributes:
      path: the file.
      format: its format, such as ``safetensors``.
      layout: whose names it has, such as ``torchvision``.
      loaded: leaves of the network that came from the file.
      skipped: tensors of the file that the network has no place for.
      missing: leaves that the file lacks; drawn afresh.
      mismatched: leaves whose shape differs in the file, with its and our shape; drawn afresh.
      notes: remarks on the file.
      doubts: why the network may compute other logits than the file's origin did.
    """

    path: str
    format: str
    layout: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing was drawn afresh or left out, and nothing is in doubt."""
        return not (self.skipped or self.missing or self.mismatched or self.doubts)

    def __str__(self) -> str:
        lines = [
            f"{self.path} ({self.format}, {self.layout} names): {len(self.loaded)} tensors loaded,"
            f" {len(self.skipped)} skipped, {len(self.missing)} missing,"
            f" {len(self.mismatched)} of another shape"
        ]
        if self.skipped:
            lines.append(f"  skipped, no place in the network: {some(self.skipped)}")
        if self.missing:
            lines.append(f"  missing, drawn afresh: {some(self.missing)}")
        if self.mismatched:
            shapes = [f"{name} {theirs} for {ours}" for name, theirs, ours in self.mismatched]
            lines.append(f"  of another shape, drawn afresh: {some(shapes)}")
        return "\n".join(lines + [f"  {note}" for note in (*self.notes, *self.doubts)])


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(name, 160) for name in names[:most]) + more
