"""From one image to the images of every branch of a network."""

import tensorflow as tf

from rs_keras.data import decoding
from rs_keras.data import transforms

CROPS = ("shared", "per_resolution")
FLIPS = ("per_resolution", "shared")

# The random choices of an image, told apart by these numbers in the seed.
_CROP, _FLIP = 0, 1


def check_mode(name, value, allowed):
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )


def train_images(
    image,
    name,
    branches,
    seed,
    *,
    crops="shared",
    flip="per_resolution",
    area=(0.08, 1.0),
):
    """Random crops and flips of one image at every resolution.

    With shared crops every branch resizes the same crop, each from the original pixels,
    so that the branches see one image at several resolutions (RS-Nets, section 3.1);
    crops per resolution are the ablation of Table 6. The reference flips per resolution
    although the paper's figure suggests equal images: its numbers were made that way.

    Args:
        image: scalar string (a file's bytes) or pixels (H, W, 3) uint8.
        name: scalar string, what an error calls the image.
        branches: {key: resolution}, in the order of the network's rows.
        seed: (2,) integers, from (seed, epoch, index).
        crops: "shared" or "per_resolution".
        flip: "per_resolution" or "shared".
        area: (smallest, largest) share of the image's area that a crop keeps.

    Returns:
        {key: (r, r, 3) uint8}.
    """

    def window(branch):
        key = transforms.fold_seed(seed, _CROP, branch)
        return lambda height, width: transforms.draw_crop(height, width, key, area)

    if crops == "shared":
        cropped = decoding.attempt(
            lambda x: decoding.decode_crop(x, window(0)), image, name
        )
        sources = [cropped] * len(branches)
    else:
        whole = decoding.attempt(decoding.decode, image, name)
        size = tf.unstack(tf.shape(whole)[:2])
        sources = [
            transforms.crop(whole, window(branch)(*size))
            for branch in range(len(branches))
        ]
    coins = 1 if flip == "shared" else len(branches)
    mirrored = (
        tf.random.stateless_uniform((coins,), transforms.fold_seed(seed, _FLIP)) < 0.5
    )
    images = {}
    for branch, (key, resolution) in enumerate(branches.items()):
        resized = transforms.squash(sources[branch], resolution)
        images[key] = transforms.flip(resized, mirrored[branch % coins])
    return images


def validation_images(image, name, branches):
    """The validation image of every resolution; equal for views of one resolution.

    Arguments and return value as for `train_images`.
    """
    whole = decoding.attempt(decoding.decode, image, name)
    distinct = set(branches.values())
    images = {r: transforms.validation(whole, r) for r in distinct}
    return {key: images[r] for key, r in branches.items()}
