"""Set by ear what training sets by error: `python -m models.calibrate --checkpoint OUT.npz`.

A gain that is trained on errors takes a little too much where it is unsure, and trusts the decoded voice too little,
because its waveform is another one though it sounds like the voice. So the logits of the gain are scaled and moved,
and those of the decoded voice's share are moved. The trust in the second opinion is learned from few clips and too sure
of itself, so its logits are scaled and moved, too. What scores best is kept, on validation mixtures, half of them with
other talkers as noise, as long as noise alone stays out. The numbers go into the refiner's own weights.

Only the small checkpoint changes. Training that is resumed goes on from where it was and writes the small one anew, so
this is done once after every training.
"""

from __future__ import annotations

import argparse
import copy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.types import SottovoceError
from models.ablate import JUDGED, SEED, heard, judged, scores
from models.checkpoint import Bundle, load_bundle, save_bundle
from models.feed import training_clips, voices
from models.mixing import MixConfig, Mixer
from models.refiner import Refiner
from models.shards import load
from models.train import aligned, refine

HUSHED_DB = -40.0  # noise alone is to come out no louder; 5 dB more cost a point


@dataclass(frozen=True)
class Setting:
    """What is done to the logits: gain -> scale * gain + gain_shift, share -> share + share_shift, trust as gain."""

    scale: float
    gain_shift: float
    share_shift: float
    trust_scale: float = 1.0
    trust_shift: float = 0.0


SETTINGS = tuple(
    Setting(scale, gain_shift, share_shift)
    for scale, gain_shift in ((1.0, 0.0), (0.85, 0.25))
    for share_shift in (0.0, 0.35, 0.7)
)
SETTINGS += (Setting(1.0, 0.0, 0.0, trust_scale=0.3, trust_shift=-0.35),)


@torch.no_grad()
def apply(refiner: Refiner, setting: Setting) -> None:
    """Change the refiner's weights as the setting says."""
    bins = refiner.slope.shape[0]
    refiner.slope.mul_(setting.scale)
    refiner.output.weight[:bins].mul_(setting.scale)
    refiner.offset[0].mul_(setting.scale).add_(setting.gain_shift)
    refiner.offset[1].add_(setting.share_shift)
    refiner.output.weight[2 * bins :].mul_(setting.trust_scale)
    refiner.offset[2].mul_(setting.trust_scale).add_(setting.trust_shift)


def worth(found: dict[str, float]) -> float:
    """One figure from four: a point of PESQ or OVRL counts as much as 5 dB or a fifth of ESTOI."""
    return found["pesq"] + found["ovrl"] + found["gain_db"] / 5 + 5 * found["estoi"]


@torch.no_grad()
def noise_left_db(bundle: Bundle, clips: Tensor) -> float:
    """Level of what comes out against what went in, mean over clips without a voice [SIGNALS, B, N]."""
    mixture, _, speech, background = clips
    refined, _ = refine(bundle, mixture, speech, background)
    left = aligned(refined, bundle.config.refined_lag).square().mean(1)
    return float(10 * torch.log10(left / mixture.square().mean(1) + 1e-12).mean())


@torch.no_grad()
def noises(bundle: Bundle) -> Tensor:
    """Validation clips without a voice."""
    mixer = Mixer(voices("validation"), load("validation", "background"), MixConfig(no_voice=1.0, babble=0.0), SEED)
    return heard(bundle, *map(torch.from_numpy, mixer.batch(JUDGED)))


def measured(bundle: Bundle, tests: dict[str, Tensor], alone: Tensor) -> tuple[float, str]:
    """The worth of a setting, and the figures behind it."""
    rows = {kind: scores(bundle, clips) for kind, clips in tests.items()}
    left = noise_left_db(bundle, alone)
    figures = "  ".join(f"{kind} {name} {v:.3f}" for kind, row in rows.items() for name, v in row.items())
    value = sum(worth(row) for row in rows.values()) / len(rows) - max(0.0, left - HUSHED_DB) / 5
    return value, f"{figures}  noise alone {left:.1f}"


def choose(checkpoint: Path) -> Setting:
    """Try every setting on a checkpoint and write the best into it. Raises OSError or ValueError for a wrong file."""
    bundle = load_bundle(checkpoint)
    bundle.snap()
    tests, alone, trained = judged(bundle), noises(bundle), bundle.refiner
    best, highest = SETTINGS[0], float("-inf")
    for setting in SETTINGS:
        bundle.refiner = copy.deepcopy(trained)
        apply(bundle.refiner, setting)
        value, figures = measured(bundle, tests, alone)
        print(f"{value:.3f}  {setting}  {figures}", flush=True)
        if value > highest:
            best, highest = setting, value
    bundle = load_bundle(checkpoint)
    apply(bundle.refiner, best)
    save_bundle(bundle, checkpoint)
    return best


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.calibrate", description="Set the refiner's balance by ear.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what training wrote; changed in place")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        training_clips()  # said at once where there is no sound yet
        best = choose(args.checkpoint)
    except (SottovoceError, OSError, ValueError) as problem:
        print(f"{args.checkpoint}: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {args.checkpoint} is as it was", file=sys.stderr)
        return 130
    print(f"kept {best}; next:  python -m models.export --checkpoint {args.checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
