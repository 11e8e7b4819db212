"""Saliency-guided active learning, and the fused ops under it."""

from importlib.metadata import version

from sal_fast._native import BuildInfo, build_info

__version__ = version("sal-fast")
__all__ = ["BuildInfo", "__version__", "build_info"]
