from .common import mask_rcnn

model, dataloader, optimizer, lr_multiplier, train = mask_rcnn("sni")
