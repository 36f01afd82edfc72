"""Searches by Optuna, with a function in place of training."""

import math

import pytest

from train.config.keys import KEYS
from train.sweep.definition import Range

pytest.importorskip("optuna")

SPACE = {
    "schedule.learning_rate": Range(0.001, 1.0, True),
    "batch_size": Range(16, 64, False),
    "model.stage_sizes": ((1, 1), (2, 2)),
    "optimizer.nesterov": (True, False),
}


class Objective:
    """Best at a learning rate of 0.1; records the settings; fails or stops at given calls."""

    def __init__(self, fails=(), stops=None):
        self.fails, self.stops, self.settings = fails, stops, []

    def __call__(self, settings):
        if len(self.settings) == self.stops:
            raise KeyboardInterrupt
        self.settings.append(settings)
        if len(self.settings) in self.fails:
            return None
        return -abs(math.log10(settings["schedule.learning_rate"]) + 1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    from train.sweep.search import search

    objective = Objective(fails=(3,))
    search(SPACE, 14, str(tmp_path_factory.mktemp("search")), objective)
    return objective.settings


def test_suggestions_are_in_the_space(uninterrupted):
    assert len(uninterrupted) == 14
    for settings in uninterrupted:
        assert settings.keys() == SPACE.keys() <= KEYS.keys()
        assert 0.001 <= settings["schedule.learning_rate"] <= 1
        assert 16 <= settings["batch_size"] <= 64 and isinstance(settings["batch_size"], int)
        assert settings["model.stage_sizes"] in ((1, 1), (2, 2))
        assert settings["optimizer.nesterov"] in (True, False)
    assert len({settings["schedule.learning_rate"] for settings in uninterrupted}) == 14


@pytest.mark.parametrize("stops", [1, 12])
def test_a_stopped_search_continues_with_the_same_trials(uninterrupted, tmp_path, stops):
    from train.sweep.search import search

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, 14, str(tmp_path), Objective(fails=(3,), stops=stops))
    objective = Objective(fails=(3,))
    search(SPACE, 14, str(tmp_path), objective)
    assert objective.settings == uninterrupted


def test_a_search_is_extended(uninterrupted, tmp_path):
    from train.sweep.search import search

    for trials in (2, 4):
        objective = Objective(fails=(3,))
        search(SPACE, trials, str(tmp_path), objective)
        assert objective.settings == uninterrupted[:trials]
