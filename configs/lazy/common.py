"""Faster, Mask and Cascade R-CNN R50 on COCO (1x), for the other files to choose a pyramid and to change values.

`model.backbone` is the pyramid and `model.backbone.bottom_up` its trunk. Every argument that a class takes can be set,
whether it is listed here or not.
"""

from torch.optim import SGD, AdamW

from sn2fpn import modeling
from sn2fpn.config import LazyCall as L
from sn2fpn.data import DatasetMapper, get_dataset_dicts, make_test_loader, make_train_loader
from sn2fpn.data.augmentation import RandomFlip, ResizeShortestEdge
from sn2fpn.engine.solver import CosineParamScheduler, multi_step, parameter_groups, with_warmup
from sn2fpn.evaluation import COCOEvaluator
from sn2fpn.modeling.trunk import make_resnet
from sn2fpn.pyramids import FPN, PYRAMIDS

_width = "${...backbone.out_channels}"

model = L(modeling.GeneralizedRCNN)(
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
    proposal_generator=L(modeling.RPN)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(modeling.RPNHead)(in_channels=_width, num_anchors=3),
        anchor_generator=L(modeling.AnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[4, 8, 16, 32, 64]
        ),
        matcher=L(modeling.Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality=True),
        box_coder=L(modeling.BoxCoder)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        pre_nms_topk=[2000, 1000],  # in training, in evaluation
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
    ),
    roi_heads=L(modeling.StandardROIHeads)(
        num_classes=80,
        in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(modeling.ROIPooler)(output_size=7, strides=[4, 8, 16, 32]),
        box_head=L(modeling.BoxHead)(
            in_channels=_width,
            resolution="${..box_pooler.output_size}",
            fc_dims=[1024, 1024],  # with another number of layers, set box_predictor.in_features to the last width
        ),
        box_predictor=L(modeling.BoxPredictor)(in_features="${..box_head.fc_dims.1}", num_classes="${..num_classes}"),
        box_coder=L(modeling.BoxCoder)(weights=[10.0, 10.0, 5.0, 5.0]),
        matcher=L(modeling.Matcher)(thresholds=[0.5], labels=[0, 1]),
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
    mask_pooler=L(modeling.ROIPooler)(output_size=14, strides=[4, 8, 16, 32]),
    mask_head=L(modeling.MaskHead)(in_channels=_width, num_classes="${..num_classes}", conv_dims=[256] * 4),
)


def cascade_heads(heads):
    """Return RoI heads of three stages in place of `heads`, which have one; Cascade R-CNN's IoUs and weights."""
    one_stage = ("_target_", "box_head", "box_predictor", "box_coder", "matcher")
    weights = [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [30.0, 30.0, 15.0, 15.0]]
    return L(modeling.CascadeROIHeads)(
        **{name: value for name, value in heads.items() if name not in one_stage},
        box_heads=[
            L(modeling.BoxHead)(
                in_channels="${model.backbone.out_channels}",
                resolution="${model.roi_heads.box_pooler.output_size}",
                fc_dims=[1024, 1024],  # with another number of layers, set in_features of the predictors, too
            )
            for _ in weights
        ],
        box_predictors=[
            L(modeling.BoxPredictor)(
                in_features=f"${{model.roi_heads.box_heads.{n}.fc_dims.1}}",
                num_classes="${model.roi_heads.num_classes}",
                class_agnostic=True,
            )
            for n in range(len(weights))
        ],
        box_coders=[L(modeling.BoxCoder)(weights=w) for w in weights],
        matchers=[L(modeling.Matcher)(thresholds=[iou], labels=[0, 1]) for iou in (0.5, 0.6, 0.7)],
    )


dataloader = dict(
    custom=[],  # data sets of your own, as in DATASETS.CUSTOM: [{NAME: …, FORMAT: coco, JSON: …, IMAGES: …}]
    train=L(make_train_loader)(
        dataset=L(get_dataset_dicts)(names="coco_2017_train", filter_empty=True, mask_format="${..mapper.mask_format}"),
        mapper=L(DatasetMapper)(
            augmentations=[
                L(ResizeShortestEdge)(short_edges=[640, 672, 704, 736, 768, 800], max_size=1333, sampling="choice"),
                L(RandomFlip)(),
            ],
            image_format="${model.input_format}",
            with_targets=True,
            mask_format=None,  # "polygon" or "bitmask" for models with masks
        ),
        total_batch_size=16,
        num_workers=4,
        aspect_ratio_grouping=True,
    ),
    test=L(make_test_loader)(
        dataset=L(get_dataset_dicts)(names="coco_2017_val", filter_empty=False),
        mapper=L(DatasetMapper)(
            augmentations=[L(ResizeShortestEdge)(short_edges=800, max_size=1333)],
            image_format="${model.input_format}",
            with_targets=False,
            mask_format="${...train.mapper.mask_format}",
        ),
        num_workers=4,
    ),
    evaluator=L(COCOEvaluator)(
        dataset_name="${..test.dataset.names}", max_dets_per_image="${model.roi_heads.max_detections}"
    ),
)

