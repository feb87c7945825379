"""The vectors. Each function makes one stream or model file; a broken one breaks exactly one rule.

The manifest lists them in the order of these imports.
"""
from .common import VECTORS, build_models  # noqa: F401
from . import (  # noqa: F401
    joined, bindings, layered, targets, integrity, bad_header, bad_container, bad_session, order, join, registry,
    model_files, side, bad_side, bad_sparse, length, prediction,
)
