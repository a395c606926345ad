"""The keys that this project adds to Detectron2's, with their defaults."""

from __future__ import annotations

from typing import Any

__all__ = ["add_study_config"]


def add_study_config(cfg: Any) -> None:
    """Add the study's keys to a configuration of ours or to one of Detectron2."""
    node = type(cfg)
    _add_pyramids(cfg.MODEL, node)

    # The trunk: "resnet" (MODEL.RESNETS), or a model of timm such as "timm/convnext_tiny".
    cfg.MODEL.BACKBONE.TRUNK = "resnet"

    # Extended-spatial-window downsampling (ESD) in the ResNet trunk.
    cfg.MODEL.ESD = esd = node()
    esd.ENABLED = False
    # 1 for ESD-1 (light), 2 for ESD-2 (linear fusion), 0 for ESD-1 at depths 18 and 34 and ESD-2 at the others.
    esd.MODE = 0
    # "pool" replaces the stem's max-pool, "none" keeps the stem as it is, and "deep" is a new stem for training
    # from scratch.
    esd.STEM = "pool"
    # The stages whose first block downsamples with ESD.
    esd.STAGES = ("res3", "res4", "res5")
    # "strided" is a 1x1 convolution of stride 2, "avg" a 4x4 average pool of stride 2 and then a 1x1 convolution.
    esd.SHORTCUT = "strided"
    # Fusion of ESD-2: "dense_identity" starts as the plain convolution, "default" is Kaiming-normal, and "auto" is
    # "dense_identity" when MODEL.WEIGHTS is set and "default" otherwise.
    esd.FUSE_INIT = "auto"

    # Whether torch.compile compiles the trunk and the pyramid of the native engine.
    cfg.MODEL.COMPILE = False
    # Whether the trunk and the pyramid of the native engine are run as CUDA graphs in training, which is faster for
    # small images. It has no effect on a CPU.
    cfg.MODEL.CUDA_GRAPHS = False

    # The side in pixels of a square box whose features are pooled from p4; a box of half the side has p3 (FPN, eq. 1).
    # Detectron2 always takes 224. A smaller number sends the boxes of small images to more than the finest maps.
    cfg.MODEL.ROI_HEADS.CANONICAL_BOX_SIZE = 224

    # Soft non-maximum suppression (Bodla et al., ICCV 2017) in evaluation and prediction: "" for plain suppression,
    # "gaussian", or "linear", which lowers scores from MODEL.ROI_HEADS.NMS_THRESH_TEST on.
    cfg.MODEL.ROI_HEADS.SOFT_NMS = node({"METHOD": "", "SIGMA": 0.5})

    _add_augmentation(cfg.INPUT, node)

    # Data sets of your own by name, or a list of them with their NAME, e.g.
    # {my_train: {ANNOTATIONS: data/train.json, IMAGES: data/images}, my_val: {ANNOTATIONS: data.yaml, SPLIT: val}}
    cfg.DATASETS.CUSTOM = []

    # "SGD" with MOMENTUM and NESTEROV, or "AdamW", which needs a smaller BASE_LR and a larger WEIGHT_DECAY than SGD.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # The images of one step (IMS_PER_BATCH) are computed in this many parts.
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    # Whether several processes divide the state of the optimizer among them, which saves memory (ZeRO).
    cfg.SOLVER.ZERO = False
    # "float16", "bfloat16", or "auto" for bfloat16 on a CPU and float16 on a GPU.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # The number of the newest periodic checkpoints that are kept, besides model_final.pth and model_best.pth; 0 keeps
    # all.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 3
    # The moving average of the weights, which is evaluated in their place when it is on.
    cfg.SOLVER.EMA = node({"ENABLED": False, "DECAY": 0.999})

    # "coco", "voc" ("voc_11_point" for a data set of 2007, otherwise "voc_area"), or "auto" for the data set's own.
    cfg.TEST.EVALUATOR = "auto"
    # The metric by which model_best.pth is kept, e.g. "bbox/AP50"; "" keeps none.
    cfg.TEST.BEST_METRIC = ""
    # Training stops after this many evaluations without a better BEST_METRIC; 0 never stops it.
    cfg.TEST.PATIENCE = 0
    # Whether each evaluation also computes the losses on DATASETS.TEST.
    cfg.TEST.VAL_LOSS = False

    # Whether metrics are also sent to Weights & Biases and to MLflow, which the libraries' own environment variables
    # configure, such as WANDB_PROJECT and MLFLOW_TRACKING_URI.
    cfg.LOGGING = node({"WANDB": False, "MLFLOW": False})


