"""What a .tflite file computes, compared with the network that it was made of."""

import collections
import dataclasses

import numpy as np
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from rs_keras.export import flatbuffer
from rs_keras.export import network as network_lib
from rs_keras.export import output

# Of the logits, as a share of their norm. float32: the same arithmetic in another
# order, with one more rounding where a factor is taken out of a kernel. float16 rounds
# kernels by 2**-11, int8_weights by up to 1/254 of each channel's largest value.
# int8 rounds every activation to 1/255 of its range as well: 0.02 to 0.06 on trained
# networks; what is further off is no rounding. lq: beside activations of two bits a
# rounding takes some of them to another level: 0.09 to 0.15 where sums were float in
# training.
TOLERANCES = {
    "float32": 1e-4,
    "float16": 1e-2,
    "int8_weights": 3e-2,
    "int8": 0.2,
    "lq": 0.3,
}
MIN_AGREEMENT = {
    "float32": 0.99,
    "float16": 0.99,
    "int8_weights": 0.99,
    "int8": 0.97,
    "lq": 0.97,
}
# Of probabilities: those of integers count in 1/256.
LARGEST_STEP = 0.01
# Agreement says little where the network gives nearly all images one class.
ENOUGH_CLASSES = 5


@dataclasses.dataclass
class Signature:
    """A signature that is run at one size of images.

    Attributes:
        key: its name in the file.
        resolution: sides of the images, pixels.
        images: uint8 (N, resolution, resolution, 3).
    """

    key: str
    resolution: int
    images: np.ndarray

    @property
    def title(self):
        if self.key == f"r{self.resolution}":
            return self.key
        return f"{self.key} {self.resolution}"


def verify(data, model, signatures, precision, *, min_agreement=None, threads=0):
    """Runs signatures of a file and compares their logits with the network's.

    Args:
        data: bytes of the .tflite file.
        model: the `Classifier` that it was made of.
        signatures: list of `Signature`.
        precision: a key of `TOLERANCES`.
        min_agreement: share of images with the network's class; default
            `MIN_AGREEMENT`.
        threads: of the interpreter; 0 for its default.

    Returns:
        {"images": N, "tolerance", "min_agreement", "signatures": {title: what `compare`
        and `delegation` return}}.

    Raises:
        output.VerificationError: an error above the tolerance, or too little agreement.
    """
    if min_agreement is None:
        min_agreement = MIN_AGREEMENT[precision]
    tolerance = TOLERANCES[precision]
    model = network_lib.in_float32(model)
    # Activations that the network itself rounds to levels.
    typical = bool(model.ranges or network_lib.activation_quantizers(model))
    interpreter, found = None, {}
    for signature in signatures:
        try:
            if interpreter is None:
                interpreter = litert.Interpreter(
                    model_content=data, num_threads=threads or None
                )
            logits, probabilities = _run(interpreter, signature)
            delegated = delegation(data, signature.key, signature.resolution)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise output.VerificationError(
                f"LiteRT cannot run {signature.title}: {reason}. Nothing was written."
            ) from error
        row = compare(logits, _logits(model, signature), typical)
        found[signature.title] = row | delegated
        if not row["error"] <= tolerance:
            raise output.VerificationError(
                f"The logits of {signature.title} differ from the network's by "
                f"{row['error']:.2g} of their norm; {precision} allows {tolerance}. "
                "Nothing was written."
            )
        softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax /= softmax.sum(axis=1, keepdims=True)
        if not np.abs(probabilities - softmax).max() <= LARGEST_STEP:
            raise output.VerificationError(
                f"The probabilities of {signature.title} are not the softmax of its "
                "logits. Nothing was written."
            )
        if row["agreement"] < min_agreement:
            raise output.VerificationError(
                f"{signature.title} agrees with the network on the class of "
                f"{row['agreement']:.1%} of the images; --min_agreement asks for "
                f"{min_agreement:.1%}. Nothing was written."
            )
    return {
        "images": len(signatures[0].images),
        "tolerance": tolerance,
        "min_agreement": min_agreement,
        "signatures": found,
    }


