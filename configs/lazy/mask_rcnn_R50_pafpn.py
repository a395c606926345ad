from .mask_rcnn_R50_fpn import dataloader, lr_multiplier, model, optimizer, train

model.backbone._target_ = "sn2fpn.pyramids.PAFPN"
train.output_dir = "output/lazy/mask_rcnn_R50_pafpn"
