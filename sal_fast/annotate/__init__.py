"""Who answers a query with saliency maps: people (the ground truth, or real ones by `label_studio` and
`folder`), a model, anyone's function, or a segmenter's masks.

Every answer is k maps in the frame (image_size x image_size).
"""

from sal_fast.annotate.generate import generate
from sal_fast.annotate.generator import Generator, drawn, load, source_file
from sal_fast.annotate.ground_truth import human
from sal_fast.annotate.map_files import read, write
from sal_fast.annotate.sam import segment_anything
from sal_fast.annotate.segmenter import make_missing, segmenter_masks

__all__ = [
    "Generator",
    "drawn",
    "generate",
    "human",
    "load",
    "make_missing",
    "read",
    "segment_anything",
    "segmenter_masks",
    "source_file",
    "write",
]
