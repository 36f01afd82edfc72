"""Search by Optuna, whose study is in the sweep's folder."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from train.config import loading
from train.config.keys import KEYS
from train.sweep.definition import Range, Settings, as_text

STUDY = "optuna.db"


def search(
    space: Mapping[str, Range | tuple[Any, ...]],
    trials: int,
    workdir: str,
    objective: Callable[[Settings], float | None],
) -> None:
    """Try settings until the study in ``workdir`` has ``trials`` of them.

    A suggestion depends only on the space, its number and the results of earlier trials, so that a
    search that was killed continues as if it had not been.

    Args:
      space: ranges or choices by key.
      trials: number of trials, including those of earlier calls.
      workdir: folder of the study.
      objective: returns what to maximize, or None if that failed. It is called for the trials of
        earlier calls, too.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = f"sqlite:///{os.path.abspath(os.path.join(workdir, STUDY))}"
    study = optuna.create_study(
        storage=url, study_name="sweep", direction="maximize", load_if_exists=True
    )

    def complete(trial: Any) -> None:
        value = objective(
            {
                key: value if isinstance(space[key], Range) else loading.parse(key, value)
                for key, value in trial.params.items()
            }
        )
        if value is None:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        else:
            study.tell(trial.number, value, skip_if_finished=True)

    tried = 0
    for trial in study.trials[:]:
        if len(trial.params) < len(space):  # killed before it had all of them
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        elif tried < trials:
            tried += 1
            complete(trial)
    distributions = {key: distribution(key, values) for key, values in space.items()}
    for _ in range(tried, trials):
        study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
        complete(study.ask(distributions))


def distribution(key: str, values: Range | tuple[Any, ...]) -> BaseDistribution:
    """Return Optuna's form of the values of a key."""
    if not isinstance(values, Range):
        return CategoricalDistribution([as_text(value) for value in values])
    kind = IntDistribution if isinstance(KEYS[key].default, int) else FloatDistribution
    return kind(values.low, values.high, log=values.log)
