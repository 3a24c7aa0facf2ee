"""Three tiny networks that obey the artefacts' interface, for tests that must not depend on the trained ones.

Speech is 0.75 of the sound and background 0.25 of it, always. Tokens hold the peak of a hop and the means of 32
segments of 10 samples, coarse in stage 1 and, for speech, finer in stage 2. The lags are those of the real networks.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.artefacts import Models

HOP, LAG_ENCODER, LAG_TOKENS, LAG_REFINED = 320, 40, 80, 160
SEGMENTS, STAGES = 32, 2
ROWS = {"codes_s": 1 + STAGES * SEGMENTS, "codes_b": 1 + SEGMENTS}  # the background has one stage only
SPEECH_SHARE = 0.75
CODEC_ID = hashlib.sha256(b"tiny").hexdigest()


class _Graph:
    """Collects nodes; every method adds one and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: object, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        name = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def cut(self, x: str, start: int, stop: int, out: str | None = None) -> str:
        """x[..., start:stop] along axis 1."""
        ends = [self.const([v], "int64") for v in (start, stop, 1)]
        return self.op("Slice", x, *ends, out=out)

    def delay(self, x: str, state: str, lag: int) -> str:
        """x [C, HOP] delayed by `lag` through state_in.NAME [C, lag]."""
        both = self.op("Concat", f"state_in.{state}", x, axis=1)
        self.cut(both, HOP, HOP + lag, out=f"state_out.{state}")
        return self.cut(both, 0, HOP)


