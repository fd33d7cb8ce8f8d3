"""Training of Parallel Token Prediction drafters (arXiv 2512.21323) and export to ONNX."""