def compare(logits, expected, typical=False):
    """How near logits (N, C) are to those of the network.

    Args:
        typical: take the error of the median image instead of all; for networks whose
            activations have few levels, where a rounding may take one of an image over
            a threshold.

    Returns:
        {"error": norm of the difference over the norm of `expected`; "largest_error":
        that of the worst image; "agreement_of_all": share of equal classes;
        "agreement": that among images that are no near-ties; "near_ties": images whose
        two largest logits are closer than twice the error of that distance (root mean
        square over images); "near_ties_agree": how many of these agree; "classes": how
        many the network predicts; "inconclusive": whether these are too few, or most
        images near-ties}.
    """
    difference = logits - expected
    errors = _norms(difference) / _norms(expected)
    error = np.linalg.norm(difference) / max(np.linalg.norm(expected), 1e-12)
    # Of the two likeliest classes, and how far their distance is off.
    best = np.argsort(expected, axis=1)[:, :-3:-1]
    margin = -np.diff(np.take_along_axis(expected, best, axis=1))[:, 0]
    moved = -np.diff(np.take_along_axis(difference, best, axis=1))[:, 0]
    near = margin < 2 * np.sqrt(np.mean(np.square(moved)))
    equal = logits.argmax(axis=1) == expected.argmax(axis=1)
    classes = len(np.unique(expected.argmax(axis=1)))
    return {
        "error": float(np.median(errors) if typical else error),
        "largest_error": float(errors.max()),
        "agreement_of_all": float(equal.mean()),
        "agreement": float(equal[~near].mean()) if not near.all() else 1.0,
        "near_ties": int(near.sum()),
        "near_ties_agree": int(equal[near].sum()),
        "classes": classes,
        "inconclusive": classes < ENOUGH_CLASSES or bool(near.mean() > 0.5),
    }


def _norms(logits):
    return np.maximum(np.linalg.norm(logits, axis=1), 1e-12)


def delegation(data, key, resolution):
    """What XNNPACK takes over of a signature.

    Args:
        data: bytes of the .tflite file.
        key: of the signature.
        resolution: sides of the image, pixels, which the file may leave open.

    Returns:
        {"operators", "delegated": numbers, "fallbacks": {operator: number} of those
        that LiteRT's own kernels compute}.
    """
    # By itself: LiteRT tells the operators of a file's first graph only.
    alone = flatbuffer.write(flatbuffer.subset(flatbuffer.read(data), [key]))
    interpreter = litert.Interpreter(model_content=alone)
    image = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(image, (1, resolution, resolution, 3))
    interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    delegates = [op for op in operators if op["op_name"] == "DELEGATE"]
    operators = [op for op in operators if op["op_name"] != "DELEGATE"]
    producers = {int(i): op for op in operators for i in op["outputs"]}
    # A delegate's operators are those between its inputs and its outputs.
    delegated = set()
    for delegate in delegates:
        given = {int(i) for i in delegate["inputs"]}
        wanted = [int(i) for i in delegate["outputs"]]
        while wanted:
            op = producers.get(wanted.pop())
            if op is not None and op["index"] not in delegated:
                delegated.add(op["index"])
                wanted += [int(i) for i in op["inputs"] if int(i) not in given]
    others = [op["op_name"] for op in operators if op["index"] not in delegated]
    return {
        "operators": len(operators),
        "delegated": len(delegated),
        "fallbacks": dict(sorted(collections.Counter(others).items())),
    }


def _run(interpreter, signature):
    """Logits and probabilities (N, C), float32; one image after the other."""
    run = interpreter.get_signature_runner(signature.key)
    dtype = run.get_input_details()["image"]["dtype"]
    found = {"logits": [], "probabilities": []}
    for image in signature.images.astype(dtype):
        outputs = run(image=image[None])
        for name, values in found.items():
            # A copy: LiteRT reuses the memory of its outputs.
            values.append(np.array(outputs[name], "float32"))
    details = run.get_output_details()
    for name, values in found.items():
        scale, zero_point = details[name]["quantization"]
        found[name] = np.concatenate(values)
        if scale:
            found[name] = scale * (found[name] - zero_point)
    return found["logits"], found["probabilities"]


def _logits(model, signature):
    """The network as a graph: half precision rounds otherwise outside of one."""
    resolution = signature.resolution
    graph = tf.function(lambda x: model(x, resolution=resolution, training=False))
    graph = graph.get_concrete_function(
        tf.TensorSpec((None, resolution, resolution, 3), "uint8")
    )
    batches = np.array_split(signature.images, -(-len(signature.images) // 16))
    return np.concatenate([graph(tf.constant(batch)).numpy() for batch in batches])