def _save(graph: _Graph, path: Path, role: str, inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> None:
    def info(name: str, shape: list[int]) -> onnx.ValueInfoProto:
        kind = TensorProto.INT64 if name.startswith("codes") else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        graph.nodes,
        role,
        [info(n, s) for n, s in inputs.items()],
        [info(n, s) for n, s in outputs.items()],
        graph.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    lag = {"encoder": 0, "decoder": LAG_TOKENS, "refiner": LAG_REFINED}[role]
    metadata = {
        "format_version": "1",
        "codec_id": CODEC_ID,
        "role": role,
        "sample_rate_hz": "16000",
        "hop_samples": str(HOP),
        "output_lag_samples": str(lag),
        "codes_s_sizes": json.dumps([64] * ROWS["codes_s"]),
        "codes_b_sizes": json.dumps([64] * ROWS["codes_b"]),
        "gain_rows": "1",
        "rows_per_stage": str(SEGMENTS),
        "stages": str(STAGES),
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _encoder(path: Path) -> None:
    g = _Graph()
    late = g.delay("hop", "late", LAG_ENCODER)
    for name, share in (("codes_s", SPEECH_SHARE), ("codes_b", 1.0 - SPEECH_SHARE)):
        part = g.op("Mul", late, g.const(share))
        peak = g.op("ReduceMax", g.op("Abs", part), keepdims=0)
        gain = g.op("Clip", g.op("Ceil", g.op("Mul", peak, g.const(63.0))), g.const(0.0), g.const(63.0))
        scale = g.op("Max", g.op("Div", gain, g.const(63.0)), g.const(1e-6))
        means = g.op(
            "ReduceMean", g.op("Reshape", part, g.const([SEGMENTS, -1], "int64")), g.const([1], "int64"), keepdims=0
        )
        unit = g.op("Div", means, scale)
        coarse = g.op("Round", g.op("Mul", unit, g.const(31.0)))
        rest = g.op("Sub", unit, g.op("Div", coarse, g.const(31.0)))
        fine = g.op("Round", g.op("Mul", rest, g.const(31.0 * 62.0)))
        rows = [g.op("Reshape", gain, g.const([1], "int64"))]
        rows += [g.op("Clip", g.op("Add", v, g.const(32.0)), g.const(1.0), g.const(63.0)) for v in (coarse, fine)]
        rows = rows if name == "codes_s" else rows[:2]
        g.op("Cast", g.op("Concat", *rows, axis=0), out=name, to=TensorProto.INT64)
    state = [1, LAG_ENCODER]
    outputs = {n: [k] for n, k in ROWS.items()} | {"state_out.late": state}
    _save(g, path, "encoder", {"hop": [1, HOP], "state_in.late": state}, outputs)


def _decoder(path: Path) -> None:
    g = _Graph()
    names = {"codes_s": "speech", "codes_b": "background"}
    for index, (codes, sound) in enumerate(names.items()):
        values = g.op("Cast", codes, to=TensorProto.FLOAT)
        there = g.op("Cast", g.op("GreaterOrEqual", codes, g.const(0, "int64")), to=TensorProto.FLOAT)
        centred = g.op("Mul", g.op("Sub", values, g.const([0.0] + [32.0] * (ROWS[codes] - 1))), there)
        gain, coarse, fine = (
            g.op("Slice", centred, g.const([a], "int64"), g.const([b], "int64"))
            for a, b in ((0, 1), (1, 1 + SEGMENTS), (1 + SEGMENTS, ROWS["codes_s"]))
        )
        unit = g.op("Div", coarse, g.const(31.0))
        if codes == "codes_s":
            unit = g.op("Add", unit, g.op("Div", fine, g.const(31.0 * 62.0)))
        scale = g.op("Mul", g.op("Div", gain, g.const(63.0)), g.op("Gather", "gains", g.const([index], "int64")))
        means = g.op("Reshape", g.op("Mul", unit, scale), g.const([SEGMENTS, 1], "int64"))
        held = g.op("Expand", means, g.const([SEGMENTS, HOP // SEGMENTS], "int64"))
        hop = g.op("Reshape", held, g.const([1, HOP], "int64"))
        g.op("Identity", g.delay(hop, f"late_{sound}", LAG_TOKENS - LAG_ENCODER), out=sound)
    states = {f"late_{sound}": [1, LAG_TOKENS - LAG_ENCODER] for sound in names.values()}
    inputs = {n: [k] for n, k in ROWS.items()} | {"gains": [2]} | {f"state_in.{n}": s for n, s in states.items()}
    outputs = {"speech": [1, HOP], "background": [1, HOP]} | {f"state_out.{n}": s for n, s in states.items()}
    _save(g, path, "decoder", inputs, outputs)


def _refiner(path: Path) -> None:
    """Splits the delayed mixture by the ratio of the decoded peaks, which is the true one up to quantisation."""
    g = _Graph()
    late = g.delay("mixture", "late", LAG_REFINED)
    peaks = [g.op("ReduceMax", g.op("Abs", n), keepdims=0) for n in ("speech", "background")]
    share = g.op("Div", peaks[0], g.op("Add", g.op("Add", *peaks), g.const(1e-6)))
    voice = g.op("Identity", g.op("Mul", late, share), out="refined_speech")
    g.op("Sub", late, voice, out="refined_background")
    state = [1, LAG_REFINED]
    inputs = {"mixture": [1, HOP], "speech": [1, HOP], "background": [1, HOP], "state_in.late": state}
    outputs = {"refined_speech": [1, HOP], "refined_background": [1, HOP], "state_out.late": state}
    _save(g, path, "refiner", inputs, outputs)


def build(folder: Path) -> Path:
    """Write the three files and their manifest into `folder`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for role, make in (("encoder", _encoder), ("decoder", _decoder), ("refiner", _refiner)):
        path = folder / f"{role}.onnx"
        make(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        tables.append(f'[[artefact]]\nname = "{role}"\nfile = "{path.name}"\nkind = "model"\nsha256 = "{digest}"\n')
    (folder / "manifest.toml").write_text("\n".join(tables), encoding="utf-8")
    return folder


def background_codes(models: Models, sound: np.ndarray) -> np.ndarray:
    """Background tokens [K, T] of sound [N], as a scene would hold them."""
    encoder = models.encoder.clone()
    hops = sound[: len(sound) // HOP * HOP].reshape(-1, 1, HOP).astype(np.float32)
    return np.stack([encoder.step(hop=hop)["codes_b"] for hop in hops], axis=1)
