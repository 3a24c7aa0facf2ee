"""The house holds: who imports what, what lies at the top, and nothing in the tree that belongs to one machine.

Imports are read from the syntax tree, so those inside functions count too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "run",
    ".gitignore",
    ".ci",
    "app",
    "engine",
    "models",
    "assets",
    "tests",
}
QT = {"PySide6", "PyQt6", "PyQt5", "pyqtgraph", "shiboken6"}
NETWORK = {
    "socket", "ssl", "http", "urllib", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "urllib3", "websockets",
    "huggingface_hub", "xmlrpc",
}  # fmt: skip
ROOMS = {"app", "engine", "models", "assets", "tests"}
MAY_USE = {"app": {"app", "engine"}, "engine": {"engine"}, "models": {"models", "engine"}, "assets": set()}
WHISPER_HOME = {"adapter.py", *(f"whisper_{part}.py" for part in ("beams", "blocks", "decoder", "worker"))}
ASSETS_BYTES = 25_000_000


def tracked() -> list[str]:
    """Files under version control; where there is none (an unpacked archive) the rules on them cannot be asked."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def modules(room: str) -> list[Path]:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room}/ is empty"
    return files


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Full dotted names of what a module imports, with the line; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join([*parts, base]).rstrip(".")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) in (
            "__import__",
            "importlib.import_module",
            "import_module",
        ):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value, node.lineno


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def breaches(room: str, forbidden: set[str], allowed_in: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(room)
        if path.name not in allowed_in
        for name, line in imports(path)
        if name.split(".")[0] in forbidden
    ]


def test_the_reader_of_imports_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "engine" / "x.py"
    file.parent.mkdir()
    file.write_text(
        "import torch.nn\ndef f():\n    from . import ring\n    import_module('requests')\nfrom app.cli import main\n"
    )
    assert {name for name, _ in imports(file)} == {"torch.nn", "engine.ring", "requests", "app.cli.main"}
    assert breaches("engine", {"torch"}) == ["engine/x.py:1 imports torch.nn"]
    assert breaches("engine", {"torch"}, {"x.py"}) == []


@pytest.mark.parametrize("room", sorted(MAY_USE))
def test_rooms_point_one_way(room: str) -> None:
    assert breaches(room, ROOMS - MAY_USE[room]) == []


def test_the_app_leaves_sound_and_networks_to_the_engine() -> None:
    assert breaches("app", {"torch", "whisper", "onnxruntime", "sounddevice", "rtmixer", "pulsectl"}) == []


@pytest.mark.parametrize(
    ("packages", "home"),
    [
        ({"onnxruntime"}, {"artefacts.py"}),
        ({"sounddevice", "rtmixer"}, {"devices.py"}),
        ({"torch", "whisper"}, WHISPER_HOME),
        (NETWORK, {"fetch.py", "control.py", "followers.py", "caption_server.py"}),
        (QT, set()),
    ],
)
def test_one_home_in_the_engine(packages: set[str], home: set[str]) -> None:
    assert breaches("engine", packages, home) == []


def test_the_app_opens_no_network() -> None:
    assert breaches("app", NETWORK) == []


def test_only_serve_reaches_what_listens_on_a_network() -> None:
    listening = {"engine.caption_server", "app.commands_serve"}
    found = {
        (path.name, name.rpartition(".")[0])
        for room in ("app", "engine")
        for path in modules(room)
        for name, _ in imports(path)
        if name.rpartition(".")[0] in listening or name in listening
    }
    assert found == {("commands_serve.py", "engine.caption_server"), ("cli.py", "app.commands_serve")}


@pytest.mark.parametrize(("name", "families"), [("control", {"AF_UNIX"}), ("followers", set())])
def test_what_steers_the_app_is_a_file_and_no_network(name: str, families: set[str]) -> None:
    tree = ast.parse((ROOT / "engine" / f"{name}.py").read_text(encoding="utf8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in names if name.startswith(("AF_", "PF_", "create_"))} == families


@pytest.mark.parametrize("name", ["types", "ring", "resample", "tokens"])
def test_lower_rooms_stand_on_the_ground(name: str) -> None:
    above = [found for found, _ in imports(ROOT / "engine" / f"{name}.py") if found.startswith("engine.")]
    assert all(found.startswith("engine.types.") for found in above), above


def test_the_engine_has_no_circles() -> None:
    below: dict[str, set[str]] = {}
    for path in modules("engine"):
        if path.name != "__init__.py":
            found = (name.split(".") for name, _ in imports(path) if name.startswith("engine."))
            below[path.stem] = {parts[1] for parts in found} & {other.stem for other in modules("engine")} - {path.stem}
    while ground := [name for name, under in below.items() if not under & below.keys()]:
        for name in ground:
            del below[name]
    assert not below, f"these import each other in a circle: {sorted(below)}"


def test_the_engine_loads_without_qt_or_torch() -> None:
    code = "import sys, engine; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "whisper", "app", "models", *QT} & set(done.stdout.split())


def test_the_top_holds_what_is_prescribed() -> None:
    assert {name.split("/")[0] for name in tracked()} <= TOP


def test_tests_lie_flat_and_are_named_after_modules() -> None:
    names = [name for name in tracked() if name.startswith("tests/") and name.endswith(".py")]
    assert all(name.count("/") == 1 for name in names)


def test_nothing_belongs_to_one_machine() -> None:
    # Written in pieces, so that this file does not find itself.
    traces = re.compile(
        "|".join(("/" + "work/", "/" + "root/", "/" + "tmp/bash_jobs", "/" + "home/[a-z]", "/" + "farm/"))
    )
    found = []
    for name in tracked():
        if name.endswith((".py", ".md", ".toml", ".txt", ".sh", ".yml", ".json")) or name in ("run", ".ci/run"):
            lines = (ROOT / name).read_text(encoding="utf8").splitlines()
            found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if traces.search(line)]
    assert found == []


def test_assets_stay_small() -> None:
    total = sum((ROOT / name).stat().st_size for name in tracked() if name.startswith("assets/"))
    assert total <= ASSETS_BYTES, f"assets/ holds {total / 1e6:.1f} MB"


def test_broad_excepts_stand_only_atop_threads() -> None:
    found = []
    for room in ("app", "engine", "models"):
        for path in modules(room):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
                broad = isinstance(node, ast.ExceptHandler) and (
                    node.type is None or _name(node.type) in ("Exception", "BaseException")
                )
                if broad:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(found) <= 5, found
