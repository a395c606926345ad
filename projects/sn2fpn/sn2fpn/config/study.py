"""The keys that this project adds to Detectron2's, with their defaults."""

from __future__ import annotations

from typing import Any

__all__ = ["add_study_config"]


def add_study_config(cfg: Any) -> None:
    """Add the study's keys to a configuration (ours or Detectron2's own CfgNode)."""
    CN = type(cfg)
    # Pyramid with soft nearest-neighbour interpolation (SNI).
    cfg.MODEL.SNI = CN(
        dict(
            MODE="soft_nearest",  # | "authors_rcnn": the top-down path of the released R-CNN code
            ALPHA=None,  # factor on the upsampled map: None or "area" = (h*w)/(H*W), a fixed float, or "learned":
            #              one scalar per step, which starts at 1/4
            #              (None, since yacs lets both a string and a number replace nothing else)
            INTERP="nearest",  # | "bilinear"
            ORDER="pass_sum",  # what travels down: the plain sum, or "pass_smoothed" (after the 3x3 conv)
        )
    )
    # Independent hierarchy pyramid (IHP): a filter per level, no fusion.
    cfg.MODEL.IHP = CN(
        dict(
            FILTER="gsconve_c3",  # | "gsconve" | "conv3x3" (FPN without its top-down additions) | "bottleneck"
            DEPTHS=(
                1,
                1,
                2,
                3,
            ),  # blocks per level p2..p5 ("gsconve_c3" and "bottleneck"), or one number per level used
            NORM="BN",  # norm inside the filters: "BN" | "SyncBN" | "GN" | "FrozenBN" | ""
            NORM_EPS=1e-5,  # of that norm (the released YOLO trainer sets 1e-3 and momentum 0.03)
            NORM_MOMENTUM=0.1,
            AUX_KERNEL=3,  # first auxiliary conv of GSConvE-1: 3 (as released) | 1
        )
    )
    # Path aggregation (PANet): a bottom-up path after FPN's top-down one.
    cfg.MODEL.PAFPN = CN(
        dict(
            VARIANT="paper",  # | "openmmlab": no activations, and the raw sum travels up
            UPSAMPLE="nearest",  # | "sni": in the top-down path
        )
    )
    # PANet with SNI on the way down and ESD or GSConvE on the way up.
    cfg.MODEL.SAPAN = CN(
        dict(
            DOWN="esd1",  # | "esd2" | "gsconve1" | "conv": what halves the map on the way up
            VARIANT="paper",  # as in PAFPN
            UPSAMPLE="sni",  # | "nearest"
            NORM="BN",  # inside ESD and GSConvE, as in IHP
            NORM_EPS=1e-5,
            NORM_MOMENTUM=0.1,
        )
    )
    # Weighted bidirectional pyramid (EfficientDet).
    cfg.MODEL.BIFPN = CN(
        dict(
            NUM_CELLS=3,
            FUSION="fast",  # fast normalised | "softmax" | "sum" (no weights)
            SEPARABLE=True,  # False: dense 3x3 convs
            DOWN_PAD="same",  # max-pool pads 1 all around | "tf_same": TensorFlow's padding
            PER_EDGE_PROJ=False,  # True: a projection of the trunk's map for each node that reads it
            NORM="BN",
            NORM_EPS=1e-3,
            NORM_MOMENTUM=0.01,
            UPSAMPLE="nearest",  # | "sni"
        )
    )
    # Pyramid convolution over FPN (SEPC).
    cfg.MODEL.PCONV = CN(
        dict(
            NUM=4,  # modules in a row
            IBN=True,  # one batch norm over all levels after each module
            IBN_NORM="BN",  # | "SyncBN": statistics over all processes, too
            DEFORM="none",  # | "all": deformable taps at every level but the finest
            LEVELS=(),  # consecutive outputs, e.g. ("p3", "p4", "p5", "p6"); the others are FPN's. (): all
            EXTRA_CONV=False,  # True: one more 3x3 shared by the levels, after the modules
            UPSAMPLE="bilinear_corners",  # | "nearest" | "sni" | "bilinear"; "sni" also reaches the FPN below
        )
    )
    # Generalised pyramid (GiraffeDet).
    cfg.MODEL.GFPN = CN(
        dict(
            DEPTH=2,  # 2 * DEPTH - 1 fusion layers and an output layer
            INNER_CHANNELS=128,
            SKIP="log2n",  # | "dense": same-level links to all earlier layers
            SEPARABLE=False,  # True: separable 3x3 convs
            NORM="BN",
            UPSAMPLE="nearest",  # | "sni"
        )
    )
    # Feature-aligned pyramid (FaPN).
    cfg.MODEL.FAPN = CN(
        dict(
            GROUPS=8,  # of the deformable conv
            FSM=True,  # feature selection; False: plain laterals
            ALIGN="deform",  # | "none": the upsampled map is added as it is
            UPSAMPLE="bilinear",  # | "nearest" | "sni"
        )
    )
    # Extended-spatial-window downsampling (ESD) in the ResNet trunk.
    cfg.MODEL.ESD = CN(
        dict(
            ENABLED=False,
            MODE=0,  # 1: ESD-1 (light) | 2: ESD-2 (linear fusion) | 0: 1 for depths 18 and 34, else 2
            STEM="pool",  # replaces the stem's max-pool | "none": stem as it is | "deep": new, from scratch only
            STAGES=("res3", "res4", "res5"),  # stages whose first block downsamples with ESD
            SHORTCUT="strided",  # 1x1 stride 2 | "avg": 4x4/2 average pool, then 1x1 stride 1
            FUSE_INIT="auto",  # ESD-2: "dense_identity" starts as the plain conv | "default" (Kaiming)
            #                    "auto": dense_identity when MODEL.WEIGHTS is set, else default
        )
    )
    # Data sets of your own: [{NAME: …, FORMAT: coco, JSON: …, IMAGES: …},
    #                         {NAME: …, FORMAT: voc, ROOT: …, SPLIT: …, CLASSES: […]}]
    cfg.DATASETS.CUSTOM = []
    cfg.SOLVER.ACCUMULATE_STEPS = 1  # a step's IMS_PER_BATCH images are computed in this many parts
    cfg.SOLVER.AMP.DTYPE = "auto"  # "float16" | "bfloat16" | "auto": bfloat16 on CPU, float16 on GPU
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0  # the newest periodic checkpoints kept; 0: all
    cfg.SOLVER.EMA = CN(dict(ENABLED=False, DECAY=0.999))  # moving average of weights; evaluated when on
    # "coco" | "voc" (= "voc_11_point" for a set of 2007, else "voc_area") | "auto": the data set's own metric
    cfg.TEST.EVALUATOR = "auto"
    cfg.TEST.BEST_METRIC = ""  # e.g. "bbox/AP50": keeps model_best.pth; "": off
    cfg.TEST.PATIENCE = 0  # stop after this many evaluations without a better BEST_METRIC; 0: never
    cfg.TEST.VAL_LOSS = False  # losses on DATASETS.TEST at each evaluation
