"""Checkpoints in the forms that are deployed: ONNX graphs and quantized weights."""
