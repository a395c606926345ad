"""Detectron2's configuration keys for training R-CNNs, with their names and defaults.

The keys exist under both engines. The native engine refuses values that only Detectron2 can serve, such as other
meta-architectures, deformable trunks and keypoints. The study's own keys are in `study.py`.
"""

from __future__ import annotations

from .node import CfgNode as CN
from .study import add_study_config

__all__ = ["get_cfg"]


def get_cfg() -> CN:
    """Return a new configuration with the defaults of Detectron2's R-CNN keys and of the study's keys.

    It is closed: `CfgNode` says how to add keys of your own.
    """
    cfg = CN()
    cfg.VERSION = 2
    cfg.OUTPUT_DIR = "./output"
    cfg.SEED = -1  # a negative seed stands for a random one; with any other seed, a run on CPUs is reproducible
    cfg.CUDNN_BENCHMARK = False
    cfg.FLOAT32_PRECISION = ""  # of GPUs: "highest", "high", "medium", or "" for that of torch
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
            ASPECT_RATIO_GROUPING=True,  # a batch holds either wide or tall images, which saves padding
            SAMPLER_TRAIN="TrainingSampler",  # or "RepeatFactorTrainingSampler"
            REPEAT_THRESHOLD=0.0,  # classes that are in a smaller share of the images are repeated
            REPEAT_SQRT=True,
            FILTER_EMPTY_ANNOTATIONS=True,
        )
    )
    cfg.SOLVER = _solver()
    cfg.TEST = _test()
    add_study_config(cfg)
    return cfg.close()


