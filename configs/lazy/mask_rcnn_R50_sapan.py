"""Mask R-CNN with a ResNet-50 and the pyramid SA-PAN on COCO with the schedule "1x"."""

from .common import mask_rcnn

model, dataloader, optimizer, lr_multiplier, train = mask_rcnn("sapan")
