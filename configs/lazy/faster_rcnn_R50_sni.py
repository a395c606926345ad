"""Faster R-CNN R50 with soft nearest-neighbour interpolation (SNI) in the top-down path.

COCO 1x; the twin of ../faster_rcnn_R50_sni.yaml.

    python train_net.py --config-file configs/lazy/faster_rcnn_R50_sni.py --num-gpus 4 optimizer.lr=0.01
"""

from .common.data import dataloader
from .common.models import faster_rcnn as model
from .common.models import sni as _sni
from .common.optim import sgd as optimizer
from .common.schedule import schedule_1x as lr_multiplier
from .common.train import train

model.backbone = _sni
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "output/lazy/faster_rcnn_R50_sni"
