"""Models as files for other programs: StableHLO, ONNX, TFLite, safetensors."""
