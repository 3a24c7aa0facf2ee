"""Whisper's blocks some frames at a time: streamed equals whole, and no frame hears beyond its block."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from whisper.model import AudioEncoder

from engine.types import ArtefactError
from engine.whisper_blocks import BLOCK, BlockEncoder, merged, run_blocks

WIDTH = 16


@pytest.fixture
def encoder() -> AudioEncoder:
    torch.manual_seed(2)
    made = AudioEncoder(8, 60, WIDTH, 2, 3).eval()
    made.requires_grad_(False)
    return made


def frames(count: int, seed: int = 1) -> Tensor:
    return torch.randn(1, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def whispers(encoder: AudioEncoder, x: Tensor) -> Tensor:
    """As openai-whisper has it."""
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_post(x)


def test_one_block_is_what_whisper_makes_of_it(encoder: AudioEncoder) -> None:
    x = frames(BLOCK)
    torch.testing.assert_close(run_blocks(encoder, x).left, whispers(encoder, x))


def test_a_frame_hears_its_block_and_those_before_it(encoder: AudioEncoder) -> None:
    x = frames(3 * BLOCK + 20)
    other = x.clone()
    place = 2 * BLOCK + 50
    other[:, place] = 3.0 * frames(1, seed=9)[:, 0]
    changed = (run_blocks(encoder, x).left - run_blocks(encoder, other).left).abs().amax(2)[0] > 1e-7
    assert not changed[: 2 * BLOCK].any()
    assert changed[2 * BLOCK :].float().mean() > 0.95


@pytest.mark.parametrize("cuts", [(30, 180, 400, 470), (150, 300, 450), (470,), (449, 450, 451)])
def test_what_comes_piece_by_piece_is_as_it_is_at_once(encoder: AudioEncoder, cuts: tuple[int, ...]) -> None:
    x, blocks = frames(470), BlockEncoder(encoder)
    for count in cuts:
        torch.testing.assert_close(blocks(x[:, :count]), run_blocks(encoder, x[:, :count]).left)


def test_blocks_that_were_there_are_not_made_again(encoder: AudioEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(encoder: AudioEncoder, x: Tensor, *past: object) -> object:
        made.append(x.shape[1])
        return run_blocks(encoder, x, *past)  # type: ignore[arg-type]

    monkeypatch.setattr("engine.whisper_blocks.run_blocks", counted)
    x, blocks = frames(2 * BLOCK + 50), BlockEncoder(encoder)
    blocks(x[:, : BLOCK + 50])
    blocks(x)
    again = blocks(x[:, : 2 * BLOCK])  # whole blocks alone, all of them known
    torch.testing.assert_close(again, run_blocks(encoder, x[:, : 2 * BLOCK]).left)
    assert made == [BLOCK + 50, BLOCK + 50]


def test_a_window_may_be_heard_whole(encoder: AudioEncoder) -> None:
    blocks = BlockEncoder(encoder, None)
    for x in (frames(3 * BLOCK), frames(3 * BLOCK + 20)):
        torch.testing.assert_close(blocks(x), whispers(encoder, x))


def test_another_window_is_heard_anew_from_where_it_differs(encoder: AudioEncoder) -> None:
    blocks = BlockEncoder(encoder)
    long, other = frames(400), frames(400, seed=3)
    for x in (long, other, torch.cat([other[:, :200], long[:, :190]], dim=1), long[:, :40]):
        torch.testing.assert_close(blocks(x), run_blocks(encoder, x).left)


def own_of(encoder: AudioEncoder, count: int) -> dict[str, np.ndarray]:
    """What makes the first blocks what they are already."""
    found = {}
    for name, weight in encoder.named_parameters():
        if not name.startswith(("blocks.", "ln_post")) or (
            name.startswith("blocks.") and int(name.split(".")[1]) >= count
        ):
            continue
        if weight.ndim == 2:
            layer = name.removesuffix("weight")
            found[f"{layer}down"] = np.zeros((2, weight.shape[1]), np.float32)
            found[f"{layer}up"] = np.zeros((2, weight.shape[0]), np.float32)
        else:
            found[name] = weight.numpy().copy()
    return found


def test_the_bridges_blocks_are_the_encoders_with_what_is_added(encoder: AudioEncoder) -> None:
    x, own = frames(40), own_of(encoder, 3)
    torch.testing.assert_close(run_blocks(merged(encoder, own), x).left, run_blocks(encoder, x).left)
    random = np.random.default_rng(1)
    down, up = (random.standard_normal((2, width)).astype(np.float32) for width in (WIDTH, 4 * WIDTH))
    own |= {"blocks.1.mlp.0.down": down, "blocks.1.mlp.0.up": up}
    grown = merged(encoder, own)
    added = grown.blocks[1].mlp[0].weight - encoder.blocks[1].mlp[0].weight
    torch.testing.assert_close(added, torch.from_numpy(up.T @ down), atol=1e-5, rtol=1e-5)
    assert torch.equal(grown.blocks[2].mlp[0].weight, encoder.blocks[2].mlp[0].weight)


def test_there_may_be_fewer_blocks_than_in_the_encoder(encoder: AudioEncoder) -> None:
    assert len(merged(encoder, own_of(encoder, 2)).blocks) == 2


@pytest.mark.parametrize("change", ["left out", "of another width"])
def test_blocks_that_do_not_fit_are_refused(encoder: AudioEncoder, change: str) -> None:
    own = own_of(encoder, 3)
    if change == "left out":
        del own["blocks.2.attn_ln.weight"]
    else:
        own["blocks.0.attn.query.up"] = np.zeros((2, 2 * WIDTH), np.float32)
    with pytest.raises(ArtefactError, match="another Whisper"):
        merged(encoder, own)
