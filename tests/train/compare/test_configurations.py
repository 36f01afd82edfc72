"""Which runs are seeds or folds of one configuration."""

import pytest

from train.compare.comparison import as_text, compare_runs
from train.compare.cross_validation import cross_validations
from train.compare.grouping import differences, grouped
from train.compare.runs import RunSummary
from train.compare.tables import seeds_table


def summary(name, **values):
    rows = [{"step": 4, "eval/top1": 0.5, "eval/loss": 0.5, "eval/f1_macro": 0.5}]
    values = {"seed": 0} | {key.replace("__", "."): value for key, value in values.items()}
    return RunSummary(name, name, values, rows, 4, "")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("eval__metric", "f1_macro", "'f1_macro'"),
        ("stop__patience", 3, "3"),
        ("stop__min_delta", 0.01, "0.01"),
        ("stop__minutes", 5.0, "5.0"),
    ],
)
def test_keys_that_choose_the_result_are_differences(key, value, text):
    runs = [summary("a"), summary("b", seed=1), summary("c", seed=2, **{key: value})]
    assert [[run.name for run in group] for group in grouped(runs)] == [["a", "b"], ["c"]]
    [means] = seeds_table(grouped(runs)).rows
    assert (means[0], means[2]) == ("a, b", "2")
    name = key.replace("__", ".")
    assert name in [different for different, _ in differences(runs)]
    assert any(
        line.startswith(name) and text in line for line in as_text(compare_runs(runs)).splitlines()
    )


def test_neutral_keys_are_no_other_configuration():
    runs = [summary("a"), summary("b", seed=1, loader__threads=3, checkpoint__max_to_keep=9)]
    assert len(grouped(runs)) == 1


def test_folds_of_other_metrics_are_no_cross_validation(tmp_path):
    def fold(number, **values):
        return summary(str(tmp_path / f"{number}"), dataset__fold=f"{number}/3", **values)

    assert len(cross_validations([fold(1), fold(2)])) == 1
    assert cross_validations([fold(1), fold(2, eval__metric="mcc")]) == []
