"""Map sources beside people (`sal_fast.people`): a model, a generator of the user's, a segmenter's files.

Every map source gives k maps in the frame, image_size x image_size pixels.
"""

from sal_fast.annotate.generate import generate
from sal_fast.annotate.generator import Generator, draw_maps, maps_of
from sal_fast.annotate.map_files import read_maps, write_maps
from sal_fast.annotate.sam import segment_anything
from sal_fast.annotate.segmenter import make_missing_masks, segmenter_masks
from sal_fast.annotate.suggest import suggest

__all__ = [
    "Generator",
    "draw_maps",
    "generate",
    "make_missing_masks",
    "maps_of",
    "read_maps",
    "segment_anything",
    "segmenter_masks",
    "suggest",
    "write_maps",
]
