from .common import cascade_rcnn

model, dataloader, optimizer, lr_multiplier, train = cascade_rcnn("sni")
