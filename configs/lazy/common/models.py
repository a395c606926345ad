"""Faster R-CNN with a ResNet-50 and FPN, with the values that are usual for COCO.

`model.backbone` is the pyramid and `model.backbone.bottom_up` its trunk. Another pyramid is another target:
`model.backbone._target_=sn2fpn.pyramids.SNIFPN`. Every argument that a class takes can be set, listed here or not.
"""

from sn2fpn.config import LazyCall as L
from sn2fpn.modeling import (
    RPN,
    AnchorGenerator,
    BoxCoder,
    BoxHead,
    BoxPredictor,
    GeneralizedRCNN,
    MaskHead,
    Matcher,
    ROIPooler,
    RPNHead,
    StandardROIHeads,
)
from sn2fpn.modeling.trunk import make_resnet
from sn2fpn.pyramids import FPN

_width = "${...backbone.out_channels}"

faster_rcnn = L(GeneralizedRCNN)(
    backbone=L(FPN)(
        bottom_up=L(make_resnet)(
            depth=50,
            norm="FrozenBN",
            stride_in_1x1=True,  # MSRA's weights have the stride there
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=2,
        ),
        out_channels=256,
    ),
    proposal_generator=L(RPN)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(RPNHead)(in_channels=_width, num_anchors=3),
        anchor_generator=L(AnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[4, 8, 16, 32, 64]
        ),
        matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality=True),
        box_coder=L(BoxCoder)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        pre_nms_topk=[2000, 1000],  # in training, in evaluation
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes=80,
        in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(ROIPooler)(output_size=7, strides=[4, 8, 16, 32]),
        box_head=L(BoxHead)(
            in_channels=_width, resolution="${..box_pooler.output_size}", conv_dims=[], fc_dims=[1024, 1024]
        ),
        box_predictor=L(BoxPredictor)(in_features="${..box_head.fc_dims.1}", num_classes="${..num_classes}"),
        box_coder=L(BoxCoder)(weights=[10.0, 10.0, 5.0, 5.0]),
        matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1]),
        batch_size_per_image=512,
        score_thresh=0.05,
        nms_thresh=0.5,
        max_detections=100,
    ),
    pixel_mean=[103.530, 116.280, 123.675],  # in the order of input_format
    pixel_std=[1.0, 1.0, 1.0],
    input_format="BGR",
)

mask_branch = dict(  # the arguments that make the heads those of Mask R-CNN
    mask_pooler=L(ROIPooler)(output_size=14, strides=[4, 8, 16, 32]),
    mask_head=L(MaskHead)(
        in_channels=_width, num_classes="${..num_classes}", conv_dims=[256, 256, 256, 256], deconv_dim=256
    ),
)
