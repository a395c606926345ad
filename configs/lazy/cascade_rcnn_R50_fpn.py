"""Cascade R-CNN with a ResNet-50 and the pyramid FPN on COCO with the schedule "1x"."""

from .common import cascade_rcnn

model, dataloader, optimizer, lr_multiplier, train = cascade_rcnn("fpn")
