"""Test the checksum manifest of a checkpoint folder."""

import json

import pytest

from flax_resnet.weights import manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "array").write_bytes(b"values")
    (tmp_path / "_CHECKPOINT_METADATA").write_bytes(b"start")
    manifest.write(str(tmp_path), {"top1": 0.5})
    return tmp_path


def test_unchanged_folder_is_verified(folder):
    (folder / "_CHECKPOINT_METADATA").write_bytes(b"start and end")
    (folder / "unlisted").touch()
    manifest.verify(str(folder))
    assert manifest.exists(folder) and manifest.read_metrics(str(folder)) == {"top1": 0.5}
    manifest.write(str(folder), {})  # replaces the manifest, which does not list itself
    assert set(json.loads((folder / manifest.FILE).read_text())["files"]) == {
        "default/array",
        "unlisted",
    }
    assert manifest.read_metrics(str(folder)) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "default/array is missing"),
        (b"value", "default/array has 5 bytes, not 6"),
        (b"Values", "default/array is corrupt: its checksum differs"),
    ],
)
def test_changed_files_are_detected(content, message, folder):
    path = folder / "default" / "array"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        manifest.verify(str(folder))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"files": {}, "metrics": {"top1": 1}}'])
def test_corrupt_manifest_is_detected(content, folder):
    (folder / manifest.FILE).write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json is corrupt"):
        manifest.verify(str(folder))
    assert manifest.read_metrics(str(folder)) == {}


def test_missing_manifest_is_reported(folder):
    (folder / manifest.FILE).unlink()
    assert not manifest.exists(folder) and manifest.read_metrics(str(folder)) == {}
    with pytest.raises(ValueError, match=r"incomplete: it has no manifest\.json"):
        manifest.verify(str(folder))
