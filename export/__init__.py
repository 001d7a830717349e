"""Build side: checkpoint -> two ONNX graphs -> engine directory."""
