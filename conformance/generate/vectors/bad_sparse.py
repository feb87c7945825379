"""Broken sparse causal maps (4.10), in files of the model "sparse-small"."""
import functools

from ..models import Model
from .common import SPARSE_SMALL, bad_file
from .model_files import set_values

N = "decoder.synthesis."


bad_map = functools.partial(bad_file, SPARSE_SMALL, 461)


def row(*entries, more=0):
    """Gives channel 2 these entries, and all others none; the count is `more` too large."""

    def change(t):
        Model.put_sparse(t, N, [entries if c == 2 else [] for c in range(4)])
        set_values(t, N + "count", lambda v: v.__setitem__(2, len(entries) + more))

    return change


def config(synthesis):
    return lambda t: set_values(t, "decoder.config", lambda v: v.__setitem__(10, synthesis))


def full_map(t):
    t.put("decoder.synthesis", "F32", [0.5] * 16, [4, 4])


bad_map("model-sparse-missing", 702, "MODEL-2 SPARSE-1", "a sparse map without its weights", lambda t: t.pop(N + "weight"))
bad_map("model-sparse-equal", 708, "SPARSE-1", "two equal indices in a row", row((1, 0.5), (1, 0.25)))
bad_map("model-sparse-falls", 708, "SPARSE-1", "indices that fall in a row", row((1, 0.5), (0, 0.25)))
bad_map("model-sparse-itself", 708, "SPARSE-1", "a row that reads its own channel", row((0, 0.5), (2, 0.25)))
bad_map("model-sparse-beyond", 708, "SPARSE-1", "an index that is no channel", row((65535, 0.5)))
bad_map("model-sparse-infinite", 708, "MODEL-10 SPARSE-1", "an infinite weight", row((0, float("inf"))))
bad_map("model-sparse-count", 703, "SPARSE-1", "a count that is too large by one", row((0, 0.5), more=1))
bad_map("model-sparse-unknown", 704, "MODEL-2 SPARSE-1", "a sparse map with a synthesis of 0", config(0))
bad_map("model-sparse-full", 704, "MODEL-2 SPARSE-1", "a full map next to the sparse one", full_map)
