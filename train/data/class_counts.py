"""How many images each class has, in training and in evaluation."""

from flax_resnet.text import truncate
from train.data.skipped import Finding
from train.data.source import DataSource
from train.runtime.formatting import MAX_CAPTION, format_percent

COUNTS = "class counts"  # kind of the finding
_MAX_NAMED = 10  # classes in one line


def describe_counts(source: DataSource) -> str:
    """Return the number of images of each class as text, of many classes only the extremes."""
    counts = source.class_counts()
    names, total = source.class_names, len(source)

    def named(k: int) -> str:
        share = format_percent(counts[k] / total)
        return f"{truncate(names[k], MAX_CAPTION)}: {counts[k]:,} ({share})"

    if len(names) > _MAX_NAMED and counts.min() == counts.max():
        return f"{counts.min():,} of each class"
    if len(names) <= _MAX_NAMED:
        return ", ".join(map(named, range(len(names))))
    return f"{named(int(counts.argmin()))} to {named(int(counts.argmax()))} per class"


def count_classes_of(*sources: DataSource) -> list[Finding]:
    """Return a finding with the class counts of all splits whose labels are cheap to read."""
    cheap = [source for source in sources if source.has_cheap_labels]
    if not cheap:
        return []
    parts = [f"{source.split!r}: {describe_counts(source)}" for source in cheap]
    text = f"images by class: {'; '.join(parts)}"
    return [Finding(COUNTS, len(cheap), (), text, False)]
