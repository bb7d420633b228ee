"""3x3 convolution with stride 1 by minimal filtering: fewer products than in its definition.

Outputs are computed in tiles of m x m from t x t pixels, t = m + 2; neighbouring tiles share two rows or
columns of pixels. For one channel d of t x t pixels, and a 3x3 kernel g, F(m x m, 3x3) is

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A        ⊙ multiplies element by element

with constant A (t, m), B (t, t) and G (t, 3), see `minimal_filter`. It takes t² products, and the definition
9·m²: 4 times as many for m = 4, and 2.25 times as many for m = 2. Channels are summed before the last
transform, so that ⊙ becomes one product of matrices for each of the t² positions ξ in a tile:

    M[ξ, tile, o] = Σ_c V[ξ, tile, c] · U[ξ, c, o]        V = Bᵀ d B,    U = G g Gᵀ,    y = Aᵀ M A

All of it is linear in d and in g. The gradients are the adjoints of these steps in reverse order,

    dM = A dy Aᵀ,    dU[ξ] = V[ξ]ᵀ dM[ξ],    dg = Gᵀ dU G,    dV[ξ] = dM[ξ] U[ξ]ᵀ,    dd = B dV Bᵀ

where the dd of neighbouring tiles add up in the pixels that they share.

Each transform is two products with a small matrix, one down the rows and one along the columns of every tile.
They read overlapping views of the image and write in the layout that the next step reads, so tiles are never
copied. Inside, images are arrays (h, w, n, c): what a pixel holds for all images is contiguous, so the
products are few and long, even with few channels.
Source: Lavin & Gray, "Fast algorithms for convolutional neural networks" (2016), equations 8 to 12.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, reduce
from math import isqrt, prod
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cnn.ops.arrays import empty, is_on_host, place, zeros
from cnn.ops.pooling import first_maximum
from cnn.ops.windows import FourSides, Pair

Matrix = list[list[Fraction]]
Pixels = Float[np.ndarray, "height width n channels"]

# The points at which `minimal_filter` evaluates polynomials, by m. Points p, −p, 1/p and −1/p keep the
# matrices' entries close to 1, and the errors in float32 small: for m = 4, a quarter of those of the usual 0,
# ±1, ±2. See Alam et al., "Winograd convolution for deep neural networks: efficient point selection" (2022).
POINTS = {
    2: [Fraction(p) for p in ("0", "1", "-1")],
    3: [Fraction(p) for p in ("0", "3/4", "-3/4", "2")],
    4: [Fraction(p) for p in ("0", "3/4", "-3/4", "4/3", "-4/3")],
    5: [Fraction(p) for p in ("0", "1", "-1", "3/5", "-3/5", "5/2")],
    6: [Fraction(p) for p in ("0", "1", "-1", "3/5", "-3/5", "5/3", "-5/3")],
    7: [Fraction(p) for p in ("0", "3/7", "-3/7", "6/7", "-6/7", "4/3", "-4/3", "3")],
}
MIN_IN_CHANNELS, MIN_OUT_CHANNELS = 16, 8  # with fewer, `best_tile` is always 0
# Of V, so that what one step writes is still in the cache when the next one reads it. It is the same on all
# machines, because the order of sums depends on it.
BLOCK_BYTES = 2**20
_MATRICES: dict[tuple[int, np.dtype[Any], type], tuple[NDArray[Any], ...]] = {}  # that `_matrices` has made


@dataclass(frozen=True)
class Transformed:
    """What a forward pass saves for the gradients: of each block of images, V and the pool's winners."""

    v: list[Float[np.ndarray, "positions _ c"]]
    winners: list[Int[np.ndarray, "p q _ o"] | None]
    slices: list[slice]  # the images of each block
    shape: tuple[int, ...]  # of x


def best_tile(out_h: int, out_w: int, in_channels: int, out_channels: int, n: int) -> int:
    """The m with which F(m x m, 3x3) is fastest for n images of out_h x out_w outputs; 0 if none is faster.

    Measured in products for each pair of channels, the definition costs 9 · n·out_h·out_w and F(m x m, 3x3)

        t² · (n·tiles · (1 + 5/6·t · (1/in_channels + 1/out_channels)) + max(in_channels, out_channels) / 8)

    The fractions account for the transforms of images, and the last term for the work on U. F must cost 1.8
    times less than the definition, because its matrices are smaller, and it needs enough channels. The
    constants are fitted to times of forward and both gradients together, on one thread, with and without
    AVX-512. The best m is mostly the one whose tiles reach least beyond the image: 5 for 10 x 10 outputs, 7
    for 7 x 7, 3 for 3 x 3. A larger m rounds more, so it must gain a tenth.
    """
    if in_channels < MIN_IN_CHANNELS or out_channels < MIN_OUT_CHANNELS:
        return 0
    best, least = 0, n * out_h * out_w * 9 / 1.8
    for m in POINTS:
        t, tiles = m + 2, n * _tiles(out_h, m) * _tiles(out_w, m)
        transforms = 1 + 5 / 6 * t * (1 / in_channels + 1 / out_channels)
        cost = t * t * (tiles * transforms + max(in_channels, out_channels) / 8)
        if cost <= (least if best == 0 else 0.9 * least):
            best, least = m, cost
    return best


