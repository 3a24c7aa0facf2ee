"""The exporter's gate: ONNX Runtime hop by hop with carried state, against torch over the whole file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from engine.artefacts import load_onnx
from engine.paths import assets_dir
from models.checkpoint import Bundle

HOPS = 500
TOLERANCE = 1e-4  # of full scale
TIE = 1e-5  # relative distance below which two codes are the same choice


class ParityError(RuntimeError):
    """The exported graphs do not compute what torch computes."""


@dataclass(frozen=True)
class ParityReport:
    """Largest differences over the run."""

    hops: int
    decoder: float
    refiner: float
    codes_differing: int
    lag: int

    def text(self) -> str:
        """One line for the log."""
        return (
            f"parity over {self.hops} hops: decoder {self.decoder:.1e}, refiner {self.refiner:.1e} of full scale, "
            f"{self.codes_differing} codes differ by a tie, lag {self.lag} samples"
        )


def real_sound(bundle: Bundle, path: Path | None) -> np.ndarray:
    """500 hops of the shipped noisy recording (or of `path`) at the model's rate, [1, N]."""
    sound, rate = soundfile.read(path or assets_dir() / "demo.ogg", dtype="float32", always_2d=True)
    mono = soxr.resample(sound[:, 0], rate, bundle.config.sample_rate_hz).astype(np.float32)
    return np.resize(mono, HOPS * bundle.config.hop)[None]


@torch.no_grad()
def check_parity(bundle: Bundle, paths: dict[str, Path], sound: Path | None = None) -> ParityReport:
    """Compare the three graphs at `paths` with the bundle; raises ParityError."""
    c = bundle.config
    x = real_sound(bundle, sound)
    whole = torch.from_numpy(x)
    codes_s, codes_b, _ = bundle.codec.encoder(whole, bundle.codec.encoder.initial_state(1))
    speech, background, _ = bundle.codec.decoder(codes_s, codes_b, torch.ones(2), bundle.codec.decoder.initial_state(1))
    voice, rest, _ = bundle.refiner(whole, speech, background, bundle.refiner.initial_state(1))
    encoder, decoder, refiner = (load_onnx(paths[role]) for role in ("encoder", "decoder", "refiner"))
    differing, worst_decoder, worst_refiner = 0, 0.0, 0.0
    refined = np.zeros_like(x)
    for hop in range(HOPS):
        span = slice(hop * c.hop, (hop + 1) * c.hop)
        mine = encoder.step(hop=x[:, span])
        for name, theirs in (("codes_s", codes_s), ("codes_b", codes_b)):
            differing += int((mine[name] != theirs[0, hop].numpy()).sum())
        # from here on both sides get torch's codes, so that a tie does not look like an error of the decoder
        out = decoder.step(
            codes_s=codes_s[0, hop].numpy(), codes_b=codes_b[0, hop].numpy(), gains=np.ones(2, np.float32)
        )
        worst_decoder = max(worst_decoder, float(np.abs(out["speech"] - speech[:, span].numpy()).max()))
        worst_decoder = max(worst_decoder, float(np.abs(out["background"] - background[:, span].numpy()).max()))
        fine = refiner.step(mixture=x[:, span], speech=out["speech"], background=out["background"])
        refined[:, span] = fine["refined_speech"] + fine["refined_background"]
        worst_refiner = max(worst_refiner, float(np.abs(fine["refined_speech"] - voice[:, span].numpy()).max()))
        worst_refiner = max(worst_refiner, float(np.abs(fine["refined_background"] - rest[:, span].numpy()).max()))
    lag = measured_lag(x[0], refined[0])
    _judge(bundle, whole, differing, worst_decoder, worst_refiner, lag)
    return ParityReport(HOPS, worst_decoder, worst_refiner, differing, lag)


def measured_lag(reference: np.ndarray, output: np.ndarray) -> int:
    """Samples by which `output` is behind `reference`, by correlation."""
    size = 2 * len(reference)
    spectrum = np.fft.rfft(output, size) * np.conj(np.fft.rfft(reference, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[: len(reference)]))


def _judge(bundle: Bundle, whole: torch.Tensor, differing: int, decoder: float, refiner: float, lag: int) -> None:
    if max(decoder, refiner) > TOLERANCE or not np.isfinite(decoder + refiner):
        raise ParityError(f"sound differs by {max(decoder, refiner):.1e} of full scale; {TOLERANCE:.0e} is allowed")
    if lag != bundle.config.refined_lag:
        raise ParityError(f"the refiner lags by {lag} samples where {bundle.config.refined_lag} are declared")
    ties = _ties(bundle, whole)
    if differing > ties:
        raise ParityError(f"{differing} codes differ where only {ties} choices are ties within {TIE:.0e}")


def _ties(bundle: Bundle, whole: torch.Tensor) -> int:
    """How many codes may differ: those chosen between two entries closer than TIE, and all stages behind such a one."""
    encoder = bundle.codec.encoder
    speech, background, _ = encoder.project(whole, encoder.initial_state(1))
    pairs = ((encoder.speech, speech[0]), (encoder.background, background[0]))
    return sum(quantizer.count_ties(frames, TIE) for quantizer, frames in pairs)
