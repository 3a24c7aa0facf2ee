"""What an installed copy holds: the rooms that people run, and every file that the manifest speaks of."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

from models import manifest


def test_the_wheel_takes_every_recorded_file(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf8"))
    settings = project["tool"]["setuptools"]
    assert settings["packages"] == ["app", "engine", "assets"]
    patterns = settings["package-data"]["assets"]
    rows = manifest.load()
    assert {row["kind"] for row in rows} >= {"model", "scene", "demo"}
    left_out = [row["file"] for row in rows if not any(fnmatchcase(row["file"], p) for p in patterns)]
    assert left_out == []


def test_every_pin_of_the_project_is_a_pin_of_the_set_up(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    lines = (checkout / ".ci" / "constraints.txt").read_text(encoding="utf8").splitlines()
    pinned = dict(line.replace("_", "-").lower().split("==") for line in lines if line and not line.startswith("#"))
    for line in [*project["dependencies"], *extras]:
        requirement, _, marker = line.partition(";")
        name, version = requirement.strip().replace("_", "-").lower().split("==")
        if name == "onnxruntime" and marker:
            continue  # the other half of a pair; this one is for machines without the gpu build
        assert pinned.get(name) == version, f"{requirement} is not what .ci/constraints.txt pins"
