"""Optimizers. `params.model` is set to the model before the optimizer is built, as in Detectron2."""

from torch.optim import SGD, AdamW

from sn2fpn.config import LazyCall as L
from sn2fpn.engine.solver import parameter_groups

sgd = L(SGD)(
    params=L(parameter_groups)(base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0),
    lr=0.02,
    momentum=0.9,
    nesterov=False,
    weight_decay=1e-4,
    fused=True,
)

adamw = L(AdamW)(
    params=L(parameter_groups)(base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0),
    lr=1e-4,
    betas=[0.9, 0.999],
    weight_decay=0.1,
)