def winograd_forward(
    x: Float[np.ndarray, "n h w c"],
    u: Float[np.ndarray, "positions c o"],
    pads: FourSides = ((0, 0), (0, 0)),
    pool: Pair = (1, 1),
    training: bool = True,
) -> tuple[Float[np.ndarray, "n out_h out_w o"], Transformed]:
    """Convolution by minimal filtering, and the maximum over blocks of `pool` outputs; what gradients need.

        z[n, p, q, o] = Σ_{i, j, c} padded[n, p + i, q + j, c] · kernel[i, j, c, o]
        y[n, p, q, o] = max_{a, b} z[n, p·pool_h + a, q·pool_w + b, o]

    where u = transform_kernel(kernel, m), and x is padded with zeros. Outputs beyond the last whole block of
    the pool are not computed.

    In float32 the errors of z and of both gradients, measured on random data of many sizes, stay below 1e-6
    of the largest value for m = 2, 3.2e-6 for 3 and 4, 1.2e-5 for 5, 1.8e-5 for 6, and 1e-4 for 7. A NaN or
    an infinity spreads to its whole tile.
    """
    n, h, w, c = x.shape
    o, m = u.shape[2], isqrt(len(u)) - 2
    (top, bottom), (left, right) = pads
    p, q = (top + h + bottom - 2) // pool[0], (left + w + right - 2) // pool[1]
    rows, columns = _tiles(p * pool[0], m), _tiles(q * pool[1], m)
    dtype = np.result_type(x, u)
    y = empty((n, p, q, o), like=x, dtype=dtype)
    bytes_per_image = rows * columns * len(u) * c * dtype.itemsize
    block = _images_in_block(bytes_per_image, rows * columns, o) if is_on_host(x) else max(n, 1)
    saved = Transformed([], [], [slice(i, i + block) for i in range(0, max(n, 1), block)], x.shape)
    for images in saved.slices:
        padded = _pixels_first(x[images], (top, left), (rows * m + 2, columns * m + 2), dtype)
        v = transform_input(padded, m)
        z = transform_output(v @ u, rows, columns)[: p * pool[0], : q * pool[1]]
        winner = None
        if pool != (1, 1):
            candidates = (z[a :: pool[0], b :: pool[1]] for a, b in np.ndindex(pool))
            z, winner = first_maximum(candidates) if training else (reduce(np.maximum, candidates), None)
        y[images] = z.transpose(2, 0, 1, 3)
        if training:
            saved.v.append(v)
            saved.winners.append(winner)
    return y, saved


def winograd_backward(
    grad_y: Float[np.ndarray, "n out_h out_w o"],
    saved: Transformed,
    u: Float[np.ndarray, "positions c o"],
    pads: FourSides = ((0, 0), (0, 0)),
    pool: Pair = (1, 1),
    need_grad_x: bool = True,
) -> tuple[Float[np.ndarray, "3 3 c o"], Float[np.ndarray, "n h w c"] | None]:
    """Gradients of the kernel and, if needed, of x.

    The latter is also the convolution of dL/dz, with 2 pixels of padding, and flipped kernels. That takes as
    many products, but transforms dL/dz and the kernels again, although dM and U are available. In
    measurements, it is as fast on large images and up to two times slower on small ones.
    """
    _, p, q, _ = grad_y.shape
    _, h, w, _ = saved.shape
    m, (top, left) = isqrt(len(u)) - 2, (pads[0][0], pads[1][0])
    rows, columns = _tiles(p * pool[0], m), _tiles(q * pool[1], m)
    grad_u = np.empty_like(u)
    grad_x = empty(saved.shape, like=grad_y) if need_grad_x else None
    for images, v, winner in zip(saved.slices, saved.v, saved.winners, strict=True):
        if winner is None:
            grad_z = _pixels_first(grad_y[images], (0, 0), (rows * m, columns * m), grad_y.dtype)
        else:
            grad_pooled = _pixels_first(grad_y[images], (0, 0), (p, q), grad_y.dtype)
            grad_z = zeros((rows * m, columns * m, *winner.shape[2:]), like=grad_y)
            for index, (a, b) in enumerate(np.ndindex(pool)):
                part = grad_z[a : p * pool[0] : pool[0], b : q * pool[1] : pool[1]]
                np.multiply(grad_pooled, winner == index, out=part)
        grad_product = transform_output_adjoint(grad_z, m)
        if images.start == 0:
            np.matmul(v.swapaxes(1, 2), grad_product, out=grad_u)
        else:
            grad_u += v.swapaxes(1, 2) @ grad_product
        if grad_x is not None:
            grad_padded = transform_input_adjoint(grad_product @ u.swapaxes(1, 2), rows, columns)
            inside = grad_padded[top : top + h, left : left + w].transpose(2, 0, 1, 3)
            _, reached_h, reached_w, _ = inside.shape  # the pool may drop the last rows and columns
            grad_x[images, :reached_h, :reached_w] = inside
            grad_x[images, reached_h:] = grad_x[images, :, reached_w:] = 0
    return transform_kernel_adjoint(grad_u), grad_x