_groups = L(parameter_groups)(base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0)
sgd = L(SGD)(params=_groups, lr=0.02, momentum=0.9, nesterov=False, weight_decay=1e-4, fused=True)
adamw = L(AdamW)(params=_groups, lr=1e-4, betas=[0.9, 0.999], weight_decay=0.1)


def multi_step_schedule(steps):
    """Return a schedule that warms up linearly and multiplies the learning rate by 0.1 at each step (an iteration)."""
    scheduler = L(multi_step)(steps=steps, max_iter="${..max_iter}", gamma=0.1)
    warmup = dict(warmup_iters=1000, warmup_factor=0.001, warmup_method="linear")
    return L(with_warmup)(scheduler=scheduler, max_iter="${train.max_iter}", **warmup)


schedule_1x = multi_step_schedule([60000, 80000])  # of 90000 iterations
schedule_3x = multi_step_schedule([210000, 250000])  # of 270000 iterations
cosine = multi_step_schedule([])
cosine.scheduler = L(CosineParamScheduler)(start_value=1.0, end_value=0.0)

train = dict(  # the keys of Detectron2's configs/common/train.py, and the native engine's own
    output_dir="./output",
    init_checkpoint="detectron2://ImageNetPretrained/MSRA/R-50.pkl",  # the weights to start from or to evaluate
    max_iter=90000,
    device="cuda",
    seed=-1,  # a negative seed stands for a random one; with any other seed, a run on CPUs is reproducible
    checkpointer=dict(period=5000, max_to_keep=3),  # max_to_keep: the newest periodic ones; None keeps all
    log_period=20,
    eval_period=10000,  # in iterations; with 0, the model is evaluated at the end only
    best_metric="bbox/AP",  # the metric by which model_best.pth is kept; "" keeps none
    patience=0,  # stop after this many evaluations without a better best_metric; 0 never stops early
    wandb=False,  # also send the metrics to Weights & Biases
    mlflow=False,  # also send the metrics to MLflow
    val_loss=False,  # compute the losses on the test set at each evaluation
    amp=dict(enabled=False, dtype="auto"),  # dtype: float16, bfloat16, or auto (bfloat16 on CPUs, float16 on GPUs)
    ddp=dict(  # arguments of DistributedDataParallel, and whether gradients are sent in float16
        broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False
    ),
    accumulate_steps=1,  # the images of a step are processed in this many parts
    zero=False,  # divide the state of the optimizer among several processes
    compile=False,  # compile the trunk and the pyramid with torch.compile
    cuda_graphs=False,  # run them as CUDA graphs in training on a GPU, which is faster for small images
    clip_gradients=dict(enabled=False, clip_type="value", clip_value=1.0, norm_type=2.0),  # or "norm", "full_norm"
    ema=dict(enabled=False, decay=0.999),  # a moving average of the weights, which is evaluated in their place
    float32_precision="",  # "high" or "medium": see torch.set_float32_matmul_precision
    cudnn_benchmark=False,
)


def faster_rcnn(pyramid):
    """Return model, dataloader, optimizer, lr_multiplier and train of Faster R-CNN with the pyramid of this name."""
    model.backbone._target_ = PYRAMIDS.get(pyramid).cls
    train["output_dir"] = f"output/lazy/faster_rcnn_R50_{pyramid}"
    return model, dataloader, sgd, schedule_1x, train


def mask_rcnn(pyramid):
    """Return the same five of Mask R-CNN."""
    parts = faster_rcnn(pyramid)
    model.roi_heads.update(mask_branch)
    dataloader["train"].mapper.mask_format = "polygon"
    train["output_dir"] = f"output/lazy/mask_rcnn_R50_{pyramid}"
    return parts


def cascade_rcnn(pyramid):
    """Return the same five of Cascade R-CNN."""
    parts = faster_rcnn(pyramid)
    model.roi_heads = cascade_heads(model.roi_heads)
    model.proposal_generator.post_nms_topk[0] = 2000
    train["output_dir"] = f"output/lazy/cascade_rcnn_R50_{pyramid}"
    return parts
