"""Tests of the memory limit of control groups."""

import pytest

from train.runtime import host_memory


@pytest.mark.parametrize(
    ("limit", "usage", "prefix"),
    [
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_page_cache_of_a_control_group_counts_as_available(
    monkeypatch, tmp_path, limit, usage, prefix
):
    limit, usage, stat = (tmp_path / name for name in (limit, usage, "memory.stat"))
    page_cache = f"{prefix}inactive_file", f"{prefix}active_file"
    monkeypatch.setattr(host_memory, "control_groups", lambda _: [tmp_path / "no", tmp_path])
    monkeypatch.setattr(host_memory, "_kilobytes", lambda *_: 10**9)
    monkeypatch.setattr(host_memory, "resident_memory", lambda: 0)
    assert host_memory.host_limit() == 10**9
    limit.write_text("5000\n")
    usage.write_text("4500\n")
    assert host_memory.host_limit() == 500
    stat.write_text(f"anon 77\n{page_cache[0]} 3000\n{page_cache[1]} 1000\nfile 9999\n")
    assert host_memory.host_limit() == 4500
    limit.write_text("max\n")
    assert host_memory.host_limit() == 10**9
