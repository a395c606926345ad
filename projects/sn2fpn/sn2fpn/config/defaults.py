"""Every configuration key that Detectron2 has for R-CNN training, with its name and default.

A key is listed under both engines; values that only the `detectron2` engine can serve (other
meta-architectures, deformable trunks, keypoints, test-time augmentation …) are refused by the native
builders with a message. The study's own keys are in `study.py`.
"""

from __future__ import annotations

from .node import CfgNode as CN
from .study import add_study_config

__all__ = ["get_cfg"]


def get_cfg() -> CN:
    """A fresh configuration with all defaults: Detectron2's R-CNN keys plus the study's."""
    cfg = CN()
    cfg.VERSION = 2
    cfg.OUTPUT_DIR = "./output"
    cfg.SEED = -1  # negative: a random seed, printed at the start; otherwise everything is reproducible
    cfg.CUDNN_BENCHMARK = False
    cfg.FLOAT32_PRECISION = ""  # "" | "high" | "medium": torch.set_float32_matmul_precision
    cfg.VIS_PERIOD = 0
    cfg.MODEL = _model()
    cfg.INPUT = _input()
    cfg.DATASETS = CN(
        dict(
            TRAIN=(),
            TEST=(),
            PROPOSAL_FILES_TRAIN=(),
            PROPOSAL_FILES_TEST=(),
            PRECOMPUTED_PROPOSAL_TOPK_TRAIN=2000,
            PRECOMPUTED_PROPOSAL_TOPK_TEST=1000,
        )
    )
    cfg.DATALOADER = CN(
        dict(
            NUM_WORKERS=4,
            ASPECT_RATIO_GROUPING=True,  # batches hold either wide or tall images: less padding
            SAMPLER_TRAIN="TrainingSampler",  # | "RepeatFactorTrainingSampler"
            REPEAT_THRESHOLD=0.0,  # classes in fewer than this share of the images are repeated
            REPEAT_SQRT=True,
            FILTER_EMPTY_ANNOTATIONS=True,
        )
    )
    cfg.SOLVER = _solver()
    cfg.TEST = _test()
    add_study_config(cfg)
    return cfg


def _model() -> CN:
    return CN(
        dict(
            DEVICE="cuda",
            META_ARCHITECTURE="GeneralizedRCNN",
            WEIGHTS="",
            MASK_ON=False,
            KEYPOINT_ON=False,
            LOAD_PROPOSALS=False,
            PIXEL_MEAN=[103.530, 116.280, 123.675],  # in INPUT.FORMAT order
            PIXEL_STD=[1.0, 1.0, 1.0],
            BACKBONE=dict(NAME="build_resnet_backbone", FREEZE_AT=2),  # FREEZE_AT 1: stem; 2: stem and res2; …
            FPN=dict(IN_FEATURES=[], OUT_CHANNELS=256, NORM="", FUSE_TYPE="sum"),  # FUSE_TYPE "sum" | "avg"
            RESNETS=dict(
                DEPTH=50,
                OUT_FEATURES=["res4"],
                NUM_GROUPS=1,
                WIDTH_PER_GROUP=64,
                NORM="FrozenBN",  # "FrozenBN" | "BN" | "SyncBN" | "GN" | ""
                STRIDE_IN_1X1=True,  # stride 2 of a bottleneck in its 1x1 (MSRA weights) or in its 3x3
                RES5_DILATION=1,
                RES2_OUT_CHANNELS=256,  # 64 for depths 18 and 34
                STEM_OUT_CHANNELS=64,
                DEFORM_ON_PER_STAGE=[False, False, False, False],
                DEFORM_MODULATED=False,
                DEFORM_NUM_GROUPS=1,
            ),
            ANCHOR_GENERATOR=dict(
                NAME="DefaultAnchorGenerator",
                SIZES=[[32, 64, 128, 256, 512]],  # square root of the area, pixels of the input; a list per level
                ASPECT_RATIOS=[[0.5, 1.0, 2.0]],  # height / width
                ANGLES=[[-90, 0, 90]],
                OFFSET=0.0,  # of the first anchor's centre, in strides
            ),
            PROPOSAL_GENERATOR=dict(NAME="RPN", MIN_SIZE=0),
            RPN=dict(
                HEAD_NAME="StandardRPNHead",
                IN_FEATURES=["res4"],
                BOUNDARY_THRESH=-1,
                IOU_THRESHOLDS=[0.3, 0.7],
                IOU_LABELS=[0, -1, 1],
                BATCH_SIZE_PER_IMAGE=256,
                POSITIVE_FRACTION=0.5,
                BBOX_REG_LOSS_TYPE="smooth_l1",  # | "giou" | "diou" | "ciou"
                BBOX_REG_LOSS_WEIGHT=1.0,
                BBOX_REG_WEIGHTS=(1.0, 1.0, 1.0, 1.0),
                SMOOTH_L1_BETA=0.0,  # 0: plain L1
                LOSS_WEIGHT=1.0,
                PRE_NMS_TOPK_TRAIN=12000,  # per level
                PRE_NMS_TOPK_TEST=6000,
                POST_NMS_TOPK_TRAIN=2000,  # all levels together
                POST_NMS_TOPK_TEST=1000,
                NMS_THRESH=0.7,
                CONV_DIMS=[-1],  # -1: as many channels as the input
            ),
            ROI_HEADS=dict(
                NAME="Res5ROIHeads",
                NUM_CLASSES=80,
                IN_FEATURES=["res4"],
                IOU_THRESHOLDS=[0.5],
                IOU_LABELS=[0, 1],
                BATCH_SIZE_PER_IMAGE=512,
                POSITIVE_FRACTION=0.25,
                SCORE_THRESH_TEST=0.05,
                NMS_THRESH_TEST=0.5,
                PROPOSAL_APPEND_GT=True,
            ),
            ROI_BOX_HEAD=dict(
                NAME="",
                BBOX_REG_LOSS_TYPE="smooth_l1",  # | "giou" | "diou" | "ciou"
                BBOX_REG_LOSS_WEIGHT=1.0,
                BBOX_REG_WEIGHTS=(10.0, 10.0, 5.0, 5.0),
                SMOOTH_L1_BETA=0.0,
                POOLER_RESOLUTION=14,
                POOLER_SAMPLING_RATIO=0,  # 0: adaptive
                POOLER_TYPE="ROIAlignV2",  # aligned; "ROIAlign" is the older, half a pixel off
                NUM_FC=0,
                FC_DIM=1024,
                NUM_CONV=0,
                CONV_DIM=256,
                NORM="",
                CLS_AGNOSTIC_BBOX_REG=False,
                TRAIN_ON_PRED_BOXES=False,
                USE_SIGMOID_CE=False,
                USE_FED_LOSS=False,
                FED_LOSS_FREQ_WEIGHT_POWER=0.5,
                FED_LOSS_NUM_CLASSES=50,
            ),
            ROI_MASK_HEAD=dict(
                NAME="MaskRCNNConvUpsampleHead",
                POOLER_RESOLUTION=14,
                POOLER_SAMPLING_RATIO=0,
                NUM_CONV=0,
                CONV_DIM=256,
                NORM="",
                CLS_AGNOSTIC_MASK=False,
                POOLER_TYPE="ROIAlignV2",
            ),
        )
    )