def transform_input(padded: Pixels, m: int) -> Float[np.ndarray, "positions tiles c"]:
    """V = Bᵀ d B of every tile d. The order of the tiles is (row, column, image)."""
    height, width, n, c = padded.shape
    t, rows, columns = m + 2, (height - 2) // m, (width - 2) // m
    b = _matrices(m, padded)[1]
    half = b.T @ _overlapping(padded.reshape(height, width * n * c), m)  # (rows, t, width·n·c)
    half = _overlapping(half.reshape(rows, t, width, n * c), m)  # (rows, t, columns, t, n·c)
    v = empty((t, t, rows, columns, n * c), like=padded)
    np.matmul(b.T, half, out=v.transpose(2, 0, 3, 1, 4))
    return v.reshape(t * t, rows * columns * n, c)


def transform_input_adjoint(
    grad_v: Float[np.ndarray, "positions tiles c"], rows: int, columns: int
) -> Pixels:
    """Σ B dV Bᵀ over the tiles that a pixel lies in, for images of `rows` x `columns` tiles."""
    t, (tiles, c) = isqrt(len(grad_v)), grad_v.shape[1:]
    n = tiles // (rows * columns)
    b = _matrices(t - 2, grad_v)[1]
    half = _overlap_add(b @ grad_v.reshape(t, t, rows, columns, n * c).transpose(2, 0, 3, 1, 4))
    grad = _overlap_add(b @ half.reshape(rows, t, -1))  # (height, width·n·c)
    return grad.reshape(len(grad), -1, n, c)


def transform_output(product: Float[np.ndarray, "positions tiles o"], rows: int, columns: int) -> Pixels:
    """y = Aᵀ M A of every tile, for images of `rows` x `columns` tiles."""
    t, (tiles, o) = isqrt(len(product)), product.shape[1:]
    m, n = t - 2, tiles // (rows * columns)
    a = _matrices(m, product)[0]
    half = a.T @ product.reshape(t, t, rows, columns, n * o).transpose(2, 0, 3, 1, 4)
    y = a.T @ half.reshape(rows, t, columns * m * n * o)  # (rows, m, columns·m·n·o)
    return y.reshape(rows * m, columns * m, n, o)


def transform_output_adjoint(grad_y: Pixels, m: int) -> Float[np.ndarray, "positions tiles o"]:
    """dM = A dy Aᵀ of every tile."""
    height, width, n, o = grad_y.shape
    t, rows, columns = m + 2, height // m, width // m
    a = _matrices(m, grad_y)[0]
    half = a @ grad_y.reshape(rows, m, width * n * o)  # (rows, t, width·n·o)
    grad_product = empty((t, t, rows, columns, n * o), like=grad_y)
    np.matmul(a, half.reshape(rows, t, columns, m, n * o), out=grad_product.transpose(2, 0, 3, 1, 4))
    return grad_product.reshape(t * t, rows * columns * n, o)


def transform_kernel(kernel: Float[np.ndarray, "3 3 c o"], m: int) -> Float[np.ndarray, "positions c o"]:
    """U = G g Gᵀ."""
    _, _, c, o = kernel.shape
    t, g = m + 2, _matrices(m, kernel)[2]
    half = g @ kernel.transpose(1, 2, 0, 3)  # (3, c, t, o)
    u = empty((t, t, c, o), like=kernel)
    np.matmul(g, half.transpose(2, 1, 0, 3), out=u.transpose(0, 2, 1, 3))
    return u.reshape(t * t, c, o)


