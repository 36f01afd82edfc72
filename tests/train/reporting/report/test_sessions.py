"""Sessions of a run, with the reasons of their ends, and their timeline."""

import re

import pytest

from train.reporting.report.environment import wrap_at_flags
from train.reporting.report.sessions import (
    UNKNOWN_END,
    describe_duration,
    list_sessions,
    timeline,
)
from train.runtime.errors import RunError
from train.workdir.session_ends import read_ends, recorded_end

HOUR = 1796040000.0  # 2026-11-30 12:00 UTC
STARTS = [
    {"time": "2026-11-30T12:00:00+00:00", "step": 0, "num_steps": 900},
    {"time": "2026-11-30T13:00:00+00:00", "step": 200, "num_steps": 900},
    {"time": "2026-11-30T14:00:00+00:00", "step": 500, "num_steps": 900},
]
ROWS = [
    {"step": 200, "time": HOUR + 600},
    {"step": 500, "time": HOUR + 3600 + 1200},
    {"step": 900, "time": HOUR + 7200 + 300},
]
SIGTERM = {"time": "2026-11-30T12:20:00+00:00", "reason": "SIGTERM after step 200"}


def test_sessions_end_by_signal_kill_and_the_last_step():
    stopped, killed, last = list_sessions(STARTS, [SIGTERM], ROWS)
    assert stopped == (HOUR, HOUR + 1200, 0, 200, "SIGTERM after step 200")
    assert killed == (HOUR + 3600, HOUR + 4800, 200, 500, UNKNOWN_END)
    assert last == (HOUR + 7200, HOUR + 7500, 500, 900, "finished")
    assert [one.was_interrupted for one in (stopped, killed, last)] == [True, True, False]
    text = describe_duration([stopped, killed, last])
    assert text == "45 min in 3 sessions, 2 h 5 min from start to end"
    again = last._replace(start=HOUR + 90000, end=HOUR + 90060, first_step=900)
    assert describe_duration([stopped, killed, last, again]) == text


def test_a_running_session_has_no_reason_and_an_early_end_its_own():
    assert list_sessions(STARTS, [], ROWS[:2])[-1] == (HOUR + 7200, None, 500, 500, "")
    early = list_sessions(STARTS[:1], [], ROWS[:1], "stopped early: no better loss")
    assert early == [(HOUR, HOUR + 600, 0, 200, "stopped early: no better loss")]


def test_files_of_earlier_versions_and_invalid_times():
    rows = [{"step": row["step"]} for row in ROWS]
    sessions = list_sessions([{**STARTS[0], "time": "noon"}, *STARTS[1:]], [], rows)
    assert [one.end for one in sessions] == [None, None]
    odd = {"time": "0001-01-01T00:00:00+00:00"}
    assert list_sessions([STARTS[0] | odd], [SIGTERM | odd], ROWS) == []
    far = [*ROWS, {"step": 900, "time": 1e39}]
    assert list_sessions(STARTS, [SIGTERM | odd], far)[-1].end == HOUR + 7500
    assert describe_duration(sessions) == "" and list_sessions([], [SIGTERM], ROWS) == []


def test_timeline_has_a_bar_for_each_session_at_its_time():
    html = timeline(list_sessions(STARTS, [SIGTERM], ROWS))
    bars = [tuple(map(float, bar)) for bar in re.findall(r"left:([\d.]+)%;width:([\d.]+)%", html)]
    whole = 7500
    expected = [(0, 1200), (3600, 1200), (7200, 300)]
    assert bars == [(round(100 * a / whole, 2), round(100 * b / whole, 2)) for a, b in expected]
    assert html.count("range cut") == 2 and "SIGTERM after step 200" in html
    assert timeline(list_sessions(STARTS[:1], [], ROWS[:1])) == ""
    many = [{**STARTS[0], "step": step} for step in range(100)]
    assert timeline(list_sessions(many, [], ROWS)).count("<li>") == 30


def test_ends_are_recorded_with_the_text_of_the_exception(tmp_path):
    with recorded_end(str(tmp_path)):
        pass
    with pytest.raises(RunError), recorded_end(str(tmp_path)):
        raise RunError("the disk\nis full")
    with pytest.raises(KeyboardInterrupt), recorded_end(str(tmp_path)):
        raise KeyboardInterrupt
    reasons = [end["reason"] for end in read_ends(str(tmp_path))]
    assert reasons == ["finished", r"the disk\nis full", "KeyboardInterrupt"]
    with open(tmp_path / "session_ends.jsonl", "a") as file:
        file.write('{"time": "noon", "reason": "no time"}\n[1]\n')
    warnings = []
    assert len(read_ends(str(tmp_path), warnings.append)) == 3
    assert warnings == [f"{tmp_path}/session_ends.jsonl: skipped 2 damaged lines"]
    with recorded_end(str(tmp_path / "missing")):  # nothing can be written there
        pass


def test_commands_wrap_at_flags_and_can_be_pasted():
    import shlex

    command = "python -m train.main --workdir 'a b' --config c.py '--config.model.stage_sizes=(1,)'"
    wrapped = wrap_at_flags(command)
    assert wrapped.split(" \\\n    ") == [
        "python -m train.main",
        "--workdir 'a b'",
        "--config c.py",
        "'--config.model.stage_sizes=(1,)'",
    ]
    assert shlex.split(wrapped.replace("\\\n", "")) == shlex.split(command)
    assert wrap_at_flags("train 'open") == "train 'open"
