"""Optimizers. The trainer sets `params.model` to the model before it builds one, as Detectron2's trainer does."""

from torch.optim import SGD, AdamW

from sn2fpn.config import LazyCall as L
from sn2fpn.engine.solver import parameter_groups


def _optimizer(kind, **arguments):
    params = L(parameter_groups)(base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0)
    return L(kind)(params=params, **arguments)


sgd = _optimizer(SGD, lr=0.02, momentum=0.9, nesterov=False, weight_decay=1e-4, fused=True)
adamw = _optimizer(AdamW, lr=1e-4, betas=[0.9, 0.999], weight_decay=0.1)
