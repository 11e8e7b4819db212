"""The words and numbers that options and arguments share. Listing them here needs no torch."""

from typing import Literal, get_args

Probe = Literal["cam", "gradcam", "gradcam++", "hirescam"]
PROBES: tuple[Probe, ...] = get_args(Probe)

SaliencyKind = Literal["ssim_l1", "mse"]
SALIENCY_KINDS: tuple[SaliencyKind, ...] = get_args(SaliencyKind)

CamClass = Literal["labelled", "predicted"]
CAM_CLASSES: tuple[CamClass, ...] = get_args(CamClass)

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# Several of these can be joined by +, but for none.
AUGMENTS = ("none", "standard", "color", "vflip", "turn", "rotate")

Optimizer = Literal["sgd", "adamw"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)

Schedule = Literal["step", "cosine"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

Train = Literal["all", "head"]
TRAINS: tuple[Train, ...] = get_args(Train)

DecoderName = Literal["auto", "dali", "torch", "pillow"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)

Keep = Literal["auto", "resident", "stream"]
KEEPS: tuple[Keep, ...] = get_args(Keep)

MEAN = (0.485, 0.456, 0.406)  # of red, green and blue in ImageNet's images, in 0 to 1
STD = (0.229, 0.224, 0.225)  # their deviations
