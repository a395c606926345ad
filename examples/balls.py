"""The usual steps with a data set of one's own: register it, look at it, train, predict, draw and evaluate.

The script is written for Detectron2's interface. It runs on this package as it stands, and on Detectron2 after a change
of `sn2fpn.compat` to `detectron2` in its import lines. The data set consists of drawn balls, so that nothing is
downloaded and a minute on a CPU is enough.

    python examples/balls.py output/balls
"""

import math
import sys
from pathlib import Path

import cv2
import numpy as np

from sn2fpn.compat import model_zoo
from sn2fpn.compat.config import get_cfg
from sn2fpn.compat.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from sn2fpn.compat.engine import DefaultPredictor, DefaultTrainer
from sn2fpn.compat.evaluation import COCOEvaluator, inference_on_dataset
from sn2fpn.compat.structures import BoxMode
from sn2fpn.compat.utils.logger import setup_logger
from sn2fpn.compat.utils.visualizer import ColorMode, Visualizer

CLASSES = ["red ball", "blue ball"]
COLORS = [(60, 60, 220), (220, 90, 60)]  # BGR
SIZE = 128


def ball_pictures(folder, count, seed):
    """Draw pictures of balls and return them in the standard format: one dict per image, with its annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    records = []
    for image_id in range(count):
        image = rng.integers(0, 90, (SIZE, SIZE, 3), dtype=np.uint8)
        annotations = []
        for left in (4, 66):  # one ball in each half
            radius = int(rng.integers(12, 29))
            x = int(left + radius + rng.integers(0, 58 - 2 * radius + 1))
            y = int(radius + 2 + rng.integers(0, SIZE - 2 * radius - 4))
            category = int(rng.integers(len(CLASSES)))
            cv2.circle(image, (x, y), radius, COLORS[category], -1)
            angles = [2 * math.pi * i / 16 for i in range(16)]
            outline = [v for a in angles for v in (x + radius * math.cos(a), y + radius * math.sin(a))]
            annotations.append(
                {
                    "bbox": [x - radius, y - radius, x + radius, y + radius],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "segmentation": [outline],
                    "category_id": category,
                }
            )
        file_name = str(folder / f"{image_id:03d}.png")
        cv2.imwrite(file_name, image)
        records.append(
            {"file_name": file_name, "image_id": image_id, "height": SIZE, "width": SIZE, "annotations": annotations}
        )
    return records


def register(output):
    """Register a training set and a test set, each as a function that returns its images."""
    for seed, (split, count) in enumerate((("train", 48), ("val", 16))):
        name = f"balls_{split}"
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        folder = output / name
        DatasetCatalog.register(name, lambda folder=folder, count=count, seed=seed: ball_pictures(folder, count, seed))
        MetadataCatalog.get(name).set(thing_classes=CLASSES)


def draw_annotations(output):
    """Draw what is annotated in the first pictures, to see that it is right."""
    metadata = MetadataCatalog.get("balls_train")
    for record in DatasetCatalog.get("balls_train")[:3]:
        image = cv2.imread(record["file_name"])
        visualizer = Visualizer(image[:, :, ::-1], metadata=metadata, scale=2.0)
        drawn = visualizer.draw_dataset_dict(record)
        cv2.imwrite(str(output / f"annotated_{record['image_id']}.png"), drawn.get_image()[:, :, ::-1])


def configuration(output):
    """Return the configuration of Mask R-CNN, made small enough for a CPU."""
    name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(name))
    cfg.OUTPUT_DIR = str(output)
    cfg.DATASETS.TRAIN = ("balls_train",)
    cfg.DATASETS.TEST = ()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN = (SIZE,)
    cfg.INPUT.MIN_SIZE_TEST = SIZE
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(CLASSES)
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SOLVER.BASE_LR = 0.02
    cfg.SOLVER.MAX_ITER = 120
    cfg.SOLVER.WARMUP_ITERS = 20
    cfg.SOLVER.STEPS = []
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SEED = 1
    # With photographs and a GPU, none of the following lines is needed. Training then starts from trained weights:
    # cfg.MODEL.WEIGHTS = model_zoo.get_checkpoint_url(name)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]
    cfg.MODEL.FPN.OUT_CHANNELS = 64
    cfg.MODEL.FPN.NORM = "BN"
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 64
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 100
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 128
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    return cfg


def main(output):
    """Run all steps and return the scores on the test set."""
    setup_logger()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    register(output)
    draw_annotations(output)

    cfg = configuration(output)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    cfg.MODEL.WEIGHTS = str(output / "model_final.pth")
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.5
    predictor = DefaultPredictor(cfg)
    for record in DatasetCatalog.get("balls_val")[:3]:
        image = cv2.imread(record["file_name"])
        outputs = predictor(image)
        visualizer = Visualizer(
            image[:, :, ::-1],
            metadata=MetadataCatalog.get("balls_val"),
            scale=2.0,
            instance_mode=ColorMode.IMAGE_BW,  # only the pixels of the masks keep their colours
        )
        drawn = visualizer.draw_instance_predictions(outputs["instances"].to("cpu"))
        cv2.imwrite(str(output / f"predicted_{record['image_id']}.png"), drawn.get_image()[:, :, ::-1])

    evaluator = COCOEvaluator("balls_val", output_dir=str(output))
    loader = build_detection_test_loader(cfg, "balls_val")
    results = inference_on_dataset(predictor.model, loader, evaluator)
    print(results)
    return results


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "output/balls")
