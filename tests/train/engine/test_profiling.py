"""Which calls are profiled, and failures of the profiler."""

import jax
import pytest

from train.engine.profiling import Profiler


@pytest.fixture
def profiled(monkeypatch):
    """Return a function that runs calls of ``width`` steps, and lists those that are profiled."""
    active = []
    monkeypatch.setattr(jax.profiler, "start_trace", active.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", active.clear)

    def run(steps, start, end, width):
        messages, calls, ended = [], [], []
        with Profiler(steps, start, "run", messages.append, messages.append) as profiler:
            for first in range(start, end, width):
                call = range(first, min(first + width, end))
                profiler.before(call, None)
                if active:
                    calls.append((call.start + 1, call.stop))  # counted from 1
                if profiler.after(call, None):
                    ended.append(call.stop)
        assert not active
        return calls, ended, messages

    return run


def test_calls_that_contain_the_steps_are_profiled(profiled):
    assert profiled((3, 4), 0, 6, 1)[:2] == ([(3, 3), (4, 4)], [4])
    assert profiled((1, 1), 0, 3, 1)[:2] == ([(1, 1)], [1])
    assert profiled((4, 9), 0, 20, 4)[:2] == ([(1, 4), (5, 8), (9, 12)], [12])
    assert profiled((), 0, 3, 1) == ([], [], [])


def test_steps_that_are_done_are_a_warning(profiled):
    calls, _, messages = profiled((3, 9), 5, 12, 1)
    assert not calls
    assert messages == [
        "log.profile_steps: steps 3 to 9 will not be profiled, since the run continues after step 5"
    ]


def test_a_run_that_ends_early_keeps_the_profile_so_far(profiled):
    calls, ended, messages = profiled((3, 9), 0, 5, 1)
    assert calls == [(3, 3), (4, 4), (5, 5)] and not ended
    assert "steps 3 to 9, cut short in run/profile" in messages[0]


def test_a_failing_profiler_is_one_warning(profiled, monkeypatch):
    def fail(*_):
        raise RuntimeError("Only one profile may be run at a time")

    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    _, ended, messages = profiled((2, 3), 0, 5, 1)
    assert messages == ["cannot profile: RuntimeError: Only one profile may be run at a time"]
    assert not ended
