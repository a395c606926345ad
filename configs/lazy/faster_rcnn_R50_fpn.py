"""Faster R-CNN R50 on COCO, schedule 1x. The pyramid is FPN, the baseline; the files of other pyramids change it.

python train_net.py --config-file configs/lazy/faster_rcnn_R50_fpn.py --num-gpus 4 optimizer.lr=0.01
"""

from .common.data import dataloader
from .common.models import faster_rcnn as model
from .common.optim import sgd as optimizer
from .common.schedule import schedule_1x as lr_multiplier
from .common.train import train

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "output/lazy/faster_rcnn_R50_fpn"
