# ruff: noqa: I001 - augmentations are registered in the order of these lines, in which params.yaml applies them
"""Augmentation: label-preserving random transforms, functions (images, rng, amount) -> images.

Each image of a batch gets random numbers of its own. The argument is left unchanged, the same generator
state gives the same bytes, and amount 0 gives a copy. `compose` applies several, one after the other.
Displacements are defined backwards: each output pixel is mapped to the position in the input from which it
takes its value, so that every output pixel gets exactly one value. With p = (row, column), counted from 0
downwards and to the right, and the centre of the image c = ((h − 1)/2, (w − 1)/2),

    y[p] = x(A (p − c) + c + b)          shift, rotation, zoom, aspect, shear
    y[p] = x(p + d(p))                   elastic distortion

Between pixels, x(·) is interpolated bilinearly. Beyond the border it is `fill`, the background: a number, or
one for each channel (0 for raw images; for standardised images, the value that 0 was mapped to).

The order is that in which an image comes about: where the object is, what the pen and the lens do to it, and
the light at the end. Gamma stands before brightness and contrast, since these leave the range from black to
white, to which gamma clips.

Raises: every function raises ValueError if the images, the amount, `fill`, `black` or `white` is not what
its docstring asks for.
"""

from cnn.augmentation.affine import random_shift as random_shift
from cnn.augmentation.affine import random_rotation as random_rotation
from cnn.augmentation.affine import random_zoom as random_zoom
from cnn.augmentation.affine import random_aspect as random_aspect
from cnn.augmentation.affine import random_shear as random_shear
from cnn.augmentation.elastic import elastic_distortion as elastic_distortion
from cnn.augmentation.crop import random_crop as random_crop
from cnn.augmentation.flips import horizontal_flip as horizontal_flip
from cnn.augmentation.flips import alternating_flip as alternating_flip
from cnn.augmentation.filters import random_stroke as random_stroke
from cnn.augmentation.filters import random_blur as random_blur
from cnn.augmentation.light import random_gamma as random_gamma
from cnn.augmentation.light import random_brightness as random_brightness
from cnn.augmentation.light import random_contrast as random_contrast
from cnn.augmentation.erasing import cutout as cutout
from cnn.augmentation.erasing import random_erasing as random_erasing
from cnn.augmentation.composition import compose as compose
