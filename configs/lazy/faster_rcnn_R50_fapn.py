from .faster_rcnn_R50_fpn import dataloader, lr_multiplier, model, optimizer, train

model.backbone._target_ = "sn2fpn.pyramids.FaPN"
train.output_dir = "output/lazy/faster_rcnn_R50_fapn"
