"""How much memory there is, as control groups tell it."""

import pytest

from train.plan import memory


@pytest.mark.parametrize(
    ("limit", "used", "prefix"),
    [
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_what_files_hold_of_a_groups_memory_is_free(monkeypatch, tmp_path, limit, used, prefix):
    names = tmp_path / limit, tmp_path / used, tmp_path / "memory.stat"
    cached = f"{prefix}inactive_file", f"{prefix}active_file"
    monkeypatch.setattr(memory, "_GROUPS", ((*map(str, names), cached),))
    monkeypatch.setattr(memory, "_kilobytes", lambda *_: 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 0)
    assert memory.host_limit() == 10**9
    names[0].write_text("5000\n")
    names[1].write_text("4500\n")
    assert memory.host_limit() == 500
    names[2].write_text(f"anon 77\n{cached[0]} 3000\n{cached[1]} 1000\nfile 9999\n")
    assert memory.host_limit() == 4500
    names[0].write_text("max\n")
    assert memory.host_limit() == 10**9
