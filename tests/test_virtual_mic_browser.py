"""A real Chromium on a page that calls: it lists the virtual microphone, and hears what the engine plays into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.artefacts import Models
from engine.live import Engine
from engine.livebench import Stage
from engine.types import EngineConfig
from engine.virtual_mic import MIC_TITLE
from tests.browser import Browser, program
from tests.file_server import FileServer
from tests.live_run import KEEP, noise, tiny
from tests.pulse import MIC_SOURCE, stage

__all__ = ["stage", "tiny"]
# Asked for a microphone it says yes, with the real devices; a page may make sound unasked.
OPTIONS = ("--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required")
QUIET, LOUD = 1e-4, 0.02  # of full scale, RMS; what is played has .05
# Names of devices are told only to a page that may hear one. Chromium's own processing would change the level.
PAGE = f"""<!doctype html><title>call</title><script>
var microphones = null, level = null, failure = null;
async function call() {{
  const ask = (audio) => navigator.mediaDevices.getUserMedia({{audio}});
  (await ask(true)).getTracks().forEach((track) => track.stop());
  const found = (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === "audioinput");
  microphones = found.map((d) => d.label);
  const ours = found.find((d) => d.label === "{MIC_TITLE}");
  const plain = {{echoCancellation: false, noiseSuppression: false, autoGainControl: false}};
  const sound = await ask({{deviceId: {{exact: ours.deviceId}}, ...plain}});
  const context = new AudioContext(), ear = context.createAnalyser(), wave = new Float32Array(ear.fftSize);
  context.createMediaStreamSource(sound).connect(ear);
  setInterval(() => {{
    ear.getFloatTimeDomainData(wave);
    level = Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
  }}, 50);
}}
call().catch((error) => {{ failure = String(error); }});
</script>"""


pytestmark = [pytest.mark.slow, pytest.mark.pulse]


@pytest.fixture
def caller(stage: Stage, tmp_path: Path) -> Browser:
    """A browser of the stage's server, not started yet."""
    return Browser(program(), tmp_path / "profile", *OPTIONS)


def test_a_call_lists_it_and_hears_what_is_played(stage: Stage, tiny: Models, caller: Browser) -> None:
    page = FileServer(PAGE.encode())
    try:
        with Engine(EngineConfig(MIC_SOURCE, background=KEEP, virtual_mic=True), tiny), caller as chromium:
            chromium.open(page.address)
            names = chromium.until("microphones || failure && [failure]", bool)
            assert [name for name in names if MIC_TITLE in name] == [MIC_TITLE], names  # not its sink's monitor
            chromium.until("failure === null ? level : 1", lambda level: level < QUIET)  # it is opened; nobody speaks
            stage.play(noise(60.0))
            chromium.until("level", lambda level: level > LOUD)
            assert chromium.value("failure") is None
    finally:
        page.close()
