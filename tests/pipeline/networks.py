"""What tests of exported and imported networks share."""

import numpy as np

from pipeline.artefacts.preprocess import Description


def description(shape, classes=10, *, mean=0.0, deviation=1.0):
    """Images of this shape, normalised by one mean and one deviation."""
    channels = shape[2]
    return Description(
        dataset="random",
        title="Random images",
        class_names=[f"class {k}" for k in range(classes)],
        image_shape=shape,
        framing="crop",
        background=[0.0] * channels,
        mean=[mean] * channels,
        deviation=[deviation] * channels,
        examples={"train": 1, "validation": 1, "test": 1},
    )


def disturb(model, rng):
    """Give each parameter and buffer another value, so that none is 0 or 1 by chance."""
    state = {}
    for name, array in model.state_dict().items():
        noise = rng.uniform(-0.2, 0.2, array.shape).astype(np.float32)
        state[name] = array + (abs(noise) if name.endswith("running_var") else noise)
    model.load_state_dict(state)
    return model
