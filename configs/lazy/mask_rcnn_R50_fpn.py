"""Mask R-CNN R50-FPN, the baseline.

COCO 1x; the twin of ../mask_rcnn_R50_fpn.yaml.

    python train_net.py --config-file configs/lazy/mask_rcnn_R50_fpn.py --num-gpus 4 optimizer.lr=0.01
"""

from .common.data import dataloader
from .common.models import mask_rcnn as model
from .common.optim import sgd as optimizer
from .common.schedule import schedule_1x as lr_multiplier
from .common.train import train

dataloader.train.mapper.mask_format = "polygon"
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "output/lazy/mask_rcnn_R50_fpn"
