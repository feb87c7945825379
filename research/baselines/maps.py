"""Linear maps before one uniform quantiser, and rows of integers. Each gives bits a frame and hidden states back."""
import numpy as np

from coding import Tables


def eigenbasis(hidden):
    """A and B with z = (x − mean) A, x = z B + mean: the eigenvectors of the covariance (KLT)."""
    _, u = np.linalg.eigh(np.cov(hidden.T))
    return u, u.T


def weighted_eigenbasis(hidden, sensitivity):
    """The eigenbasis after states are scaled by the square root of the sensitivity S, an E×E matrix: squared error in z
    is then the error that S measures. Eigenvalues of S below a thousandth of their mean are raised to that."""
    values, v = np.linalg.eigh(sensitivity)
    values = np.maximum(values, 0) + 1e-3 * values.mean()
    root, inverse = (v * values**0.5) @ v.T, (v * values**-0.5) @ v.T
    _, w = np.linalg.eigh(root @ np.cov(hidden.T) @ root)
    return root @ w, w.T @ inverse


def rotation(width, seed=1):
    """A random orthogonal matrix and its inverse."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    q = q * np.sign(np.diag(r))
    return q, q.T


class Mapped:
    """z = (x − mean) A rounded in one step, a static table a channel."""

    def __init__(self, train, valid, maps):
        self.a, self.b = maps
        self.mean = train.mean(0)
        self.train, self.valid = (train - self.mean) @ self.a, (valid - self.mean) @ self.a

    def at(self, step):
        """Bits a frame, and the hidden states that come back."""
        y = np.rint(self.valid / step)
        bits = Tables(np.rint(self.train / step)).bits(y)
        return bits, (y * step) @ self.b + self.mean

    def steps(self, distortions):
        """Steps that would lose these shares of the variance if rounding errors were white and uniform."""
        a_step = np.trace(self.b @ self.b.T) / 12  # of squared error at step 1
        variance = ((self.train @ self.b) ** 2).sum(1).mean()
        return [(share * variance / a_step) ** 0.5 for share in distortions]


def rows(hidden, bits):
    """Rows of integers of so many bits and a scale each, in f16: integers [T, E] and scales [T, 1]."""
    most = 2 ** (bits - 1) - 1
    scale = (np.abs(hidden).max(1, keepdims=True) / most).astype(np.float16).astype(np.float64)
    scale = np.maximum(scale, 1e-7)
    return np.clip(np.rint(hidden / scale), -most, most), scale


def coded_rows(train, valid, bits):
    """Such rows with a static table a channel and 16 bits for the scale."""
    y, scale = rows(valid, bits)
    return Tables(rows(train, bits)[0]).bits(y) + 16, y * scale


def best_levels(bits, rounds=200):
    """The levels of the best scalar quantiser (Lloyd, Max) of a standard normal value in so many bits."""
    points = np.linspace(-6, 6, 60_001)
    weight = np.exp(-points**2 / 2)
    levels = np.linspace(-2, 2, 2**bits)
    for _ in range(rounds):
        place = np.searchsorted((levels[1:] + levels[:-1]) / 2, points)
        mass = np.bincount(place, weight, len(levels))
        levels = np.bincount(place, weight * points, len(levels)) / np.maximum(mass, 1e-300)
    return levels


def rotated_codes(train, valid, bits):
    """A random rotation, a root mean square in f16 a row, and the nearest of 2^bits levels a value, not coded further."""
    mean, (a, b) = train.mean(0), rotation(valid.shape[1])
    z = (valid - mean) @ a
    size = np.sqrt((z**2).mean(1, keepdims=True)).astype(np.float16).astype(np.float64)
    levels = best_levels(bits)
    place = np.searchsorted((levels[1:] + levels[:-1]) / 2, z / size)
    return bits * valid.shape[1] + 16.0, (levels[place] * size) @ b + mean
