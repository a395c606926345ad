"""The quick start: a small detector with the SNI pyramid learns synthetic shapes from scratch, on a CPU in minutes.

This is the same run as ../quick/faster_rcnn_R18_sni_shapes.yaml.

    python train_net.py --config-file configs/lazy/quick_shapes.py train.max_iter=50 model.backbone.alpha=0.5
"""

from .common import multi_step_schedule
from .faster_rcnn_R50_sni import dataloader, model, optimizer, train

model.backbone.update(out_channels=64, norm="BN", alpha="area")
model.backbone.bottom_up.update(depth=18, norm="BN", stride_in_1x1=False, freeze_at=0)
model.proposal_generator.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
model.proposal_generator.update(batch_size_per_image=128, pre_nms_topk=[500, 300], post_nms_topk=[300, 200])
model.roi_heads.update(num_classes=6, batch_size_per_image=128)
model.roi_heads.box_head.fc_dims = [256, 256]
model.pixel_std = [57.375, 57.12, 58.395]

dataloader.train.dataset.names = "shapes_train"
dataloader.train.mapper.augmentations[0].update(short_edges=[192], max_size=320)
dataloader.train.update(total_batch_size=4, num_workers=1)
dataloader.test.dataset.names = "shapes_val"
dataloader.test.mapper.augmentations[0].update(short_edges=192, max_size=320)
dataloader.test.num_workers = 1

lr_multiplier = multi_step_schedule([540, 700])
lr_multiplier.warmup_iters = 100

train.update(
    init_checkpoint="", max_iter=780, eval_period=195, device="cpu", seed=1, output_dir="output/lazy/quick_shapes"
)
train.clip_gradients.update(enabled=True, clip_type="full_norm", clip_value=10.0)
