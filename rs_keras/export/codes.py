"""8-bit codes of a kernel that several signatures share."""

import numpy as np

from rs_keras.export import flatbuffer

# Against the largest of a kernel; a channel whose factor makes it smaller is as good as
# constant, whatever its sign.
NEGLIGIBLE = 1e-5
LARGEST_CODE = 127


class Codes:
    """The int8 codes of one kernel, which its uses share as far as signs agree.

    Args:
        kernel: `weight_sharing.SharedKernel`.
        book: if there are few levels, choose the code of each channel's largest, of 64
            to 127, with which the others are nearest to integers.

    Attributes:
        levels: whether values repeat, as those of a low-bit kernel do.
        error: the largest distance of a value from what its code stands for, as a
            share of its channel's largest.
    """

    def __init__(self, kernel, book=False):
        self._axis = kernel.axis
        peaks = kernel.peaks
        self._peaks = np.where(peaks > 0, peaks, 1.0)
        # Positive where no factor matters.
        self._signs = np.sign(sum(self._signs_of(use) for use in kernel.uses) + 0.5)
        self._shape = [1] * kernel.values.ndim
        self._shape[kernel.axis] = -1
        shares = kernel.values * (self._signs / self._peaks).reshape(self._shape)
        rows = np.moveaxis(shares, kernel.axis, 0).reshape(len(peaks), -1)
        self._largest = np.full(len(peaks), LARGEST_CODE)
        # Not a float kernel that stands in a low-bit network.
        self.levels = len(np.unique(np.round(np.abs(rows[0]), 5))) < rows.shape[1] / 2
        if book and self.levels:
            self._largest = _largest_codes(rows)
        codes = np.rint(shares * self._largest.reshape(self._shape))
        self._codes = codes.astype(np.int8)
        self.error = float(
            np.abs(codes / self._largest.reshape(self._shape) - shares).max()
        )
        self._buffers = {}

    @property
    def size(self):
        return self._codes.size

    @property
    def per_channel(self):
        """How many codes a channel has."""
        return self._codes.size // len(self._peaks)

    def flips(self, use):
        """int8 (channels,): -1 where a use has the other sign, else 1."""
        return np.where(self._signs_of(use) * self._signs < 0, -1, 1).astype(np.int8)

    def signed(self, flips):
        """The codes (int8, in the shape of the kernel) with some channels negated."""
        return self._codes * self.shaped(flips)

    def shaped(self, channels):
        """One number a channel, in a shape that kernels are multiplied with."""
        return channels.reshape(self._shape)

    def scales(self, use):
        """float32 (channels,), positive: what a code stands for."""
        strength = np.abs(use.factors) * self._peaks
        least = max(1e-9 * strength.max(), 1e-30)
        return (np.maximum(strength, least) / self._largest).astype("float32")

    def quantization(self, use):
        return flatbuffer.quantized(self.scales(use), axis=self._axis)

    def buffer(self, model, flips):
        """(index of the codes with these flips, whether that is a copy made now)."""
        key = flips.tobytes()
        new = key not in self._buffers
        # The first is none: signs that no use has are not stored.
        copied = new and bool(self._buffers)
        if new:
            self._buffers[key] = flatbuffer.add_buffer(model, self.signed(flips))
        return self._buffers[key], copied

    def _signs_of(self, use):
        strength = np.abs(use.factors) * self._peaks
        matters = strength > NEGLIGIBLE * strength.max()
        return np.where(matters, np.sign(use.factors), 0)


def _largest_codes(rows):
    """For each row of shares of its largest value, the code of that value."""
    best = np.full(len(rows), np.inf)
    found = np.full(len(rows), LARGEST_CODE)
    for largest in range(LARGEST_CODE, LARGEST_CODE // 2, -1):
        codes = rows * largest
        error = np.abs(codes - np.rint(codes)).max(axis=1) / largest
        # A little better is not worth the range that is given up.
        better = error < 0.9 * best
        best = np.where(better, error, best)
        found = np.where(better, largest, found)
    return found
