"""How a run goes on. The keys are those of Detectron2's configs/common/train.py, and the native engine's own."""

train = dict(
    output_dir="./output",
    init_checkpoint="",  # weights to start from, or to evaluate
    max_iter=90000,
    device="cuda",
    seed=-1,  # negative: a random seed, printed at the start; otherwise everything is reproducible
    checkpointer=dict(period=5000, max_to_keep=None),  # None: all
    log_period=20,
    eval_period=0,  # iterations; 0: only at the end
    best_metric="",  # e.g. "bbox/AP50": keeps model_best.pth; "": off
    patience=0,  # stop after this many evaluations without a better best_metric; 0: never
    val_loss=False,  # losses on the test set at each evaluation
    amp=dict(enabled=False, dtype="auto"),  # "float16" | "bfloat16" | "auto": bfloat16 on CPU, float16 on GPU
    ddp=dict(broadcast_buffers=False),  # arguments of DistributedDataParallel
    accumulate_steps=1,  # a step's images are computed in this many parts
    clip_gradients=dict(enabled=False, clip_type="value", clip_value=1.0, norm_type=2.0),  # | "norm" | "full_norm"
    ema=dict(enabled=False, decay=0.999),  # moving average of weights; evaluated when on
    float32_precision="",  # "" | "high" | "medium": torch.set_float32_matmul_precision
    cudnn_benchmark=False,
)