def _model() -> CN:
    return CN(
        dict(
            DEVICE="cuda",
            META_ARCHITECTURE="GeneralizedRCNN",
            WEIGHTS="",
            MASK_ON=False,
            KEYPOINT_ON=False,
            LOAD_PROPOSALS=False,
            PIXEL_MEAN=[103.530, 116.280, 123.675],  # in the order of INPUT.FORMAT
            PIXEL_STD=[1.0, 1.0, 1.0],
            BACKBONE=dict(NAME="build_resnet_backbone", FREEZE_AT=2),  # FREEZE_AT 1 freezes the stem, 2 also res2, …
            FPN=dict(IN_FEATURES=[], OUT_CHANNELS=256, NORM="", FUSE_TYPE="sum"),  # FUSE_TYPE "sum" or "avg"
            RESNETS=dict(
                DEPTH=50,
                OUT_FEATURES=["res4"],
                NUM_GROUPS=1,
                WIDTH_PER_GROUP=64,
                NORM="FrozenBN",  # "FrozenBN", "BN", "SyncBN", "GN" or ""
                STRIDE_IN_1X1=True,  # a bottleneck's stride is in its 1x1 conv (as MSRA's weights have it) or 3x3 conv
                RES5_DILATION=1,
                RES2_OUT_CHANNELS=256,  # 64 for depths 18 and 34
                STEM_OUT_CHANNELS=64,
                DEFORM_ON_PER_STAGE=[False, False, False, False],
                DEFORM_MODULATED=False,
                DEFORM_NUM_GROUPS=1,
            ),
            ANCHOR_GENERATOR=dict(
                NAME="DefaultAnchorGenerator",
                SIZES=[
                    [32, 64, 128, 256, 512]
                ],  # square roots of the areas in pixels of the input, in one list per level
                ASPECT_RATIOS=[[0.5, 1.0, 2.0]],  # height / width
                ANGLES=[[-90, 0, 90]],
                OFFSET=0.0,  # offset of the first anchor's centre, in strides
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
                BBOX_REG_LOSS_TYPE="smooth_l1",  # or "giou", "diou", "ciou"
                BBOX_REG_LOSS_WEIGHT=1.0,
                BBOX_REG_WEIGHTS=(1.0, 1.0, 1.0, 1.0),
                SMOOTH_L1_BETA=0.0,  # 0 gives plain L1
                LOSS_WEIGHT=1.0,
                PRE_NMS_TOPK_TRAIN=12000,  # for each level
                PRE_NMS_TOPK_TEST=6000,
                POST_NMS_TOPK_TRAIN=2000,  # for all levels together
                POST_NMS_TOPK_TEST=1000,
                NMS_THRESH=0.7,
                CONV_DIMS=[-1],  # -1 stands for the channels of the input
            ),
            ROI_HEADS=dict(
                NAME="Res5ROIHeads",  # the native engine has "StandardROIHeads" and "CascadeROIHeads"
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
                BBOX_REG_LOSS_TYPE="smooth_l1",  # or "giou", "diou", "ciou"
                BBOX_REG_LOSS_WEIGHT=1.0,
                BBOX_REG_WEIGHTS=(10.0, 10.0, 5.0, 5.0),
                SMOOTH_L1_BETA=0.0,
                POOLER_RESOLUTION=14,
                POOLER_SAMPLING_RATIO=0,  # 0 is adaptive
                POOLER_TYPE="ROIAlignV2",  # or the older "ROIAlign", which is half a pixel off
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
            ROI_BOX_CASCADE_HEAD=dict(  # of CascadeROIHeads: one entry for each stage
                BBOX_REG_WEIGHTS=((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
                IOUS=(0.5, 0.6, 0.7),  # the first is that of ROI_HEADS.IOU_THRESHOLDS
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
            MASK_FORMAT="polygon",  # or "bitmask"
            MIN_SIZE_TRAIN=(800,),  # the short edge in pixels: one of these, or a number in this range
            MIN_SIZE_TRAIN_SAMPLING="choice",  # or "range"
            MAX_SIZE_TRAIN=1333,  # the largest long edge in pixels
            MIN_SIZE_TEST=800,  # 0 does not resize
            MAX_SIZE_TEST=1333,
            RANDOM_FLIP="horizontal",  # or "vertical", "none"
            CROP=dict(
                ENABLED=False,
                TYPE="relative_range",  # or "relative", "absolute", "absolute_range"
                SIZE=[0.9, 0.9],  # height and width, as shares of the image or, for the absolute types, in pixels
            ),
        )
    )


def _solver() -> CN:
    return CN(
        dict(
            LR_SCHEDULER_NAME="WarmupMultiStepLR",  # or "WarmupCosineLR", "WarmupStepWithFixedGammaLR"
            MAX_ITER=40000,
            BASE_LR=0.001,
            BASE_LR_END=0.0,  # the last learning rate of WarmupCosineLR
            MOMENTUM=0.9,
            NESTEROV=False,
            WEIGHT_DECAY=0.0001,
            WEIGHT_DECAY_NORM=0.0,  # of the affine parameters of norms; None stands for WEIGHT_DECAY
            WEIGHT_DECAY_BIAS=None,  # None stands for WEIGHT_DECAY
            BIAS_LR_FACTOR=1.0,
            GAMMA=0.1,
            STEPS=(30000,),
            NUM_DECAYS=3,
            WARMUP_FACTOR=1.0 / 1000,
            WARMUP_ITERS=1000,
            WARMUP_METHOD="linear",  # or "constant"
            RESCALE_INTERVAL=False,
            CHECKPOINT_PERIOD=5000,
            IMS_PER_BATCH=16,  # over all processes
            REFERENCE_WORLD_SIZE=0,  # the number of GPUs that the schedule is for; 0 does not scale it
            CLIP_GRADIENTS=dict(ENABLED=False, CLIP_TYPE="value", CLIP_VALUE=1.0, NORM_TYPE=2.0),
            AMP=dict(ENABLED=False),
        )
    )


def _test() -> CN:
    return CN(
        dict(
            EXPECTED_RESULTS=[],
            EVAL_PERIOD=0,  # in iterations; with 0, the model is evaluated at the end only
            KEYPOINT_OKS_SIGMAS=[],
            DETECTIONS_PER_IMAGE=100,  # also the limit of the evaluators; -1 for no limit
            AUG=dict(
                ENABLED=False, MIN_SIZES=(400, 500, 600, 700, 800, 900, 1000, 1100, 1200), MAX_SIZE=4000, FLIP=True
            ),
            PRECISE_BN=dict(ENABLED=False, NUM_ITER=200),
        )
    )
