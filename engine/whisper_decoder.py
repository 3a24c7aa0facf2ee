"""Whisper as captions run it: its checkpoints loaded, in 8 bit, and decoded; sound in, words with times out.

Decoding is our own, because two things here are not in openai-whisper's: the encoder runs on no more positions than
there is sound (it asks for 30 s always), and words that are final are given as a prefix.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import whisper
from torch import Tensor
from whisper.tokenizer import Tokenizer, get_tokenizer

from engine.adapter import Adapter
from engine.alignment import align
from engine.answers import Hypothesis
from engine.captions import Heard, loop_start, merge_pieces
from engine.ct2 import read_tensors
from engine.types import ArtefactError, Samples
from engine.vad import SAMPLE_RATE_HZ
from engine.whisper_beams import likeliest
from engine.whisper_blocks import BlockEncoder

# Silence after the speech: with less Whisper base loops; more where it loops even so. Loops take long, too.
TRAILING_S = (2.0, 8.0)
LOOP_CHECK_TOKENS = 8
FRAMES_PER_S = 50  # of the encoder's output
CUT_LETTER = "\ufffd"  # what a text ends with that was cut off amid the tokens of one letter


def read_model(path: Path, format: str) -> Any:
    """openai-whisper's model from a file; no pickled code is run. Raises what torch does where it is none."""
    if format == "pt":
        stored = torch.load(path, map_location="cpu", weights_only=True)
        dims, state = stored["dims"], stored["model_state_dict"]
    else:
        tensors, metadata = read_tensors(path)
        dims, state = json.loads(metadata["dims"]), {k: torch.from_numpy(v.astype("f4")) for k, v in tensors.items()}
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**dims))
    model.load_state_dict(state)
    return model


def load_model(path: Path, format: str, name: str) -> Any:
    """openai-whisper's model from a checked file. Raises ArtefactError."""
    try:
        model = read_model(path, format)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ArtefactError(f"{path} cannot be loaded; run `sottovoce models get {name}`") from error
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    return model.float().eval()


class _Int8Linear(torch.nn.Module):
    """A linear layer with 8-bit weights (one scale per output) and inputs rounded as they come: 3 to 7 times faster."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scales = weight.abs().amax(dim=1).clamp_min(1e-8) / 127
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch will drop this dtype one day; its version is pinned
            whole = torch.quantize_per_channel(weight.detach(), scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(whole, None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(torch.ops.quantized.linear_dynamic(x, self.packed))


def has_int8() -> bool:
    """Whether this build of torch can multiply 8-bit matrices."""
    return any(engine in torch.backends.quantized.supported_engines for engine in ("x86", "fbgemm", "qnnpack"))


def quantise(model: torch.nn.Module) -> None:
    """Turn every linear layer to 8 bit, in place."""
    for name, child in model.named_children():
        if isinstance(child, torch.nn.Linear):
            setattr(model, name, _Int8Linear(child.weight, child.bias))
        else:
            quantise(child)


def stem_of(encoder: Any, mel: Tensor) -> Tensor:
    """What the convolutions of openai-whisper's encoder make of mel [1, mels, 2 * frames]: [1, frames, width]."""
    x = F.gelu(encoder.conv1(mel))
    return torch.as_tensor(F.gelu(encoder.conv2(x)).permute(0, 2, 1))


def encode_mel(encoder: Any, mel: Tensor) -> Tensor:
    """openai-whisper's encoder on mel [1, mels, 2 * frames], on as many positions as that has -> [1, frames, width]."""
    x = stem_of(encoder, mel)
    x = x + encoder.positional_embedding[: x.shape[1]]
    for block in encoder.blocks:
        x = block(x)
    return torch.as_tensor(encoder.ln_post(x))


@dataclass
class Past:
    """What the text decoder remembers: keys and values of text so far, and of the sound (made once).

    [texts, heads, n, width / heads] each, of the sound one for all texts, which are of one length.
    """

    keys: list[Tensor]
    values: list[Tensor]
    sound_keys: list[Tensor]
    sound_values: list[Tensor]
    attention: list[Tensor]  # [heads, tokens, frames] for each call, of the first text, alignment heads alone

    @property
    def length(self) -> int:
        return self.keys[0].shape[-2] if self.keys else 0

    def fork(self) -> Past:
        """The same, which goes on by itself."""
        return Past([*self.keys], [*self.values], self.sound_keys, self.sound_values, [*self.attention])

    def pick(self, rows: Sequence[int]) -> None:
        """Go on with these of the texts, any of them more than once."""
        chosen = torch.tensor(rows)
        self.keys = [k.index_select(0, chosen) for k in self.keys]
        self.values = [v.index_select(0, chosen) for v in self.values]


