"""The report on loading a file: tensors loaded, skipped, missing and mismatched."""

import dataclasses
from collections.abc import Iterable

from flax_resnet.text import one_line, truncate


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of loading a file into a network; ``str`` gives a readable summary.

    Attributes:
      path: the file.
      format: its format, such as ``safetensors``.
      layout: the library whose tensor names it has, such as ``torchvision``.
      loaded: leaves of the network loaded from the file.
      skipped: tensors of the file that the network has no place for.
      missing: leaves that are not in the file; newly initialized.
      mismatched: leaves with another shape in the file, with the file's and the network's
        shape; newly initialized.
      notes: remarks on the file.
      doubts: reasons why the network may compute different logits than the file's original.
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
        """Whether nothing was initialized or skipped, and there are no doubts."""
        return not (self.skipped or self.missing or self.mismatched or self.doubts)

    def __str__(self) -> str:
        new = len(self.missing) + len(self.mismatched)
        lines = [
            f"{one_line(self.path)} ({self.format}, {self.layout} names): {len(self.loaded)} of"
            f" {len(self.loaded) + new} tensors matched, {new} new, {len(self.skipped)} left in the"
            " file"
        ]
        if self.missing:
            lines.append(f"  new, not in the file: {first_names(self.missing)}")
        if self.mismatched:
            shapes = [f"{name} {theirs} for {ours}" for name, theirs, ours in self.mismatched]
            lines.append(f"  new, of another shape in the file: {first_names(shapes)}")
        if self.skipped:
            lines.append(f"  left, not in the network: {first_names(self.skipped)}")
        return "\n".join(lines + [f"  {one_line(note)}" for note in (*self.notes, *self.doubts)])


def first_names(names: Iterable[str]) -> str:
    """Return the first three names, and how many more there are."""
    first, rest = list(names)[:3], list(names)[3:]
    more = f" and {len(rest)} more" if rest else ""
    return ", ".join(truncate(name, 160) for name in first) + more
