"""The quick start with the pyramid of my_pyramid.py, as a LazyConfig.

python train_net.py --import examples/my_pyramid.py --config-file examples/my_lazy_config.py train.max_iter=50
"""

from my_pyramid import GatedFPN

from sn2fpn.config import LazyCall as L

from ..configs.lazy.quick_shapes import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(GatedFPN)(bottom_up=model.backbone.bottom_up, out_channels=64, norm="BN", per_channel=False)
train.output_dir = "output/lazy/mine_shapes"
