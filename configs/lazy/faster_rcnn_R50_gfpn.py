"""Faster R-CNN with a ResNet-50 and the pyramid GFPN on COCO with the schedule "1x"."""

from .common import faster_rcnn

model, dataloader, optimizer, lr_multiplier, train = faster_rcnn("gfpn")
