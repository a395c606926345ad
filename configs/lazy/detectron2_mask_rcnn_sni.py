"""Detectron2's own Mask R-CNN R50, from the LazyConfigs of its model zoo, with SNI in place of FPN.

python <detectron2>/tools/lazyconfig_train_net.py --config-file configs/lazy/detectron2_mask_rcnn_sni.py
"""

from detectron2 import model_zoo

from sn2fpn.pyramids import SNIFPN

_zoo = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, optimizer = _zoo.model, _zoo.dataloader, _zoo.optimizer
lr_multiplier, train = _zoo.lr_multiplier, _zoo.train

model.backbone._target_ = SNIFPN  # takes FPN's arguments: bottom_up, in_features, out_channels
model.backbone.alpha = "area"
del model.backbone.top_block  # SNIFPN subsamples p6 itself
train.output_dir = "output/lazy/detectron2_mask_rcnn_sni"
