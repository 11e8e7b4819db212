"""Graded maps of where people looked, from what an eye tracker wrote down.

A fixation file has one of two forms, which its first line tells apart:

* one line per image and observer, `id,w,h,x1,y1,ms1,x2,y2,ms2,...` (`lines`);
* a table with a header and one fixation in each row (`rows`).

The points of all files are kept beside the maps, in `<out>/.fixations.parquet` (`points`), so that files are
added to each other, and maps can be made again in another size. The map of an id is `<out>/<id>.png`.
"""

from sal_fast.data.fixations.add import LONGEST, Summary, read, write
from sal_fast.data.fixations.maps import render
from sal_fast.data.fixations.points import Fixated
from sal_fast.data.fixations.setting import Setting

__all__ = ["LONGEST", "Fixated", "Setting", "Summary", "read", "render", "write"]
