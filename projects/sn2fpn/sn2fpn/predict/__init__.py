"""Using a trained model: `python -m sn2fpn.predict`, and `Predictor` (also `sn2fpn.modeling.Predictor`).

Nothing is imported here, so that `--help` needs no torch.
"""
