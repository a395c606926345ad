"""COCO 2017 with the usual augmentation. For other COCO-like data sets, change `names` or add to `custom`."""

from sn2fpn.config import LazyCall as L
from sn2fpn.data import DatasetMapper, get_dataset_dicts, make_test_loader, make_train_loader
from sn2fpn.data.augmentation import RandomFlip, ResizeShortestEdge
from sn2fpn.evaluation import COCOEvaluator

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