def _add_augmentation(inputs: Any, node: Any) -> None:
    """Add the groups of the augmentation in training, which are all off."""
    # Random brightness, contrast, saturation and hue, and a permutation of the channels: (min, max) of the factors,
    # and of the shift of the hue in turns. Each change happens with the probability PROB.
    inputs.PHOTOMETRIC = photometric = node()
    photometric.ENABLED = False
    photometric.BRIGHTNESS = (0.875, 1.125)
    photometric.CONTRAST = (0.5, 1.5)
    photometric.SATURATION = (0.5, 1.5)
    photometric.HUE = (-0.05, 0.05)
    photometric.PROB = 0.5

    # Large-scale jitter in place of MIN_SIZE_TRAIN and MAX_SIZE_TRAIN. The factor 1 fits a picture into SIZE (height,
    # width), which all images have after a crop or a padding.
    inputs.SCALE_JITTER = node({"ENABLED": False, "MIN_SCALE": 0.1, "MAX_SCALE": 2.0, "SIZE": (1024, 1024)})

    # The probability that an image is a mosaic of four pictures, and the mosaic's (height, width) before the resizing.
    inputs.MOSAIC = node({"PROB": 0.0, "SIZE": (800, 800)})

    # The probability that objects of another picture are pasted into an image, and that each of these is.
    inputs.COPY_PASTE = node({"PROB": 0.0, "SHARE": 0.5})

    # The share of its box that an object must keep after cropping, a mosaic or jitter, and of its mask where others
    # are pasted over it. Objects of which less is left are dropped; with 0, those of which nothing is left are.
    inputs.MIN_VISIBLE = 0.0

    # A function of your own, as "module:function" or "file.py:function", whose file --import names.
    inputs.FUNCTION = ""


