"""What a study compares: the study file, its variants and cells, and the checks before and after training."""
