"""Mask R-CNN R50 on COCO, schedule 1x. The pyramid is FPN, the baseline; the files of other pyramids change it.

python train_net.py --config-file configs/lazy/mask_rcnn_R50_fpn.py --num-gpus 4 optimizer.lr=0.01
"""

from .common.models import mask_branch as _mask_branch
from .faster_rcnn_R50_fpn import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.update(_mask_branch)
dataloader.train.mapper.mask_format = "polygon"
train.output_dir = "output/lazy/mask_rcnn_R50_fpn"
