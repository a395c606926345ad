"""An augmentation of one's own: a pipeline of Albumentations, which `pip install albumentations` installs."""

import albumentations as A

augment = A.Compose(
    [A.Affine(rotate=(-10, 10), fill=128, p=0.5), A.GaussianBlur(blur_limit=(3, 7), p=0.2), A.ToGray(p=0.1)],
    bbox_params=A.BboxParams(format="pascal_voc", label_fields=["indices"], min_visibility=0.1),
)
