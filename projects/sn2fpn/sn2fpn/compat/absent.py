"""The answers to names and arguments that Detectron2 has and this package does not offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ArgumentError, did_you_mean, shortened

__all__ = ["WRITERS", "absent", "refuse"]

_ROTATED = "rotated boxes are not served; install Detectron2 and train with --engine detectron2"
_KEYPOINTS = "keypoints are not served; install Detectron2 and train with --engine detectron2"
_OTHER_MODELS = "this model is not served; install Detectron2 and train with --engine detectron2"
_PANOPTIC = "semantic and panoptic segmentation are not served; install Detectron2 for them"
_LOOP = "the loop is that of DefaultTrainer in sn2fpn.compat.engine; override its methods or register hooks"
_HAS_HOOK = "DefaultTrainer does this itself; override build_hooks to change the list of hooks"
WRITERS = "DefaultTrainer writes metrics.json and TensorBoard's files itself; read trainer.storage for the metrics"
_REGISTRY = "the parts of a model are chosen in sn2fpn.modeling; a pyramid of your own is registered by sn2fpn.pyramids"
_WORKERS = "build_detection_train_loader(dataset=…, mapper=…, total_batch_size=…) makes the whole loader"
_SAMPLER = "give an iterable of indices as `sampler`, or use TrainingSampler or RepeatFactorTrainingSampler"
_EXPORT = "python -m sn2fpn.export writes ONNX, exported programs and TorchScript; --help shows how"
_GEOMETRY = "write an Augmentation that returns a Transform of your own, with apply_image and apply_coords"
_BOX_BRANCH = "the layers are sn2fpn.modeling.BoxHead and BoxPredictor, and their losses are those of StandardROIHeads"
_FILES = "paths are plain ones, and weights are read by sn2fpn.checkpoint"

_ADVICE: dict[str, str] = {
    **dict.fromkeys(("RotatedBoxes", "RotatedAnchorGenerator", "Box2BoxTransformRotated", "ROIAlignRotated"), _ROTATED),
    **dict.fromkeys(("nms_rotated", "batched_nms_rotated", "pairwise_iou_rotated", "RROIHeads", "RRPN"), _ROTATED),
    **dict.fromkeys(("RotatedCOCOEvaluator", "RotatedFastRCNNOutputLayers", "RotationTransform"), _ROTATED),
    **dict.fromkeys(("Keypoints", "heatmaps_to_keypoints", "KRCNNConvDeconvUpsampleHead"), _KEYPOINTS),
    **dict.fromkeys(("create_keypoint_hflip_indices", "transform_keypoint_annotations"), _KEYPOINTS),
    **dict.fromkeys(("RetinaNet", "FCOS", "PanopticFPN", "SemanticSegmentor", "ProposalNetwork"), _OTHER_MODELS),
    **dict.fromkeys(("Res5ROIHeads", "MViT", "SwinTransformer", "ViT", "RegNet"), _OTHER_MODELS),
    **dict.fromkeys(("projects", "tracking"), _OTHER_MODELS),
    **dict.fromkeys(("SemSegEvaluator", "COCOPanopticEvaluator", "CityscapesInstanceEvaluator"), _PANOPTIC),
    **dict.fromkeys(("load_sem_seg", "register_coco_panoptic", "register_coco_panoptic_separated"), _PANOPTIC),
    **dict.fromkeys(("SimpleTrainer", "AMPTrainer", "TrainerBase", "create_ddp_model"), _LOOP),
    **dict.fromkeys(("LRScheduler", "IterationTimer", "PeriodicWriter", "PeriodicCheckpointer"), _HAS_HOOK),
    "BestCheckpointer": "set cfg.TEST.BEST_METRIC, for instance to 'bbox/AP50'; the best model is model_best.pth",
    "PreciseBN": "precise batch norm is not served; SyncBN or GN in MODEL.RESNETS.NORM are",
    "TorchProfiler": "use torch.profiler around DefaultTrainer.run_step",
    "AutogradProfiler": "use torch.profiler around DefaultTrainer.run_step",
    **dict.fromkeys(("JSONWriter", "TensorboardXWriter", "CommonMetricPrinter", "EventWriter"), WRITERS),
    "default_writers": WRITERS,
    **dict.fromkeys(("META_ARCH_REGISTRY", "BACKBONE_REGISTRY", "PROPOSAL_GENERATOR_REGISTRY"), _REGISTRY),
    **dict.fromkeys(("ROI_HEADS_REGISTRY", "ROI_BOX_HEAD_REGISTRY", "ROI_MASK_HEAD_REGISTRY"), _REGISTRY),
    **dict.fromkeys(("ANCHOR_GENERATOR_REGISTRY", "RPN_HEAD_REGISTRY"), _REGISTRY),
    **dict.fromkeys(("DatasetFromList", "MapDataset", "ToIterableDataset", "AspectRatioGroupedDataset"), _WORKERS),
    **dict.fromkeys(("build_batch_data_loader", "GroupedBatchSampler", "worker_init_reset_seed"), _WORKERS),
    **dict.fromkeys(("RandomSubsetTrainingSampler", "WeightedTrainingSampler"), _SAMPLER),
    **dict.fromkeys(("export", "TracingAdapter", "scripting_with_instances", "dump_torchscript_IR"), _EXPORT),
    **dict.fromkeys(("RandomRotation", "RandomExtent", "ExtentTransform", "PadTransform"), _GEOMETRY),
    **dict.fromkeys(("FixedSizeCrop", "MinIoURandomCrop", "ResizeScale", "RandomResize", "ScaleTransform"), _GEOMETRY),
    "RandomCrop_CategoryAreaConstraint": _PANOPTIC,
    **dict.fromkeys(("FastRCNNOutputLayers", "FastRCNNConvFCHead", "FastRCNNOutputs"), _BOX_BRANCH),
    "MaskRCNNConvUpsampleHead": "the mask branch is sn2fpn.modeling.MaskHead",
    **dict.fromkeys(("DeformConv", "ModulatedDeformConv"), "the layer is sn2fpn.layers.DeformConv2d"),
    **dict.fromkeys(("ASPP", "DepthwiseSeparableConv2d"), _PANOPTIC),
    **dict.fromkeys(("PathManager", "PathHandler", "ModelCatalog"), _FILES),
    **dict.fromkeys(("upgrade_config", "downgrade_config"), "files have VERSION 2; convert older ones with Detectron2"),
    "set_global_cfg": "hand the configuration to the function that needs it",
    "global_cfg": "hand the configuration to the function that needs it",
    "align_and_update_state_dicts": "sn2fpn.checkpoint.load_weights matches the names of a file with those of a model",
    "VideoVisualizer": "python -m sn2fpn.predict draws on videos; --help shows how",
    "get_default_optimizer_params": "sn2fpn.engine.solver.parameter_groups makes the groups of parameters",
    "reduce_param_groups": "sn2fpn.engine.solver makes one group per learning rate and weight decay",
    "LVISEvaluator": "LVIS is scored by COCO's metric; use COCOEvaluator",
    "register_lvis_instances": "set cfg.DATASETS.CUSTOM = {'mine': {'FORMAT': 'lvis', 'ANNOTATIONS': …, 'IMAGES': …}}",
    "load_proposals_into_dataset": "precomputed proposals are not served; the RPN makes them",
    "collect_env_info": "sn2fpn.engine.environment describes the installation",
}


def absent(module: str, offered: Iterable[str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__`, which says what to use in place of a name that is not offered.

    Args:
        module: the name of the module.
        offered: the names that the module has.

    Returns:
        A function that raises ImportError for a name, because `from module import name` hides any other error. Names
        with a leading underscore, after which Python and its tools look by themselves, raise AttributeError.
    """
    offered = list(offered)

    def __getattr__(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        advice = f": {_ADVICE[name]}" if name in _ADVICE else did_you_mean(name, offered)
        raise ImportError(f"{module} does not offer {name}{advice}", name=module)

    return __getattr__


def refuse(neutral: Any, **given: Any) -> None:
    """Raise an ArgumentError for the first argument that has another value than the one that asks for nothing."""
    for argument, value in given.items():
        if value is not neutral and not (type(value) is type(neutral) and value == neutral):
            raise ArgumentError(argument, f"expected {neutral!r}, found {shortened(repr(value))}")
