"""From one image to the images of every branch of a network."""

import tensorflow as tf

from rs_keras import resolutions as resolutions_lib
from rs_keras.data import decoding
from rs_keras.data import transforms

CROPS = ("shared", "per_resolution")
FLIPS = ("per_resolution", "shared")
RESIZES = ("exact", "chained", "device")

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
    resize="exact",
):
    """Random crops and flips of one image at every resolution.

    With shared crops every branch resizes the same crop, each from the original pixels,
    so that the branches see one image at several resolutions (RS-Nets, section 3.1);
    crops per resolution are the ablation of Table 6. The reference flips per resolution
    although the paper's figure suggests equal images: its numbers were made that way.

    Args:
        image: scalar string (a file's bytes) or pixels (H, W, 3) uint8.
        name: scalar string, what an error calls the image; or None.
        branches: {key: resolution}, in the order of the network's rows.
        seed: (2,) integers, from (seed, epoch, index).
        crops: "shared" or "per_resolution".
        flip: "per_resolution" or "shared".
        area: (smallest, largest) share of the image's area that a crop keeps.
        resize: "exact": every branch from the crop. "chained": every branch from the
            one before, which is cheaper. "device": only the first branch; a device
            makes the others of it. The last two need shared crops.

    Returns:
        {key: (r, r, 3) uint8}. With "device" {"image": (r, r, 3) uint8, "mirrored":
        (branches,) bool, which of the branches have that image mirrored}.
    """
    keys, sides = tuple(branches), tuple(branches.values())

    def window(branch):
        key = transforms.fold_seed(seed, _CROP, branch)
        return lambda height, width: transforms.draw_crop(height, width, key, area)

    if crops == "shared":
        cropped = decoding.attempt(
            lambda x: decoding.decode_crop(x, window(0)), image, name
        )
        resized = _resized(cropped, sides, resize)
    else:
        whole = decoding.attempt(decoding.decode, image, name)
        size = tf.unstack(tf.shape(whole)[:2])
        resized = [
            transforms.squash(transforms.crop(whole, window(branch)(*size)), side)
            for branch, side in enumerate(sides)
        ]
    coins = 1 if flip == "shared" else len(branches)
    mirrored = (
        tf.random.stateless_uniform((coins,), transforms.fold_seed(seed, _FLIP)) < 0.5
    )
    mirrored = tf.broadcast_to(mirrored, (len(branches),))
    images = {
        key: transforms.flip(image, mirrored[branch])
        for branch, (key, image) in enumerate(zip(keys, resized, strict=False))
    }
    if resize == "device":
        return {
            resolutions_lib.IMAGE: images[keys[0]],
            resolutions_lib.MIRRORED: mirrored != mirrored[0],
        }
    return images


def _resized(crop, sides, resize):
    """A crop at the resolution of every branch, or with "device" of the first alone."""
    if resize == "device":
        sides = sides[:1]
    distinct = tuple(dict.fromkeys(sides))  # views share their image
    chained = resize == "chained"
    squash = transforms.squash_chained if chained else transforms.squash_each
    found = dict(zip(distinct, squash(crop, distinct), strict=True))
    return [found[side] for side in sides]


def validation_images(image, name, branches):
    """The validation image of every resolution; equal for views of one resolution.

    Arguments and return value as for `train_images`.
    """
    whole = decoding.attempt(decoding.decode, image, name)
    distinct = tuple(dict.fromkeys(branches.values()))
    found = transforms.validation_each(whole, distinct)
    images = dict(zip(distinct, found, strict=True))
    return {key: images[r] for key, r in branches.items()}