class WhisperDecoder:
    """The likeliest words of a piece of sound after a forced prefix; word times from the cross attention.

    window: in place of the encoder's convolutions, where it is given: frames [n, width] of so many samples, which it
    finds by itself, and of so many seconds of silence after them; own: the blocks that these go through in place of the
    encoder's; block_size: as of `BlockEncoder`; adapter: what all frames go through before words are read from them.
    beams: texts that are followed side by side; in 8 bit they change each other a little, because the inputs of a call
    are rounded together.
    """

    beams = 5

    def __init__(
        self,
        model: Any,
        int8: bool = True,
        window: Callable[[int, float], Samples] | None = None,
        block_size: int | None = None,
        own: Any = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.model, self.window, self.adapter = model, window, adapter
        self.own = own if own is not None else model.encoder
        self.blocks: Callable[[Tensor], Tensor] = BlockEncoder(self.own, block_size)
        model.requires_grad_(False)
        self.own.requires_grad_(False)
        adapting = () if adapter is None else adapter.own.blocks
        self._to_vocabulary: torch.nn.Module | None = None
        if int8 and has_int8():
            self._to_vocabulary = _Int8Linear(model.decoder.token_embedding.weight, None)
            quantise(model.decoder)
            for block in {*model.encoder.blocks, *self.own.blocks, *adapting}:
                quantise(block.attn)  # the inner layer of the MLP too, not its outer one:
                block.mlp[0] = _Int8Linear(block.mlp[0].weight, block.mlp[0].bias)  # its outliers made Whisper loop
        self.heads = model.dims.n_text_head
        self.width = model.dims.n_text_state // self.heads
        self.align_heads: list[list[int]] = [[] for _ in range(model.dims.n_text_layer)]
        for layer, head in model.alignment_heads.indices().T.tolist():
            self.align_heads[layer].append(head)
        self._tokenizers: dict[str, Tokenizer] = {}
        self._bans: dict[str, Tensor] = {}

    def tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            model = self.model
            made = get_tokenizer(
                model.is_multilingual, num_languages=model.num_languages, language=language, task="transcribe"
            )
            ban = torch.zeros(model.dims.n_vocab)
            ban[list(made.non_speech_tokens)] = -math.inf
            ban[[*range(made.eot + 1, model.dims.n_vocab)]] = -math.inf
            self._tokenizers[language], self._bans[language] = made, ban
        return self._tokenizers[language]

    @torch.inference_mode()
    def transcribe(self, samples: Samples, prefix: Sequence[int], language: str | None, most_tokens: int) -> Hypothesis:
        """See engine.answers.Decoder. At most 29 s of sound."""
        frames = 0
        for trailing_s in TRAILING_S:
            features = self._features(samples, trailing_s)
            if features.shape[1] == frames:  # no more silence has room
                break
            frames = features.shape[1]
            spoken, chance = (language, 1.0) if language is not None else self.detect_language(features)
            answer, looped = self._answer(features, samples, prefix, spoken, most_tokens)
            if not looped:
                break
        return replace(answer, language_probability=chance)

    def _features(self, samples: Samples, trailing_s: float) -> Tensor:
        if self.window is None:
            frames = self.encode(samples, trailing_s)
        else:
            frames = self.blocks(torch.from_numpy(self.window(len(samples), trailing_s))[None])
        return frames if self.adapter is None else self.adapter(frames)

    def _answer(
        self, features: Tensor, samples: Samples, prefix: Sequence[int], language: str, most_tokens: int
    ) -> tuple[Hypothesis, bool]:
        """The answer, and whether its text goes round in a loop or fills all it may."""
        tokenizer = self.tokenizer(language)
        start = list(tokenizer.sot_sequence_including_notimestamps)
        past = self.begin(features)
        found = self.likeliest(past.fork(), [*start, *prefix], language, most_tokens)
        tokens, logprobs, no_speech = self._read(past, start, list(prefix), found, language)
        frames = min(features.shape[1], math.ceil(len(samples) / SAMPLE_RATE_HZ * FRAMES_PER_S))
        words = self._words(tokenizer, past, len(start), [*prefix, *tokens], logprobs, frames, len(prefix))
        mean = float(np.mean(logprobs)) if logprobs else 0.0
        looped = loop_start(tokens) is not None or 8 < most_tokens <= len(tokens)
        return Hypothesis(tuple(words), language, 1.0, no_speech, mean), looped

    def mel(self, samples: Samples, trailing_s: float = TRAILING_S[0]) -> Tensor:
        """Sound [N] -> what the encoder is given, [1, mels, 2 * frames], for the sound and silence after it."""
        hop = whisper.audio.HOP_LENGTH * 2
        length = len(samples) + int(trailing_s * SAMPLE_RATE_HZ)
        padded = np.pad(samples, (0, length + -length % hop - len(samples)))[: self.model.dims.n_audio_ctx * hop]
        mel = whisper.audio.log_mel_spectrogram(torch.from_numpy(padded), self.model.dims.n_mels)
        return torch.as_tensor(mel[None])

    def encode(self, samples: Samples, trailing_s: float = TRAILING_S[0]) -> Tensor:
        """Sound [N] -> features [1, frames, width] on as many positions as there is sound and silence after it."""
        return encode_mel(self.model.encoder, self.mel(samples, trailing_s))

    @torch.inference_mode()
    def frames(self, sound: Samples) -> Samples:
        """Sound [N] -> what the encoder makes of it, [frames, width], without silence after it."""
        found: Samples = self.encode(sound, trailing_s=0.0)[0].numpy()
        return found

    @torch.inference_mode()
    def stem(self, sound: Samples) -> Samples:
        """Sound [N] -> what the encoder's convolutions make of it, [frames, width], without silence after it."""
        found: Samples = stem_of(self.model.encoder, self.mel(sound, trailing_s=0.0))[0].numpy()
        return found

    def detect_language(self, features: Tensor) -> tuple[str, float]:
        """The likeliest language and its probability among all; English for an English-only model."""
        if not self.model.is_multilingual:
            return "en", 1.0
        tokenizer = self.tokenizer("en")
        logits = self.ahead(self.begin(features), torch.tensor([[tokenizer.sot]]), 1)[0, 0]
        codes = dict(zip(tokenizer.all_language_tokens, tokenizer.all_language_codes, strict=True))
        chances = logits[list(codes)].softmax(-1)
        best = int(chances.argmax())
        return list(codes.values())[best], float(chances[best])

    def begin(self, features: Tensor) -> Past:
        """What is remembered of features [1, frames, width], without text."""
        layers = [block.cross_attn for block in self.model.decoder.blocks]
        keys = [self._split(layer.key(features)) for layer in layers]
        values = [self._split(layer.value(features)) for layer in layers]
        return Past([], [], keys, values, [])

    def _split(self, x: Tensor) -> Tensor:
        """[B, n, heads * width] -> [B, heads, n, width]."""
        return torch.as_tensor(x.unflatten(2, (self.heads, self.width)).transpose(1, 2))

    def ahead(self, past: Past, tokens: Tensor, wanted: int) -> Tensor:
        """Feed tokens [B, n] of as many texts after the past; logits [B, wanted, vocabulary] after the last of them."""
        decoder, at, n = self.model.decoder, past.length, tokens.shape[1]
        x = decoder.token_embedding(tokens) + decoder.positional_embedding[at : at + n]
        mask = torch.full((n, at + n), -math.inf).triu_(at + 1) if n > 1 else None
        rows: list[Tensor] = []
        for index, block in enumerate(decoder.blocks):
            x = x + self._self_attention(block, block.attn_ln(x), past, index, mask)
            x = x + self._cross_attention(block, block.cross_attn_ln(x), past, index, rows)
            x = x + block.mlp(block.mlp_ln(x))
        past.attention.append(torch.cat(rows))
        last = decoder.ln(x)[:, n - wanted :]
        if self._to_vocabulary is not None:
            return torch.as_tensor(self._to_vocabulary(last))
        return torch.as_tensor(last @ decoder.token_embedding.weight.T)

    def _self_attention(self, block: Any, x: Tensor, past: Past, index: int, mask: Tensor | None) -> Tensor:
        key, value = self._split(block.attn.key(x)), self._split(block.attn.value(x))
        if index < len(past.keys):
            key = past.keys[index] = torch.cat([past.keys[index], key], dim=2)
            value = past.values[index] = torch.cat([past.values[index], value], dim=2)
        else:
            past.keys.append(key)
            past.values.append(value)
        mixed = F.scaled_dot_product_attention(self._split(block.attn.query(x)), key, value, attn_mask=mask)
        return torch.as_tensor(block.attn.out(mixed.transpose(1, 2).flatten(2)))

    def _cross_attention(self, block: Any, x: Tensor, past: Past, index: int, rows: list[Tensor]) -> Tensor:
        query = block.cross_attn.query(x).flatten(0, 1)[None]  # all texts hear the same sound: as if they were one
        scores = self._split(query)[0] @ past.sound_keys[index][0].transpose(1, 2) * self.width**-0.5
        if self.align_heads[index]:
            rows.append(scores[self.align_heads[index], : x.shape[1]])
        mixed = scores.softmax(-1) @ past.sound_values[index][0]
        return torch.as_tensor(block.cross_attn.out(mixed.transpose(0, 1).reshape(x.shape)))

    def likeliest(self, past: Past, given: Sequence[int], language: str, most_tokens: int) -> tuple[int, ...]:
        """Tokens of the likeliest text after those given, by beam search, the last of them the end where it has one.

        past: that of the sound, without text.
        """
        tokenizer, ban = self.tokenizer(language), self._bans[language]
        most = min(most_tokens, self.model.dims.n_text_ctx - len(given) - 1)

        def ahead(rows: list[int], tokens: Tensor) -> Tensor:
            if self.beams > 1:
                past.pick(rows)
            return (self.ahead(past, tokens, 1)[:, 0] + ban).log_softmax(-1)

        def loops(tokens: Sequence[int]) -> bool:
            return len(tokens) % LOOP_CHECK_TOKENS == 0 and loop_start(tokens) is not None

        first = (self.ahead(past, torch.tensor([list(given)]), 1)[0, 0] + ban).log_softmax(-1)
        return likeliest(ahead, first, tokenizer.eot, most, self.beams, loops)

    def _read(
        self, past: Past, start: list[int], prefix: list[int], found: Sequence[int], language: str
    ) -> tuple[list[int], list[float], float]:
        """Tokens that were found after the prefix without the end, the log probability of each and of the end where it
        was found, and the probability that nobody speaks."""
        tokenizer, ban = self.tokenizer(language), self._bans[language]
        tokens = [token for token in found if token != tokenizer.eot]
        fed = [*start, *prefix, *tokens]
        logits = self.ahead(past, torch.tensor([fed]), len(fed))[0]
        silent = logits[0].softmax(-1)[tokenizer.no_speech] if tokenizer.no_speech is not None else torch.zeros(())
        rows = (logits[len(start) + len(prefix) - 1 :][: len(found)] + ban).log_softmax(-1)
        return tokens, [float(row[token]) for row, token in zip(rows, found, strict=True)], float(silent)

    def _words(
        self,
        tokenizer: Tokenizer,
        past: Past,
        start: int,
        text: list[int],
        logprobs: list[float],
        frames: int,
        skip: int,
    ) -> list[Heard]:
        """Group the tokens after the first `skip` into words, with times in seconds from the attention."""
        if len(text) <= skip:
            return []
        attention = torch.cat(past.attention, dim=1)[:, start - 1 : start - 1 + len(text) + 1, :frames]
        edges = [*align(attention.numpy()), frames]  # one too many, for text that was cut off before its end
        texts, groups = tokenizer.split_to_word_tokens([*text[skip:], tokenizer.eot])
        pieces, at = [], skip
        for word, group in zip(texts[:-1], groups[:-1], strict=True):
            chance = math.exp(float(np.mean(logprobs[at - skip : at - skip + len(group)])))
            after = at + len(group)
            pieces.append(Heard(word, edges[at] / FRAMES_PER_S, edges[after] / FRAMES_PER_S, chance, tuple(group)))
            at = after
        return merge_pieces([piece for piece in pieces if CUT_LETTER not in piece.text])
