"""Hear the voice, keep or drop the world around it: the part that runs live, without a window.

    engine.enhance(audio, sample_rate_hz, background="drop")   one sound in memory
    engine.enhance_file, encode_file, decode_file              files
    engine.Engine(config): start, poll, set, record, stop      live

Names are loaded when they are first used, so that `import engine` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.artefacts import Models, load_models
    from engine.files import EnhanceReport, decode_file, encode_file, enhance, enhance_file
    from engine.live import Engine
    from engine.pipeline import Pipeline, Stream
    from engine.scenes import list_scenes
    from engine.types import Background, EngineConfig, Provider, SottovoceError

# ONNX Runtime's own wheels report to their maker from the moment they are imported, unless this is set before: a number
# for the machine, which it keeps in the cache folder, and what was loaded. Nothing of ours opens a connection unasked.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_HOMES = {
    "Background": "types",
    "Engine": "live",
    "EngineConfig": "types",
    "EnhanceReport": "files",
    "Models": "artefacts",
    "Pipeline": "pipeline",
    "Provider": "types",
    "SottovoceError": "types",
    "Stream": "pipeline",
    "decode_file": "files",
    "encode_file": "files",
    "enhance": "files",
    "enhance_file": "files",
    "list_scenes": "scenes",
    "load_models": "artefacts",
}

__all__ = [
    "Background",
    "Engine",
    "EngineConfig",
    "EnhanceReport",
    "Models",
    "Pipeline",
    "Provider",
    "SottovoceError",
    "Stream",
    "decode_file",
    "encode_file",
    "enhance",
    "enhance_file",
    "list_scenes",
    "load_models",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"engine.{_HOMES[name]}"), name)
