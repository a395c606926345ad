"""The options of a run. The keys are those of Detectron2's configs/common/train.py and the native engine's own."""

train = dict(
    output_dir="./output",
    init_checkpoint="",  # the weights to start from or to evaluate
    max_iter=90000,
    device="cuda",
    seed=-1,  # a negative seed stands for a random one; with any other seed, a run on CPUs is reproducible
    checkpointer=dict(period=5000, max_to_keep=None),  # max_to_keep None keeps all checkpoints
    log_period=20,
    eval_period=0,  # in iterations; with 0, the model is evaluated at the end only
    best_metric="",  # for example "bbox/AP50", to keep the best model as model_best.pth
    patience=0,  # stop after this many evaluations without a better best_metric; 0 never stops early
    val_loss=False,  # compute the losses on the test set at each evaluation
    amp=dict(enabled=False, dtype="auto"),  # dtype: float16, bfloat16, or auto (bfloat16 on CPUs, float16 on GPUs)
    ddp=dict(broadcast_buffers=False),  # arguments of DistributedDataParallel
    accumulate_steps=1,  # the images of a step are processed in this many parts
    clip_gradients=dict(enabled=False, clip_type="value", clip_value=1.0, norm_type=2.0),  # or "norm", "full_norm"
    ema=dict(enabled=False, decay=0.999),  # a moving average of the weights, which is evaluated in their place
    float32_precision="",  # "high" or "medium": see torch.set_float32_matmul_precision
    cudnn_benchmark=False,
)
