from .common import faster_rcnn

model, dataloader, optimizer, lr_multiplier, train = faster_rcnn("pconv")