def _add_pyramids(model: Any, node: Any) -> None:
    """Add one group per pyramid; `sn2fpn.pyramids.register_pyramid` says how keys become arguments.

    Wherever a group has UPSAMPLE, its value is a kind of `sn2fpn.layers.get_upsample`: "nearest", "bilinear",
    "bilinear_corners", "sni", "sni:learned", "sni:0.5" (any number), "deconv", "carafe", "dysample"
    or "dysample:dyscope".
    """
    # The feature pyramid network. Its other keys are Detectron2's, and most of them hold for all pyramids. This one
    # holds for pyramids without a group of their own.
    model.FPN.UPSAMPLE = "nearest"

    # The pyramid with soft nearest-neighbour interpolation (SNI).
    model.SNI = sni = node()
    # "soft_nearest", or "authors_rcnn" for the top-down path of the released R-CNN code.
    sni.MODE = "soft_nearest"
    # The factor on the upsampled map: "area" for (h * w) / (H * W), a number, or "learned" for one scalar per step,
    # which starts at 1/4. None stands for "area", because yacs would not let both a word and a number replace a word.
    sni.ALPHA = None
    # "nearest" or "bilinear".
    sni.INTERP = "nearest"
    # What travels down: "pass_sum" for the plain sum, or "pass_smoothed" for the map after its 3x3 convolution.
    sni.ORDER = "pass_sum"

    # The independent hierarchy pyramid (IHP), a filter per level without fusion.
    model.IHP = ihp = node()
    # "gsconve_c3", "gsconve", "conv3x3" (FPN without its top-down additions), or "bottleneck".
    ihp.FILTER = "gsconve_c3"
    # Blocks of p2 to p5 in "gsconve_c3" and "bottleneck", or one number for each level that is used.
    ihp.DEPTHS = (1, 1, 2, 3)
    # The norm inside the filters: "BN", "SyncBN", "GN", "FrozenBN", or "" for none. The released YOLO trainer sets
    # its eps to 1e-3 and its momentum to 0.03.
    ihp.NORM = "BN"
    ihp.NORM_EPS = 1e-5
    ihp.NORM_MOMENTUM = 0.1
    # The kernel of GSConvE-1's first auxiliary convolution: 3 (as released) or 1.
    ihp.AUX_KERNEL = 3

    # Path aggregation (PANet), a bottom-up path after FPN's top-down path.
    model.PAFPN = pafpn = node()
    # "paper", or "openmmlab" without activations and with the raw sum travelling up.
    pafpn.VARIANT = "paper"
    pafpn.UPSAMPLE = "nearest"

    # Path aggregation with SNI on the way down and ESD or GSConvE-1 on the way up (SA-PAN).
    model.SAPAN = sapan = node()
    # What halves the map on the way up: "esd1", "esd2", "gsconve1" or "conv".
    sapan.DOWN = "esd1"
    # "paper" or "openmmlab", as in PAFPN.
    sapan.VARIANT = "paper"
    sapan.UPSAMPLE = "sni"
    # The norm inside ESD and GSConvE-1, as in IHP.
    sapan.NORM = "BN"
    sapan.NORM_EPS = 1e-5
    sapan.NORM_MOMENTUM = 0.1

    # The weighted bidirectional pyramid of EfficientDet (BiFPN).
    model.BIFPN = bifpn = node()
    bifpn.NUM_CELLS = 3
    # "fast" (normalised), "softmax", or "sum" (without weights).
    bifpn.FUSION = "fast"
    # Whether the 3x3 convolutions are separable.
    bifpn.SEPARABLE = True
    # "same" pads the max-pool by 1 on all sides, "tf_same" pads it as TensorFlow does.
    bifpn.DOWN_PAD = "same"
    # Whether each node that reads a trunk map has a projection of its own.
    bifpn.PER_EDGE_PROJ = False
    bifpn.NORM = "BN"
    bifpn.NORM_EPS = 1e-3
    bifpn.NORM_MOMENTUM = 0.01
    bifpn.UPSAMPLE = "nearest"

    # Pyramid convolutions over FPN (PConv, from SEPC).
    model.PCONV = pconv = node()
    # The number of modules in the row.
    pconv.NUM = 4
    # Whether one batch norm over all levels follows each module, and its kind: "BN", or "SyncBN" for statistics over
    # all processes.
    pconv.IBN = True
    pconv.IBN_NORM = "BN"
    # "none", or "all" for deformable taps at every level but the finest.
    pconv.DEFORM = "none"
    # The consecutive outputs that the row runs over, e.g. ("p3", "p4", "p5", "p6"); the others are FPN's. The row runs
    # over all outputs when it is empty.
    pconv.LEVELS = ()
    # Whether one more 3x3 convolution, shared by the levels, follows the row.
    pconv.EXTRA_CONV = False
    # Also for the FPN below, which both kinds of bilinear interpolation leave at "nearest".
    pconv.UPSAMPLE = "bilinear_corners"

    # The generalised pyramid of GiraffeDet (GFPN).
    model.GFPN = gfpn = node()
    # D; there are 2 * D - 1 fusion layers and an output layer.
    gfpn.DEPTH = 2
    gfpn.INNER_CHANNELS = 128
    # "log2n", or "dense" for links of the same level to all earlier layers.
    gfpn.SKIP = "log2n"
    # Whether the 3x3 convolutions are separable.
    gfpn.SEPARABLE = False
    gfpn.NORM = "BN"
    gfpn.UPSAMPLE = "nearest"

    # The feature-aligned pyramid (FaPN).
    model.FAPN = fapn = node()
    # The number of groups of the deformable convolution.
    fapn.GROUPS = 8
    # Whether there is feature selection in place of plain laterals.
    fapn.FSM = True
    # "deform", or "none" to add the upsampled map as it is.
    fapn.ALIGN = "deform"
    fapn.UPSAMPLE = "bilinear"
