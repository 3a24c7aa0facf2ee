"""models/manifest.py keeps other rows, computes hashes, and reads back what it wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models import manifest


def test_rows_are_added_replaced_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    (tmp_path / "a.onnx").write_bytes(b"first")
    (tmp_path / "b.flac").write_bytes(b"sound")
    manifest.update_row(name="a", file="a.onnx", kind="model", license="MIT", hop_samples=320, manifest=path)
    awkward = 'say "no"\tto C:\\ and\nÄ'
    manifest.update_row(name="b", file="b.flac", kind="demo", license="GPL-2.0", data=[awkward, "y"], manifest=path)
    (tmp_path / "a.onnx").write_bytes(b"second")
    manifest.update_row(
        name="a", file="a.onnx", kind="model", license="MIT", ancestors=["x"], snr={"db": -1.5}, manifest=path
    )
    rows = manifest.load(path)
    assert [row["name"] for row in rows] == ["a", "b"]
    assert rows[0]["sha256"] == hashlib.sha256(b"second").hexdigest()
    assert "hop_samples" not in rows[0] and rows[0]["ancestors"] == ["x"] and rows[0]["snr"] == {"db": -1.5}
    assert rows[1]["data"] == [awkward, "y"]


def test_refuses_unknown_kinds_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    with pytest.raises(ValueError, match="kind is one of"):
        manifest.update_row(name="a", file="a", kind="thing", license="MIT", manifest=path)
    with pytest.raises(FileNotFoundError):
        manifest.update_row(name="a", file="a", kind="model", license="MIT", manifest=path)
    assert not path.exists()


def test_refuses_a_name_that_is_taken(tmp_path: Path) -> None:
    """The engine finds its files by name alone."""
    (tmp_path / "a.onnx").write_bytes(b"graph")
    manifest.update_row(name="a", file="a.onnx", kind="model", license="MIT", manifest=(path := tmp_path / "rows.toml"))
    with pytest.raises(ValueError, match="'a' is a model already"):
        manifest.update_row(name="a", file="a.onnx", kind="log", license="MIT", manifest=path)
    assert [row["kind"] for row in manifest.load(path)] == ["model"]


def test_every_shipped_file_has_a_true_row() -> None:
    rows = manifest.load()
    for row in rows:
        assert row["sha256"] == manifest.sha256_of(manifest.ASSETS / row["file"]), f"{row['file']} is not as recorded"
        assert row["license"] and row["kind"] in manifest.KINDS
    assert len({row["name"] for row in rows}) == len(rows), "a file is found by its name"
    recorded = {row["file"] for row in rows}
    # A file that is being made lies in a hidden folder first.
    shipped = {
        str(path.relative_to(manifest.ASSETS))
        for path in manifest.ASSETS.rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc", ".toml", ".txt", ".part")
        and not any(part.startswith(".") for part in path.relative_to(manifest.ASSETS).parts)
    }
    assert shipped <= recorded, f"without a row in the manifest: {sorted(shipped - recorded)}"
