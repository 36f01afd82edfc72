"""What differs between two runs, in words."""

from collections.abc import Sequence

from flax_resnet.text import truncate
from train.compare.pair.differences import ClassDifference, Differences
from train.reporting.metric_names import title
from train.runtime.formatting import join_names, pluralize

SIGNIFICANT = 0.05
_MAX_NAMED = 3  # classes and images in a line
_MAX_LABEL = 16  # characters of a name that stands for a run in sentences and titles
_MAX_NAME = 60  # characters of an image's name


def labels(found: Differences) -> tuple[str, str]:
    """Return how the two runs are called: by their names, or A and B if these are long."""
    names = found.paired.names
    return names if max(map(len, names)) <= _MAX_LABEL else ("A", "B")


def heading(found: Differences) -> str:
    """Return the names of the two runs, and what they are called."""
    first, second = (
        name if name == label else f"{name} ({label})"
        for name, label in zip(found.paired.names, labels(found), strict=True)
    )
    return f"From {first} to {second}"


def verdict(found: Differences) -> str:
    """Return one sentence on whether the two runs differ on their images."""
    first, second = labels(found)
    images, pairs = pluralize(len(found.paired), "image"), found.pairs
    right = "completely right" if found.paired.several_labels else "right"
    changed = pairs.only_first + pairs.only_second
    if not changed:
        return f"{first} and {second} are {right} on the same of {images}: no difference."
    better, count = (second, pairs.only_second)
    if pairs.only_first > pairs.only_second:
        better, count = first, pairs.only_first
    which = f"of {changed:,} that only one of the two has {right}, {better} has {count:,}"
    if changed == 1:
        which = f"they differ on a single one, on which only {better} is {right}"
    test = f"McNemar's exact test, {p_text(found.p_value)}"
    if found.p_value < SIGNIFICANT:
        other = first if better == second else second
        return f"{better} is better than {other} on these {images}: {which} ({test})."
    return f"No clear difference on these {images}: {which}, which may be chance ({test})."


def meaning(found: Differences) -> str:
    """Return what is compared, and what the verdict does not say."""
    text, metric = "", title(found.paired.metric)
    if found.paired.several_labels:
        text = (
            "An image is completely right if every class is decided rightly at its threshold; the"
            f" test compares these images, not {metric}. "
        )
    elif found.paired.metric != "top1":
        text = f"The test compares top-1 accuracy, not {metric}. "
    return text + (
        "The test is on these two trained networks and images: other seeds may differ as much, and"
        " for runs that were chosen among many by these images p is too small."
    )


def p_text(p_value: float) -> str:
    """Return a p-value as text."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def moves(found: Differences) -> str:
    """Return how many images changed sides."""
    pairs = found.pairs
    right = "completely right" if found.paired.several_labels else "right"
    return (
        f"{pluralize(pairs.only_first, 'image')} {right} → wrong, {pairs.only_second:,} wrong →"
        f" {right}; both {right}: {pairs.both:,}, both wrong: {pairs.neither:,} (with different"
        f" answers: {found.other_answers:,})"
    )


def measure(found: Differences) -> str:
    """Return what is compared by class."""
    return "average precision" if found.paired.several_labels else "recall"


def by_class(found: Differences) -> str:
    """Return how many classes differ clearly, and how many would by chance."""
    known = [one for one in found.classes if one.interval is not None]
    if not known:
        return "intervals are left out: there are too many images and classes"
    return count_clear([one.is_clear for one in known])


def count_clear(are_clear: Sequence[bool]) -> str:
    """Return for how many classes with an interval that excludes 0."""
    return (
        f"the 95 % interval excludes 0 for {sum(are_clear)} of"
        f" {pluralize(len(are_clear), 'class')}; by chance for about {len(are_clear) / 20:.2g}"
    )


def overall(found: Differences) -> str:
    """Return the difference in mAP, if there is one; else nothing."""
    one = found.overall
    if one is None:
        return ""
    interval = "" if one.interval is None else ", 95 % interval by the paired bootstrap"
    return f"{one.name} {points(one)}{interval}"


def points(one: ClassDifference) -> str:
    """Return a difference in percentage points with its interval."""
    if one.interval is None:
        return f"{100 * one.difference:+.1f} points"
    low, high = one.interval
    return f"{100 * one.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def lines(found: Differences) -> list[str]:
    """Return the differences in a few lines for the console."""
    largest = [one for one in found.classes if one.difference][:_MAX_NAMED]
    named = ", ".join(f"{truncate(one.name, 30)!r}: {points(one)}" for one in largest)
    parts = [f"{heading(found)}: {moves(found)}", verdict(found)]
    parts += [overall(found)] if found.overall else []
    if found.classes:
        parts.append(f"{measure(found)} by class: {named or 'no difference'}; {by_class(found)}")
    for what, indices in (("right → wrong", found.lost), ("wrong → right", found.gained)):
        if len(indices):
            parts.append(f"{what}: {_names(found.paired.first.names, indices)}")
    return parts


def _names(names: Sequence[str], indices: Sequence[int]) -> str:
    shown = [truncate(names[i], _MAX_NAME) for i in indices[:_MAX_NAMED]]
    rest = len(indices) - len(shown)
    return join_names(shown) + (f" and {rest:,} more" if rest else "")
