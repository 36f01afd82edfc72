"""Which runs can be compared by one number, in which order, and which are seeds of one another."""

from collections.abc import Hashable, Sequence
from typing import Any

from flax_resnet.text import truncate
from train.compare.configurations import affects_results, identity
from train.compare.runs import RunSummary
from train.config.keys import KEYS
from train.config.registries import larger_is_better
from train.runtime.formatting import join_names, pluralize

_MAX_NAMED, _MAX_TEXT = 5, 200  # runs or classes in a list, and characters of it
_PLACES = ("dataset.data_dir", "dataset.labels")  # of data, which may be the same elsewhere


def cohorts(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Return the runs apart by metric and evaluated images, each in the order of the metric.

    The best is the first; runs that have not finished follow the others, since their results are
    not final.
    """
    apart: dict[Hashable, list[RunSummary]] = {}
    for run in runs:
        apart.setdefault((run.metric, run.data), []).append(run)
    return [sorted(part, key=_rank) for part in apart.values()]


def _rank(run: RunSummary) -> tuple[bool, bool, float]:
    value = run.value
    if value is None:
        return not run.is_complete, True, 0.0
    return not run.is_complete, False, -value if larger_is_better(run.metric) else value


def describe_other_classes(runs: Sequence[RunSummary]) -> str:
    """Return which runs have other classes than others, which is why they are not comparable."""
    names: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        if run.class_names:
            names.setdefault(run.class_names, []).append(run.name)
    if len(names) < 2:
        return ""
    lists = (
        f"{join_names(members, _MAX_NAMED)} ({pluralize(len(classes), 'class')}:"
        f" {truncate(join_names(list(classes), _MAX_NAMED), _MAX_TEXT)})"
        for classes, members in names.items()
    )
    return f"Not comparable, since their classes differ: {'; '.join(lists)}."


def best(cohort: Sequence[RunSummary]) -> list[RunSummary]:
    """Return the runs of the best value, of those that have finished.

    A single run is not the best, and runs on several folds have different images.
    """
    folds = {run.values.get("dataset.fold") for run in cohort}
    complete = [run for run in cohort if run.is_complete and run.value is not None]
    if len(cohort) < 2 or len(folds) > 1 or not complete:
        return []
    return [run for run in complete if run.value == complete[0].value]


def grouped(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Return groups of runs that differ only in the seed and in keys without effect on results.

    They were trained on the same data, whether or not these are in the same place.
    """
    groups: dict[Hashable, list[RunSummary]] = {}
    for run in runs:
        alike = identity(run.values, "seed"), run.training_data
        groups.setdefault(alike, []).append(run)
    return list(groups.values())


def mark_duplicates(runs: Sequence[RunSummary]) -> None:
    """Exclude from the means all but the first finished run of a configuration and seed.

    A copy would count as another seed.
    """
    for group in grouped(runs):
        first: dict[int, RunSummary] = {}
        for run in group:
            if run.remark:
                continue
            other = first.setdefault(run.values["seed"], run)
            if other is not run:
                run.copies = True
                run.remark = (
                    f"has the configuration and seed of {other.name!r} and is excluded from means"
                )


def has_effect(name: str, runs: Sequence[RunSummary]) -> bool:
    """Return whether a key that differs has an effect on the results of these runs."""
    other_data = name in _PLACES and len({run.training_data for run in runs}) > 1
    return other_data or affects_results(name)


def differences(runs: Sequence[RunSummary]) -> list[tuple[str, list[Any]]]:
    """Return the keys that differ, with the value of each run; neutral keys come last."""
    values = {
        name: [run.values.get(name, key.default) for run in runs] for name, key in KEYS.items()
    }
    different = [item for item in values.items() if len(set(item[1])) > 1]
    return sorted(different, key=lambda item: not has_effect(item[0], runs))


def differing_keys(runs: Sequence[RunSummary]) -> list[str]:
    """Return the names of the keys that differ and have an effect on results; the seed is last."""
    names = [name for name, _ in differences(runs) if has_effect(name, runs)]
    return sorted(names, key=lambda name: name == "seed")


def short_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return the last parts of the names of keys, and the whole names of those that are alike."""
    parts = [name.rpartition(".")[2] for name in names]
    alike = {part for part in parts if parts.count(part) > 1} | {*taken}
    return [n if part in alike else part for n, part in zip(names, parts, strict=True)]


def group_name(group: Sequence[RunSummary], keys: Sequence[str]) -> str:
    """Return the values of the differing keys of a group of seeds; empty if only the seed does."""
    keys = [key for key in keys if key != "seed"]
    values = (group[0].values.get(key, KEYS[key].default) for key in keys)
    return ", ".join(f"{n}={v}" for n, v in zip(short_names(keys), values, strict=True))
