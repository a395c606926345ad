"""Trained detectors as files that run without this package: ONNX, PyTorch's exported programs and TorchScript.

`python -m sn2fpn.export` is the command line; docs/export.md describes the files.
"""
