"""What to use in place of names and modules of Detectron2 that this package does not offer."""

from __future__ import annotations

__all__ = ["ADVICE", "MODULES", "WRITERS"]

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
_VIEWS = "sn2fpn.modeling.build_multi_view makes the detector with test-time augmentation"
_SCHEDULE = "build_lr_scheduler makes the schedule that cfg.SOLVER describes"
_FILES = "paths are plain ones, and weights are read by sn2fpn.checkpoint"

ADVICE: dict[str, str] = {
    **dict.fromkeys(("RotatedBoxes", "RotatedAnchorGenerator", "Box2BoxTransformRotated", "ROIAlignRotated"), _ROTATED),
    **dict.fromkeys(("nms_rotated", "batched_nms_rotated", "pairwise_iou_rotated", "RROIHeads", "RRPN"), _ROTATED),
    **dict.fromkeys(("RotatedCOCOEvaluator", "RotatedFastRCNNOutputLayers", "RotationTransform"), _ROTATED),
    **dict.fromkeys(("Keypoints", "heatmaps_to_keypoints", "KRCNNConvDeconvUpsampleHead"), _KEYPOINTS),
    **dict.fromkeys(("create_keypoint_hflip_indices", "transform_keypoint_annotations"), _KEYPOINTS),
    "filter_images_with_few_keypoints": _KEYPOINTS,
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
    **dict.fromkeys(("ANCHOR_GENERATOR_REGISTRY", "RPN_HEAD_REGISTRY", "Registry"), _REGISTRY),
    "Backbone": "a pyramid of your own is a sn2fpn.pyramids.Pyramid, and a trunk is any module with output_shape()",
    **dict.fromkeys(("ResNet", "build_resnet_backbone"), "sn2fpn.modeling.trunk.make_resnet makes a ResNet"),
    **dict.fromkeys(("GeneralizedRCNNWithTTA", "DatasetMapperTTA"), _VIEWS),
    **dict.fromkeys(("WarmupMultiStepLR", "WarmupCosineLR"), _SCHEDULE),
    "FlopCountAnalysis": "sn2fpn.modeling.analysis.analyze counts the operations and the parameters of a model",
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
"""For a name of Detectron2, what takes its place."""

MODULES: dict[str, str] = {
    "checkpoint.c2_model_loading": "align_and_update_state_dicts",
    "checkpoint.catalog": "ModelCatalog",
    "checkpoint.detection_checkpoint": "DetectionCheckpointer",
    "config.compat": "upgrade_config downgrade_config",
    "config.config": "CfgNode configurable get_cfg global_cfg set_global_cfg",
    "config.instantiate": "instantiate",
    "config.lazy": "LazyCall LazyConfig",
    "data.common": "AspectRatioGroupedDataset DatasetFromList MapDataset ToIterableDataset",
    "data.datasets.coco": "load_coco_json load_sem_seg register_coco_instances",
    "data.datasets.coco_panoptic": "register_coco_panoptic register_coco_panoptic_separated",
    "data.datasets.lvis": "register_lvis_instances",
    "data.datasets.pascal_voc": "CLASS_NAMES load_voc_instances register_pascal_voc",
    "data.datasets.register_coco": "register_coco_instances register_coco_panoptic_separated",
    "data.samplers.distributed_sampler": "InferenceSampler RandomSubsetTrainingSampler RepeatFactorTrainingSampler "
    "TrainingSampler",
    "data.samplers.grouped_batch_sampler": "GroupedBatchSampler",
    "engine.train_loop": "AMPTrainer HookBase SimpleTrainer TrainerBase",
    "evaluation.cityscapes_evaluation": "CityscapesInstanceEvaluator",
    "evaluation.coco_evaluation": "COCOEvaluator",
    "evaluation.evaluator": "DatasetEvaluator DatasetEvaluators inference_on_dataset",
    "evaluation.lvis_evaluation": "LVISEvaluator",
    "evaluation.panoptic_evaluation": "COCOPanopticEvaluator",
    "evaluation.pascal_voc_evaluation": "PascalVOCDetectionEvaluator",
    "evaluation.rotated_coco_evaluation": "RotatedCOCOEvaluator",
    "evaluation.sem_seg_evaluation": "SemSegEvaluator",
    "evaluation.testing": "print_csv_format verify_results",
    "export": "TracingAdapter dump_torchscript_IR scripting_with_instances",
    "layers.aspp": "ASPP",
    "layers.batch_norm": "FrozenBatchNorm2d get_norm",
    "layers.blocks": "DepthwiseSeparableConv2d",
    "layers.deform_conv": "DeformConv ModulatedDeformConv",
    "layers.losses": "ciou_loss diou_loss",
    "layers.mask_ops": "paste_masks_in_image",
    "layers.nms": "batched_nms batched_nms_rotated nms_rotated",
    "layers.roi_align": "ROIAlign",
    "layers.roi_align_rotated": "ROIAlignRotated",
    "layers.shape_spec": "ShapeSpec",
    "layers.wrappers": "Conv2d cat nonzero_tuple",
    "model_zoo.model_zoo": "get get_checkpoint_url get_config get_config_file",
    "modeling.anchor_generator": "ANCHOR_GENERATOR_REGISTRY DefaultAnchorGenerator RotatedAnchorGenerator "
    "build_anchor_generator",
    "modeling.backbone": "BACKBONE_REGISTRY Backbone FPN MViT RegNet ResNet SwinTransformer ViT build_backbone "
    "build_resnet_backbone",
    "modeling.box_regression": "Box2BoxTransform Box2BoxTransformRotated",
    "modeling.matcher": "Matcher",
    "modeling.meta_arch": "FCOS GeneralizedRCNN META_ARCH_REGISTRY PanopticFPN ProposalNetwork RetinaNet "
    "SemanticSegmentor build_model",
    "modeling.poolers": "ROIPooler",
    "modeling.postprocessing": "detector_postprocess",
    "modeling.proposal_generator": "PROPOSAL_GENERATOR_REGISTRY RPN RPN_HEAD_REGISTRY build_proposal_generator",
    "modeling.roi_heads": "CascadeROIHeads FastRCNNConvFCHead FastRCNNOutputLayers MaskRCNNConvUpsampleHead "
    "ROI_BOX_HEAD_REGISTRY ROI_HEADS_REGISTRY ROI_MASK_HEAD_REGISTRY StandardROIHeads build_roi_heads",
    "modeling.test_time_augmentation": "DatasetMapperTTA GeneralizedRCNNWithTTA",
    "solver.build": "build_lr_scheduler build_optimizer get_default_optimizer_params reduce_param_groups",
    "solver.lr_scheduler": "LRMultiplier WarmupCosineLR WarmupMultiStepLR WarmupParamScheduler",
    "structures.boxes": "BoxMode Boxes pairwise_intersection pairwise_ioa pairwise_iou",
    "structures.image_list": "ImageList",
    "structures.instances": "Instances",
    "structures.keypoints": "Keypoints heatmaps_to_keypoints",
    "structures.masks": "BitMasks PolygonMasks polygons_to_bitmask",
    "structures.rotated_boxes": "RotatedBoxes",
    "utils.analysis": "FlopCountAnalysis",
    "utils.collect_env": "collect_env_info",
    "utils.file_io": "PathHandler PathManager",
    "utils.registry": "Registry",
    "utils.video_visualizer": "VideoVisualizer",
}
"""For a module of Detectron2 that is not mirrored, its names that are offered elsewhere or that have advice above."""