def _input() -> CN:
    return CN(
        dict(
            FORMAT="BGR",
            MASK_FORMAT="polygon",  # | "bitmask"
            MIN_SIZE_TRAIN=(800,),  # short edge in pixels: one of these, or within this range
            MIN_SIZE_TRAIN_SAMPLING="choice",  # | "range"
            MAX_SIZE_TRAIN=1333,  # the long edge is never longer
            MIN_SIZE_TEST=800,  # 0: no resizing
            MAX_SIZE_TEST=1333,
            RANDOM_FLIP="horizontal",  # | "vertical" | "none"
            CROP=dict(
                ENABLED=False,
                TYPE="relative_range",  # | "relative" | "absolute" | "absolute_range"
                SIZE=[0.9, 0.9],  # (height, width): shares of the image, or pixels for the absolute types
            ),
        )
    )


def _solver() -> CN:
    return CN(
        dict(
            LR_SCHEDULER_NAME="WarmupMultiStepLR",  # | "WarmupCosineLR" | "WarmupStepWithFixedGammaLR"
            MAX_ITER=40000,
            BASE_LR=0.001,
            BASE_LR_END=0.0,  # cosine: the last learning rate
            MOMENTUM=0.9,
            NESTEROV=False,
            WEIGHT_DECAY=0.0001,
            WEIGHT_DECAY_NORM=0.0,  # for the affine parameters of norms
            WEIGHT_DECAY_BIAS=None,  # None: as WEIGHT_DECAY
            BIAS_LR_FACTOR=1.0,
            GAMMA=0.1,
            STEPS=(30000,),
            NUM_DECAYS=3,
            WARMUP_FACTOR=1.0 / 1000,
            WARMUP_ITERS=1000,
            WARMUP_METHOD="linear",  # | "constant"
            RESCALE_INTERVAL=False,
            CHECKPOINT_PERIOD=5000,
            IMS_PER_BATCH=16,  # over all processes
            REFERENCE_WORLD_SIZE=0,  # the number of GPUs the schedule was written for; 0: no scaling
            CLIP_GRADIENTS=dict(ENABLED=False, CLIP_TYPE="value", CLIP_VALUE=1.0, NORM_TYPE=2.0),
            AMP=dict(ENABLED=False),
        )
    )


def _test() -> CN:
    return CN(
        dict(
            EXPECTED_RESULTS=[],
            EVAL_PERIOD=0,  # iterations; 0: only at the end
            KEYPOINT_OKS_SIGMAS=[],
            DETECTIONS_PER_IMAGE=100,  # also the evaluators' limit
            AUG=dict(
                ENABLED=False, MIN_SIZES=(400, 500, 600, 700, 800, 900, 1000, 1100, 1200), MAX_SIZE=4000, FLIP=True
            ),
            PRECISE_BN=dict(ENABLED=False, NUM_ITER=200),
        )
    )
