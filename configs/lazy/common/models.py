"""Detectors: Faster and Mask R-CNN, and the trunk and the pyramids to put into them. Values are those of COCO.

A file imports what it needs and changes it; `model.backbone` is the pyramid, `model.backbone.bottom_up` its trunk.
"""

from copy import deepcopy

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
from sn2fpn.pyramids import FPN, IHP, SNIFPN

resnet = L(make_resnet)(
    depth=50,
    norm="FrozenBN",
    stride_in_1x1=True,  # where MSRA's weights have it
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=2,
)

fpn = L(FPN)(bottom_up=resnet, out_channels=256, norm="", fuse_type="sum")

sni = L(SNIFPN)(
    bottom_up=resnet, out_channels=256, norm="", mode="soft_nearest", alpha="area", interp="nearest", order="pass_sum"
)

ihp = L(IHP)(
    bottom_up=resnet,
    out_channels=256,
    norm="",
    filter_name="gsconve_c3",
    depths=[1, 1, 2, 3],
    filter_norm="BN",
    aux_kernel=3,
)

faster_rcnn = L(GeneralizedRCNN)(
    backbone=fpn,
    proposal_generator=L(RPN)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(RPNHead)(in_channels="${...backbone.out_channels}", num_anchors=3),
        anchor_generator=L(AnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]],
            aspect_ratios=[[0.5, 1.0, 2.0]],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality=True),
        box_coder=L(BoxCoder)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=[2000, 1000],  # (training, evaluation)
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes=80,
        in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(ROIPooler)(output_size=7, strides=[4, 8, 16, 32], sampling_ratio=0, aligned=True),
        box_head=L(BoxHead)(
            in_channels="${...backbone.out_channels}",
            resolution="${..box_pooler.output_size}",
            conv_dims=[],
            fc_dims=[1024, 1024],
        ),
        box_predictor=L(BoxPredictor)(in_features="${..box_head.fc_dims.1}", num_classes="${..num_classes}"),
        box_coder=L(BoxCoder)(weights=[10.0, 10.0, 5.0, 5.0]),
        matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1]),
        batch_size_per_image=512,
        positive_fraction=0.25,
        score_thresh=0.05,
        nms_thresh=0.5,
        max_detections=100,
    ),
    pixel_mean=[103.530, 116.280, 123.675],  # in the order of input_format
    pixel_std=[1.0, 1.0, 1.0],
    input_format="BGR",
)

mask_rcnn = deepcopy(faster_rcnn)
mask_rcnn.roi_heads.mask_pooler = L(ROIPooler)(output_size=14, strides=[4, 8, 16, 32], sampling_ratio=0, aligned=True)
mask_rcnn.roi_heads.mask_head = L(MaskHead)(
    in_channels="${...backbone.out_channels}",
    num_classes="${..num_classes}",
    conv_dims=[256, 256, 256, 256],
    deconv_dim=256,
)
