"""Values that need not be stored: golden values are made, and tests run, from the same formula (uniform.ts)."""

import numpy as np


def uniform(count, salt):
    """[-0.5, 0.5), f32, of a hash of the index."""
    x = (np.arange(count, dtype=np.uint64) * 2654435761 + salt * 40503 * 65537) % 2**32
    x = (x ^ (x >> 15)) * 2246822519 % 2**32
    return ((x ^ (x >> 13)).astype(np.float64) / 2**32 - 0.5).astype(np.float32)
