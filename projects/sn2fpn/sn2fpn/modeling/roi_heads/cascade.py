"""The RoI heads of Cascade R-CNN (Cai and Vasconcelos, CVPR 2018): box branches that refine each other's boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError
from ...structures import Boxes, Instances
from ..box_coding import BoxCoder
from ..matching import Matcher
from ..metrics import log_scalar, metrics_under
from .box_head import BoxHead, BoxPredictor
from .standard import BoxStage, StandardROIHeads

__all__ = ["CascadeROIHeads"]


class CascadeROIHeads(StandardROIHeads):
    """RoI heads whose box branch has several stages, and a mask branch if wanted.

    Each stage has layers of its own, starts from the boxes of the stage before it, and learns from a stricter label.
    Proposals are sampled for the first stage; the later ones learn from all of its boxes. In evaluation, the class
    probabilities are means over the stages and the boxes are those of the last one. Numbers and names are those of
    Detectron2's class of the same name: "loss_cls_stage0", "loss_box_reg_stage0", "loss_cls_stage1" and so on, and
    the parameters `box_head.0`, `box_predictor.0`, `box_head.1` and so on.

    Args:
        box_heads: the layers of each stage.
        box_predictors: the predictors of each stage, which have one box offset for all classes.
        box_coders: how each stage encodes its boxes. The weights rise as the boxes become better.
        matchers: how proposals are labelled for each stage. The IoU thresholds rise.
        **standard: the other arguments of `StandardROIHeads`.

    Raises:
        ArgumentError: there is no stage, the lists differ in length, a predictor has an offset for each class, or
            see `StandardROIHeads`.
    """

    def __init__(
        self,
        *,
        box_heads: Sequence[BoxHead],
        box_predictors: Sequence[BoxPredictor],
        box_coders: Sequence[BoxCoder],
        matchers: Sequence[Matcher],
        **standard: Any,
    ) -> None:
        if not box_heads:
            raise ArgumentError("box_heads", "expected one for each stage, found none")
        for name, parts in {"box_predictors": box_predictors, "box_coders": box_coders, "matchers": matchers}.items():
            if len(parts) != len(box_heads):
                raise ArgumentError(name, f"expected {len(box_heads)}, as many as box_heads, found {len(parts)}")
        for n, predictor in enumerate(box_predictors):
            if not getattr(predictor, "class_agnostic", True):
                problem = "expected True, because the next stage starts from one box per proposal, found False"
                raise ArgumentError(f"box_predictors[{n}].class_agnostic", problem)
        super().__init__(
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            box_coder=list(box_coders),
            matcher=list(matchers),
            **standard,
        )

    @property
    def stages(self) -> list[BoxStage]:
        """The stages of the box branch in their order."""
        return list(map(BoxStage, self.box_head, self.box_predictor, self.box_coder, self.matcher))

    def _argument(self, part: str, stage: int) -> str:
        return f"{part}s[{stage}]"

    def box_branch_losses(
        self, features: Mapping[str, Tensor], sampled: Sequence[Instances], targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Return the losses of all stages; see `StandardROIHeads.box_branch_losses`.

        Raises:
            FloatingPointError: the boxes of a stage are not finite.
        """
        losses: dict[str, Tensor] = {}
        count = len(self.stages)
        for n in range(count):
            pooled = self.pool(features, [s.proposal_boxes.tensor for s in sampled])
            if pooled.requires_grad:  # The gradients of the maps are means over the stages, those of layers are not.
                pooled.register_hook(lambda grad: grad * (1.0 / count))
            logits, deltas = self._predict_from(pooled, n)
            with metrics_under(f"stage{n}/"):
                found = self.losses(logits, deltas, sampled, n)
            losses |= {f"{name}_stage{n}": loss for name, loss in found.items()}
            if n + 1 < count:
                sampled = self._label_next(n, deltas, sampled, targets)
        return losses

    @torch.no_grad()
    def _label_next(
        self, stage: int, deltas: Tensor, sampled: Sequence[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """Return the boxes of a stage, without empty ones, as labelled proposals of the next stage."""
        proposals = [s.proposal_boxes.tensor for s in sampled]
        out = []
        refined = self._refine(stage, deltas, proposals, [s.image_size for s in sampled])
        for boxes, proposal, target in zip(refined, sampled, targets):
            if not boxes.isfinite().all():
                raise FloatingPointError(
                    f"the boxes of stage {stage} of the cascade are not finite because training has diverged; "
                    "lower the learning rate, lengthen the warm-up, or check the initial weights"
                )
            kept = Boxes(boxes)[Boxes(boxes).nonempty()]
            index, classes = self.match(kept, target, stage + 1)
            if -1 in self.stages[stage + 1].matcher.labels:  # otherwise there are no boxes to ignore to wait for
                used = (classes >= 0).nonzero().squeeze(1)
                kept, index, classes = kept[used], index[used], classes[used]
            gt_boxes = target.gt_boxes[index] if len(target.gt_boxes) else kept
            out.append(Instances(proposal.image_size, proposal_boxes=kept, gt_classes=classes, gt_boxes=gt_boxes))
        foreground = sum(int((s.gt_classes != self.num_classes).sum()) for s in out)
        with metrics_under(f"stage{stage + 1}/"):
            log_scalar("roi_head/num_fg_samples", foreground / len(out))
            log_scalar("roi_head/num_bg_samples", (sum(map(len, out)) - foreground) / len(out))
        return out

    def box_branch_predictions(
        self, features: Mapping[str, Tensor], proposals: Sequence[Instances]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the mean class probabilities, the last stage's offsets, and the boxes that it started from.

        See `StandardROIHeads.box_branch_predictions`.
        """
        boxes = [p.proposal_boxes.tensor for p in proposals]
        sizes = [p.image_size for p in proposals]
        logits, deltas = self.predict(features, boxes)
        scores = self.class_scores(logits)
        for n in range(1, len(self.stages)):
            refined = self._refine(n - 1, deltas, boxes, sizes)
            boxes = [torch.where(new.isfinite().all(1, keepdim=True), new, old) for new, old in zip(refined, boxes)]
            logits, deltas = self.predict(features, boxes, n)
            scores = scores + self.class_scores(logits)
        return scores * (1.0 / len(self.stages)), deltas, boxes

    def _refine(
        self, stage: int, deltas: Tensor, boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Return the boxes that offsets of a stage lead to, clipped to each image (Tensor[R_n, 4] per image)."""
        refined = self.stages[stage].coder.decode(deltas[:, 0].detach(), torch.cat(list(boxes)))
        out = [Boxes(b) for b in refined.split([len(b) for b in boxes])]
        for b, size in zip(out, sizes):
            b.clip(size)
        return [b.tensor for b in out]
