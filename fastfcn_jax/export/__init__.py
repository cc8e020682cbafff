"""Models as files for other programs: StableHLO, ONNX, TFLite, safetensors."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "export", "export")
