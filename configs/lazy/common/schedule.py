"""Learning-rate schedules as functions of the progress; `steps` and `warmup_iters` count iterations."""

from fvcore.common.param_scheduler import CosineParamScheduler

from sn2fpn.config import LazyCall as L
from sn2fpn.engine.solver import multi_step, with_warmup


def multi_step_schedule(steps):
    """Return a schedule that warms up linearly and multiplies the learning rate by 0.1 at each step."""
    scheduler = L(multi_step)(steps=steps, max_iter="${..max_iter}", gamma=0.1)
    warmup = dict(warmup_iters=1000, warmup_factor=0.001, warmup_method="linear")
    return L(with_warmup)(scheduler=scheduler, max_iter="${train.max_iter}", **warmup)


schedule_1x = multi_step_schedule([60000, 80000])  # of 90000 iterations
schedule_3x = multi_step_schedule([210000, 250000])  # of 270000 iterations
cosine = multi_step_schedule([])
cosine.scheduler = L(CosineParamScheduler)(start_value=1.0, end_value=0.0)
