"""Generated images whose classes differ in detail, so that resolution matters.

Nothing is stored or downloaded: an image is a function of its split and index. A
figure of random place, size, rotation and colour lies over a cluttered background.
Six pairs of classes differ by a cut or stroke of about 2 of 96 pixels only: visible
at 64 pixels, on the edge of vanishing at 32.
"""

import numpy as np

SIDE = 96
NUM_EXAMPLES = {"train": 4096, "val": 1024}

# Differ by one detail: (0, 1), (2, 3), ... (10, 11).
CLASS_NAMES = (
    "disc",
    "disc_slit",
    "square",
    "square_notch",
    "ring",
    "ring_gap",
    "bar",
    "bar_stripes",
    "cross",
    "cross_serif",
    "dumbbell",
    "dumbbell_linked",
    "triangle",
    "flower",
)

# The splits draw from unrelated streams: a validation image is never a training image.
_STREAMS = {"train": 1, "val": 2}
_MARGIN = 8  # pixels of the border that validation's centre crop may cut off
_GRID = np.arange(SIDE, dtype=np.float32) + 0.5


def generate(split, start=0, stop=None):
    """Renders the images [start, stop) of a split, the same bytes in every process.

    Args:
        split: "train" or "val".
        start, stop: ints; all images where `stop` is None.

    Returns:
        (images (N, 96, 96, 3) uint8, labels (N,) int32). Classes alternate.
    """
    stop = NUM_EXAMPLES[split] if stop is None else stop
    images = np.empty((stop - start, SIDE, SIDE, 3), np.uint8)
    labels = (np.arange(start, stop) % len(CLASS_NAMES)).astype(np.int32)
    for row, index in enumerate(range(start, stop)):
        rng = np.random.default_rng([_STREAMS[split], index])
        images[row] = render(int(labels[row]), rng)
    return images, labels


def render(label, rng):
    """One image (96, 96, 3) uint8 of a class.

    The random numbers are drawn in the same order for every class: two classes
    rendered from equal generators differ by their figures alone.
    """
    size, angle = rng.uniform(21, 31), rng.uniform(0, 2 * np.pi)
    reach = SIDE / 2 - _MARGIN - size
    centre_x, centre_y = SIDE / 2 + rng.uniform(-reach, reach, 2)
    stroke, detail = rng.uniform(5, 7), rng.uniform(1.6, 2.2)
    image, level = _background(rng)
    _clutter(image, rng)
    colour = _contrasting(level, rng)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    x, y = _GRID[None, :] - np.float32(centre_x), _GRID[:, None] - np.float32(centre_y)
    u, v = x * cosine + y * sine, y * cosine - x * sine
    sizes = map(np.float32, (size, stroke, detail))
    _paint(image, _distance(CLASS_NAMES[label], u, v, *sizes), colour)
    noise = np.float32(rng.uniform(4, 12))
    image += rng.standard_normal(image.shape, np.float32) * noise
    # + 0.5: the cast truncates
    image = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return image.transpose(1, 2, 0)


def _background(rng):
    """Colours (3, 96, 96) that change between the corners, and their mean level."""
    level = rng.uniform(40, 215)
    corners = np.clip(level + rng.uniform(-35, 35, (2, 2, 3, 1)), 0, 255)
    top, bottom = corners.astype(np.float32)
    t = _GRID / SIDE
    left, right = top + (bottom - top) * t
    return left[..., None] + (right - left)[..., None] * t, level


def _clutter(image, rng):
    """Blobs and thin lines behind the figure, of colours near the background's."""
    for _ in range(3):
        x, y = rng.uniform(0, SIDE, 2).astype(np.float32)
        radius = np.float32(rng.uniform(4, 12))
        away = _length(_GRID[None, :] - x, _GRID[:, None] - y) - radius
        _paint(image, away, _near(image, x, y, rng))
    for _ in range(4):
        x, y = rng.uniform(0, SIDE, 2).astype(np.float32)
        angle = rng.uniform(0, np.pi)
        sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        across = (_GRID[None, :] - x) * sine - (_GRID[:, None] - y) * cosine
        half = np.float32(rng.uniform(0.6, 1.2))
        _paint(image, np.abs(across) - half, _near(image, x, y, rng))


def _near(image, x, y, rng):
    here = image[:, min(int(y), SIDE - 1), min(int(x), SIDE - 1)]
    return here + rng.uniform(-40, 40, 3).astype(np.float32)


def _contrasting(level, rng):
    """A colour whose mean is at least 85 grey levels away from the background's."""
    away = rng.uniform(85, 115)
    mean = level + (away if level < 127 else -away)
    tint = rng.uniform(-60, 60, 3)
    colour = mean + tint - tint.mean()
    return np.clip(colour, 0, 255).astype(np.float32)


def _paint(image, distance, colour):
    """Covers, in place, where `distance` (pixels, negative inside) says so."""
    pixels = np.flatnonzero(distance < 0.5)
    cover = np.minimum(0.5 - distance.ravel()[pixels], 1)
    for channel, value in zip(image.reshape(3, -1), colour, strict=True):
        under = channel[pixels]
        channel[pixels] = under + cover * (value - under)


def _length(x, y):
    return np.sqrt(x * x + y * y)


def _box(u, v, half_u, half_v):
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _distance(name, u, v, size, stroke, detail):
    """Signed distance in pixels (exact near the edge), negative inside the figure.

    Args:
        name: one of `CLASS_NAMES`.
        u, v: coordinates along and across the figure, pixels.
        size: half extent of the figure, pixels.
        stroke: width of strokes, pixels.
        detail: width of the detail that tells a pair apart, pixels.
    """
    half = detail / 2
    if name.startswith("disc"):
        inside = _length(u, v) - size * np.float32(0.85)
        slit = _box(u, v, half, size * np.float32(0.35))
        return np.maximum(inside, -slit) if name == "disc_slit" else inside
    if name.startswith("square"):
        side = size * np.float32(0.75)
        inside = _box(u, v, side, side)
        notch = _box(u, v - side, half, side * np.float32(0.6))
        return np.maximum(inside, -notch) if name == "square_notch" else inside
    if name.startswith("ring"):
        inside = np.abs(_length(u, v) - size * np.float32(0.85)) - stroke / 2
        gap = _box(u, v - size, half, size)
        return np.maximum(inside, -gap) if name == "ring_gap" else inside
    if name.startswith("bar"):
        inside = _box(u, v, size, size * np.float32(0.4))
        pitch = 3 * detail
        slits = half * np.float32(0.7) - np.abs(v - np.round(v / pitch) * pitch)
        return np.maximum(inside, slits) if name == "bar_stripes" else inside
    if name.startswith("cross"):
        inside = np.minimum(_box(u, v, size, stroke / 2), _box(u, v, stroke / 2, size))
        serif = _box(u - size + half, v, half, stroke / 2 + 3)
        return np.minimum(inside, serif) if name == "cross_serif" else inside
    if name.startswith("dumbbell"):
        apart = size * np.float32(0.6)
        inside = _length(np.abs(u) - apart, v) - size * np.float32(0.36)
        link = _box(u, v, apart, half * np.float32(0.7))
        return np.minimum(inside, link) if name == "dumbbell_linked" else inside
    if name == "triangle":
        slope = np.float32(np.sqrt(0.75))
        return np.maximum(np.abs(u) * slope + v / 2, -v) - size / 2
    petals = 5 * np.arctan2(v, u)
    return _length(u, v) - size * (np.float32(0.7) + np.cos(petals) / 4)
