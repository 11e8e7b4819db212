"""Who answers a query with saliency maps: people (the ground truth), a model, or a segmenter's masks.

Every answer is k maps in the frame (image_size x image_size).
"""

from sal_fast.annotate.generate import generate
from sal_fast.annotate.ground_truth import human
from sal_fast.annotate.map_files import read, write
from sal_fast.annotate.segmenter import segmenter_masks

__all__ = ["generate", "human", "read", "segmenter_masks", "write"]
