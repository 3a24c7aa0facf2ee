"""Whisper in CTranslate2, made from openai-whisper's model as it is loaded here; for models.runtimes to measure.

The package `ctranslate2` is no part of Sottovoce: it is used where it is installed. Its own format is written by its
own specification, in single precision; it turns to 8 bit what it multiplies by when it loads it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.types import ArtefactError, Samples
from engine.whisper_decoder import WhisperDecoder

PACKAGE = "ctranslate2"


def find_package() -> Any | None:
    """CTranslate2, or None where it is not installed."""
    try:
        return importlib.import_module(PACKAGE)
    except ImportError:
        return None


class Ct2Whisper:
    """Encodes and decodes greedily by the same rules as the decoder given, whose weights it takes (float ones).

    folder: empty, for the model as CTranslate2 reads it. Raises ArtefactError where CTranslate2 will not have it.
    """

    def __init__(self, package: Any, decoder: WhisperDecoder, folder: Path, language: str = "en") -> None:
        self.package, self.decoder = package, decoder
        tokenizer = decoder.tokenizer(language)
        self.prompt = list(tokenizer.sot_sequence_including_notimestamps)
        self.banned = [*tokenizer.non_speech_tokens, *range(tokenizer.eot + 1, decoder.model.dims.n_vocab)]
        self.end = tokenizer.eot
        try:
            write_model(package, decoder, folder, language)
            self.model = package.models.Whisper(
                str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=1
            )
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            version = getattr(package, "__version__", "of no known version")
            raise ArtefactError(f"CTranslate2 {version} does not take this model ({error}); try 4.8") from error

    def encode(self, samples: Samples) -> Any:
        """Sound [N] -> features, on as many positions as the shipped encoder has."""
        mel = self.decoder.mel(samples).contiguous().numpy()
        return self.model.encode(self.package.StorageView.from_array(mel))

    def decode(self, features: Any, most_tokens: int) -> list[int]:
        """The likeliest token each time, up to the end of the text or `most_tokens`."""
        answer = self.model.generate(
            features,
            [self.prompt],
            beam_size=1,
            suppress_blank=False,
            suppress_tokens=self.banned,
            max_length=2 * most_tokens,  # half of it may be prompt
        )
        return [token for token in answer[0].sequences_ids[0] if token != self.end]


# The file -------------------------------------------------------------------------------------------------------------


def write_model(package: Any, decoder: WhisperDecoder, folder: Path, language: str) -> None:
    """Write the model as CTranslate2's folder."""
    model, dims = decoder.model, decoder.model.dims
    spec = package.specs.WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    for to, conv in ((spec.encoder.conv1, model.encoder.conv1), (spec.encoder.conv2, model.encoder.conv2)):
        _linear(to, conv)
    for side, source in ((spec.encoder, model.encoder), (spec.decoder, model.decoder)):
        side.position_encodings.encodings = source.positional_embedding.detach()
        for to, block in zip(side.layer, source.blocks, strict=True):
            _block(to, block)
    _norm(spec.encoder.layer_norm, model.encoder.ln_post)
    _norm(spec.decoder.layer_norm, model.decoder.ln)
    spec.decoder.embeddings.weight = model.decoder.token_embedding.weight.detach()
    spec.decoder.projection.weight = model.decoder.token_embedding.weight.detach()
    special = {number: name for name, number in decoder.tokenizer(language).special_tokens.items()}
    spec.register_vocabulary([special.get(number, str(number)) for number in range(dims.n_vocab)])
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.alignment_heads = model.alignment_heads.indices().T.tolist()
    spec.validate()
    spec.save(str(folder))


def _block(to: Any, block: Any) -> None:
    """A layer of either side; the decoder's attends to the sound, too."""
    attention = block.attn
    _stacked(to.self_attention.linear[0], attention.query, attention.key, attention.value)
    _linear(to.self_attention.linear[1], attention.out)
    _norm(to.self_attention.layer_norm, block.attn_ln)
    if block.cross_attn is not None:
        _linear(to.attention.linear[0], block.cross_attn.query)
        _stacked(to.attention.linear[1], block.cross_attn.key, block.cross_attn.value)
        _linear(to.attention.linear[2], block.cross_attn.out)
        _norm(to.attention.layer_norm, block.cross_attn_ln)
    _linear(to.ffn.linear_0, block.mlp[0])
    _linear(to.ffn.linear_1, block.mlp[2])
    _norm(to.ffn.layer_norm, block.mlp_ln)


def _linear(to: Any, layer: nn.Linear | nn.Conv1d) -> None:
    to.weight, to.bias = layer.weight.detach(), _bias(layer)


def _norm(to: Any, layer: nn.LayerNorm) -> None:
    to.gamma, to.beta = layer.weight.detach(), layer.bias.detach()


def _stacked(to: Any, *layers: nn.Linear) -> None:
    """CTranslate2 multiplies by several projections at once."""
    to.weight = torch.cat([layer.weight.detach() for layer in layers])
    to.bias = torch.cat([_bias(layer) for layer in layers])


def _bias(layer: nn.Linear | nn.Conv1d) -> Tensor:
    return layer.bias.detach() if layer.bias is not None else torch.zeros(len(layer.weight))