def transform_kernel_adjoint(grad_u: Float[np.ndarray, "positions c o"]) -> Float[np.ndarray, "3 3 c o"]:
    """dg = Gᵀ dU G."""
    t, (c, o) = isqrt(len(grad_u)), grad_u.shape[1:]
    g = _matrices(t - 2, grad_u)[2]
    half = g.T @ grad_u.reshape(t, t, c, o).transpose(0, 2, 1, 3)  # (t, c, 3, o)
    grad_kernel = empty((3, 3, c, o), like=grad_u)
    np.matmul(g.T, half.transpose(2, 1, 0, 3), out=grad_kernel.transpose(1, 2, 0, 3))
    return grad_kernel


@cache
def minimal_filter(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """A (t, m), B (t, t) and G (t, 3) of F(m, 3) in one dimension, exact.

        Σ_k A[k, i] · B[l, k] · G[k, j] = 1 if l = i + j, else 0

    and so Σ_k A[k, i] · (Σ_l B[l, k] d[l]) · (Σ_j G[k, j] g[j]) = Σ_j d[i + j] g[j].

    The product of polynomials with m and with 3 coefficients has t coefficients. Its values at t − 1 points
    and its leading coefficient determine it. Up to a factor, A and G evaluate the two polynomials, and B
    interpolates (Lagrange), so that B [(A e) ⊙ (G g)] holds the coefficients of the product. Filtering is
    the transpose of this map in e.
    """
    points = POINTS[m]
    zero, one = Fraction(0), Fraction(1)
    others = [[q for q in points if q != p] for p in points]
    a = [[p**i for i in range(m)] for p in points]
    g = [[p**j / prod(p - q for q in rest) for j in range(3)] for p, rest in zip(points, others, strict=True)]
    b_t = [[*_polynomial(rest), zero] for rest in others] + [_polynomial(points)]
    a.append([zero] * (m - 1) + [one])
    g.append([zero, zero, one])
    return a, [list(column) for column in zip(*b_t, strict=True)], g


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of Π (x − root), the lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [s - root * c for s, c in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _matrices(m: int, like: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """`minimal_filter`, rounded to the dtype of `like`, where it is."""
    key = m, like.dtype, type(like)
    if key not in _MATRICES:
        _MATRICES[key] = tuple(
            place(np.array(matrix, np.float64).astype(like.dtype), like) for matrix in minimal_filter(m)
        )
    return _MATRICES[key]


def _tiles(size: int, m: int) -> int:
    """The number of tiles that cover `size` outputs."""
    return -(-size // m)


def _images_in_block(bytes_per_image: int, tiles: int, out_channels: int) -> int:
    """How many images' V has BLOCK_BYTES or more, but is not smaller than U, which every block reads."""
    return max(-(-BLOCK_BYTES // bytes_per_image), out_channels // tiles)


def _pixels_first(x: Float[np.ndarray, "n h w c"], start: Pair, size: Pair, dtype: np.dtype[Any]) -> Pixels:
    """x in the layout (h, w, n, c), cut to `size` pixels or filled up with zeros; x begins at `start`."""
    (top, left), (height, width) = start, size
    x = x[:, : height - top, : width - left]
    n, h, w, c = x.shape
    pixels = empty((height, width, n, c), like=x, dtype=dtype)
    pixels[:top] = pixels[top + h :] = pixels[:, :left] = pixels[:, left + w :] = 0
    pixels[top : top + h, left : left + w] = x.transpose(1, 2, 0, 3)
    return pixels


def _overlapping(
    lines: Float[np.ndarray, "*lead size run"], m: int
) -> Float[np.ndarray, "*lead tiles t run"]:
    """A view of groups of m + 2 lines; neighbouring groups share two."""
    return sliding_window_view(lines, m + 2, axis=-2)[..., ::m, :, :].swapaxes(-1, -2)


def _overlap_add(tiles: Float[np.ndarray, "*lead tiles t run"]) -> Float[np.ndarray, "*lead size run"]:
    """The adjoint of _overlapping: lines that neighbours share add up."""
    *lead, count, t, run = tiles.shape
    m = t - 2
    lines = empty((*lead, count * m + 2, run), like=tiles)
    body = lines[..., :-2, :].reshape(*lead, count, m, run)  # splits an axis: a view
    body[...] = tiles[..., :m, :]
    body[..., 1:, :2, :] += tiles[..., :-1, m:, :]
    lines[..., -2:, :] = tiles[..., -1, m:, :]
    return lines
