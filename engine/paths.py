"""Where things are kept: the cache, the settings, the logs and the shipped artefacts."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

SETTINGS_NAME = "settings.toml"


def cache_dir() -> Path:
    """The folder for what can be fetched or made again (weights, training data); SOTTOVOCE_CACHE moves it."""
    chosen = os.environ.get("SOTTOVOCE_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("sottovoce"))


def config_dir() -> Path:
    """The folder for what a person chose; SOTTOVOCE_CONFIG moves it."""
    chosen = os.environ.get("SOTTOVOCE_CONFIG")
    return Path(chosen) if chosen else Path(platformdirs.user_config_dir("sottovoce"))


def log_dir() -> Path:
    """The folder for logs of live runs; SOTTOVOCE_LOGS moves it."""
    chosen = os.environ.get("SOTTOVOCE_LOGS")
    return Path(chosen) if chosen else Path(platformdirs.user_log_dir("sottovoce"))


def assets_dir() -> Path:
    """The folder of the shipped artefacts; SOTTOVOCE_ASSETS moves it."""
    chosen = os.environ.get("SOTTOVOCE_ASSETS")
    return Path(chosen) if chosen else Path(__file__).resolve().parent.parent / "assets"
