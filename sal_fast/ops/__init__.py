"""The fused ops: what the experiment, and anybody else's project, may import.

Every op takes and returns torch tensors. Its docstring states the formula, the shapes and the gradients, and
beside it stands a reference in plain torch. Importing this module needs torch and numpy alone.
"""

from sal_fast._util.words import CAM_CLASSES, PROBES, SALIENCY_KINDS, CamClass, Probe, SaliencyKind
from sal_fast.ops.badge import badge
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.cam import CamHead, cam, cam_head
from sal_fast.ops.crop import crop_images, crop_masks
from sal_fast.ops.cyborg_loss import cyborg_loss
from sal_fast.ops.dice import dice
from sal_fast.ops.head_step import HeadStep, head_step
from sal_fast.ops.kcenter import kcenter
from sal_fast.ops.minmax_normalize import is_flat, minmax_normalize
from sal_fast.ops.overlay import overlay
from sal_fast.ops.saliency_loss import saliency_loss, says_where
from sal_fast.ops.ssim import ms_ssim, ssim, ssim_map
from sal_fast.ops.topn import TopnDice, topn_dice, topn_mask
from sal_fast.ops.uncertainty import Kind as UncertaintyKind
from sal_fast.ops.uncertainty import uncertainty

__all__ = [
    "CAM_CLASSES",
    "PROBES",
    "SALIENCY_KINDS",
    "BitMask",
    "CamClass",
    "CamHead",
    "HeadStep",
    "Probe",
    "SaliencyKind",
    "TopnDice",
    "UncertaintyKind",
    "badge",
    "cam",
    "cam_head",
    "crop_images",
    "crop_masks",
    "cyborg_loss",
    "dice",
    "head_step",
    "is_flat",
    "kcenter",
    "minmax_normalize",
    "ms_ssim",
    "overlay",
    "saliency_loss",
    "says_where",
    "ssim",
    "ssim_map",
    "topn_dice",
    "topn_mask",
    "uncertainty",
]
