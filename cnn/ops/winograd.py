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
copied.
Source: Lavin & Gray, "Fast algorithms for convolutional neural networks" (2016), equations 8 to 12.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cnn.ops.windows import pad

Matrix = list[list[Fraction]]

# The points at which `minimal_filter` evaluates polynomials, by m. Points p, −p, 1/p and −1/p keep the
# matrices' entries close to 1, and reduce float32 errors to a quarter of those with the usual 0, ±1, ±2: see
# Alam et al., "Winograd convolution for deep neural networks: efficient point selection" (2022).
POINTS = {
    2: [Fraction(p) for p in ("0", "1", "-1")],
    4: [Fraction(p) for p in ("0", "3/4", "-3/4", "4/3", "-4/3")],
}
MIN_IN_CHANNELS, MIN_OUT_CHANNELS = 16, 8  # with fewer, `best_tile` is always 0
BLOCK_BYTES = 2**20  # of V, so that what one step writes is still in the cache when the next one reads it


@dataclass(frozen=True)
class Transformed:
    """What a forward pass saves for the gradients: V, in blocks of images, and U."""

    v: list[Float[np.ndarray, "positions _ c"]]
    u: Float[np.ndarray, "positions c o"]
    block: int  # images per block


def best_tile(out_h: int, out_w: int, in_channels: int, out_channels: int, n: int) -> Literal[0, 2, 4]:
    """The m with which F(m x m, 3x3) is fastest for n images of out_h x out_w outputs; 0 if none is faster.

    Measured in products for each pair of channels, the definition costs 9 · n·out_h·out_w and F(m x m, 3x3)

        t² · (n·tiles · (1 + 5/in_channels + 5/out_channels) + max(in_channels, out_channels) / 8)

    The fractions account for the transforms of images, and the last term for the work on U. F must cost 1.8
    times less than the definition, because its matrices are smaller, and it needs enough channels. The
    constants are fitted to times of forward and both gradients together, on one thread, with and without
    AVX-512. If F is faster at all, 4 is usually best, from 7 x 7 outputs and about a hundred tiles upwards.
    2 is best if tiles of 4 reach far beyond the image, as for 6 x 6 outputs.
    """
    if in_channels < MIN_IN_CHANNELS or out_channels < MIN_OUT_CHANNELS:
        return 0
    transforms, kernels = 1 + 5 / in_channels + 5 / out_channels, max(in_channels, out_channels) / 8
    tiles = {m: n * _tiles(out_h, m) * _tiles(out_w, m) for m in (2, 4)}
    costs = {m: (m + 2) ** 2 * (tiles[m] * transforms + kernels) for m in tiles}
    best: Literal[2, 4] = 2 if costs[2] < costs[4] else 4
    return best if 1.8 * costs[best] <= 9 * n * out_h * out_w else 0


def winograd_forward(
    padded: Float[np.ndarray, "n h w c"], kernel: Float[np.ndarray, "3 3 c o"], tile: int
) -> tuple[Float[np.ndarray, "n h-2 w-2 o"], Transformed]:
    """y[n, p, q, o] = Σ_{i, j, c} padded[n, p + i, q + j, c] · kernel[i, j, c, o] by F(tile x tile, 3x3).

    In float32 the errors of y and of both gradients, measured on random data of many sizes, stay below 3.1e-6
    of the largest value with tile 4, and 1.1e-6 with tile 2. A NaN or an infinity spreads to its whole tile.
    """
    padded = padded.astype(np.result_type(padded, kernel), copy=False)
    n, h, w, _ = padded.shape
    o = kernel.shape[3]
    saved = Transformed([], transform_kernel(kernel, tile), _block(padded, o, tile))
    y = np.empty((n, h - 2, w - 2, o), padded.dtype)
    for images in _slices(n, saved.block):
        v = transform_input(padded[images], tile)
        y[images] = transform_output(v @ saved.u, y[images].shape, tile)
        saved.v.append(v)
    return y, saved


def winograd_backward(
    grad_y: Float[np.ndarray, "n out_h out_w o"], saved: Transformed, tile: int, need_grad_x: bool = True
) -> tuple[Float[np.ndarray, "3 3 c o"], Float[np.ndarray, "n out_h+2 out_w+2 c"] | None]:
    """Gradients of the kernel and, if needed, of the padded images.

    The latter is also the convolution of grad_y, with 2 pixels of padding, and flipped kernels. That takes as
    many products, but transforms grad_y and the kernels again, although dM and U are available. In
    measurements, it is as fast on large images and up to two times slower on small ones.
    """
    n, out_h, out_w, _ = grad_y.shape
    grad_u = np.empty_like(saved.u)
    shape = (n, out_h + 2, out_w + 2, saved.u.shape[1])
    grad_padded = np.empty(shape, grad_y.dtype) if need_grad_x else None
    for images, v in zip(_slices(n, saved.block), saved.v, strict=True):
        grad_product = transform_output_adjoint(grad_y[images], tile)
        if images.start == 0:
            np.matmul(v.swapaxes(1, 2), grad_product, out=grad_u)
        else:
            grad_u += v.swapaxes(1, 2) @ grad_product
        if grad_padded is not None:
            grad_v = grad_product @ saved.u.swapaxes(1, 2)
            grad_padded[images] = transform_input_adjoint(grad_v, grad_padded[images].shape, tile)
    return transform_kernel_adjoint(grad_u, tile), grad_padded


def transform_input(
    padded: Float[np.ndarray, "n h w c"], tile: int
) -> Float[np.ndarray, "positions tiles c"]:
    """V = Bᵀ d B of every tile d; pixels beyond the images are zero."""
    n, h, w, c = padded.shape
    t, rows, columns = tile + 2, _tiles(h - 2, tile), _tiles(w - 2, tile)
    height, width = rows * tile + 2, columns * tile + 2
    padded = pad(padded, ((0, height - h), (0, width - w)))
    b = _matrices(tile, padded.dtype)[1]
    half = b.T @ _overlapping(padded.reshape(n, height, width * c), tile)  # (n, rows, t, width·c)
    half = _overlapping(half.reshape(n, rows, t, width, c), tile)  # (n, rows, t, columns, t, c)
    v = np.empty((t, t, n, rows, columns, c), padded.dtype)
    np.matmul(b.T, half, out=v.transpose(2, 3, 0, 4, 1, 5))
    return v.reshape(t * t, n * rows * columns, c)


def transform_input_adjoint(
    grad_v: Float[np.ndarray, "positions tiles c"], shape: tuple[int, ...], tile: int
) -> Float[np.ndarray, "n h w c"]:
    """Σ B dV Bᵀ over the tiles that a pixel lies in, for padded images of `shape`."""
    n, h, w, c = shape
    t, rows, columns = tile + 2, _tiles(h - 2, tile), _tiles(w - 2, tile)
    b = _matrices(tile, grad_v.dtype)[1]
    tiles = grad_v.reshape(t, t, n, rows, columns, c).transpose(2, 3, 0, 4, 1, 5)
    half = _overlap_add(b @ tiles)  # (n, rows, t, width, c)
    grad = _overlap_add(b @ half.reshape(n, rows, t, half.shape[3] * c))  # (n, height, width·c)
    return grad.reshape(n, rows * tile + 2, columns * tile + 2, c)[:, :h, :w]


def transform_output(
    product: Float[np.ndarray, "positions tiles o"], shape: tuple[int, ...], tile: int
) -> Float[np.ndarray, "n out_h out_w o"]:
    """y = Aᵀ M A of every tile, cut to `shape`."""
    n, out_h, out_w, o = shape
    t, rows, columns = tile + 2, _tiles(out_h, tile), _tiles(out_w, tile)
    a = _matrices(tile, product.dtype)[0]
    tiles = product.reshape(t, t, n, rows, columns, o).transpose(2, 3, 0, 4, 1, 5)
    half = a.T @ tiles  # (n, rows, t, columns, tile, o)
    y = a.T @ half.reshape(n, rows, t, columns * tile * o)  # (n, rows, tile, columns·tile·o)
    return y.reshape(n, rows * tile, columns * tile, o)[:, :out_h, :out_w]


def transform_output_adjoint(
    grad_y: Float[np.ndarray, "n out_h out_w o"], tile: int
) -> Float[np.ndarray, "positions tiles o"]:
    """dM = A dy Aᵀ of every tile."""
    n, out_h, out_w, o = grad_y.shape
    t, rows, columns = tile + 2, _tiles(out_h, tile), _tiles(out_w, tile)
    grad_y = pad(grad_y, ((0, rows * tile - out_h), (0, columns * tile - out_w)))
    a = _matrices(tile, grad_y.dtype)[0]
    half = a @ grad_y.reshape(n, rows, tile, columns * tile * o)  # (n, rows, t, columns·tile·o)
    grad_product = np.empty((t, t, n, rows, columns, o), grad_y.dtype)
    np.matmul(a, half.reshape(n, rows, t, columns, tile, o), out=grad_product.transpose(2, 3, 0, 4, 1, 5))
    return grad_product.reshape(t * t, n * rows * columns, o)


def transform_kernel(kernel: Float[np.ndarray, "3 3 c o"], tile: int) -> Float[np.ndarray, "positions c o"]:
    """U = G g Gᵀ."""
    _, _, c, o = kernel.shape
    t, g = tile + 2, _matrices(tile, kernel.dtype)[2]
    half = g @ kernel.transpose(1, 2, 0, 3)  # (3, c, t, o)
    u = np.empty((t, t, c, o), kernel.dtype)
    np.matmul(g, half.transpose(2, 1, 0, 3), out=u.transpose(0, 2, 1, 3))
    return u.reshape(t * t, c, o)


def transform_kernel_adjoint(
    grad_u: Float[np.ndarray, "positions c o"], tile: int
) -> Float[np.ndarray, "3 3 c o"]:
    """dg = Gᵀ dU G."""
    _, c, o = grad_u.shape
    t, g = tile + 2, _matrices(tile, grad_u.dtype)[2]
    half = g.T @ grad_u.reshape(t, t, c, o).transpose(0, 2, 1, 3)  # (t, c, 3, o)
    grad_kernel = np.empty((3, 3, c, o), grad_u.dtype)
    np.matmul(g.T, half.transpose(2, 1, 0, 3), out=grad_kernel.transpose(1, 2, 0, 3))
    return grad_kernel


@cache
def minimal_filter(tile: int) -> tuple[Matrix, Matrix, Matrix]:
    """A (t, m), B (t, t) and G (t, 3) of F(m, 3) in one dimension, exact.

        Σ_k A[k, i] · B[l, k] · G[k, j] = 1 if l = i + j, else 0

    and so Σ_k A[k, i] · (Σ_l B[l, k] d[l]) · (Σ_j G[k, j] g[j]) = Σ_j d[i + j] g[j].

    The product of polynomials with m and with 3 coefficients has t coefficients. Its values at t − 1 points
    and its leading coefficient determine it. Up to a factor, A and G evaluate the two polynomials, and B
    interpolates (Lagrange), so that B [(A e) ⊙ (G g)] holds the coefficients of the product. Filtering is
    the transpose of this map in e.
    """
    points = POINTS[tile]
    zero, one = Fraction(0), Fraction(1)
    others = [[q for q in points if q != p] for p in points]
    a = [[p**i for i in range(tile)] for p in points]
    g = [[p**j / prod(p - q for q in rest) for j in range(3)] for p, rest in zip(points, others, strict=True)]
    b_t = [[*_polynomial(rest), zero] for rest in others] + [_polynomial(points)]
    a.append([zero] * (tile - 1) + [one])
    g.append([zero, zero, one])
    return a, [list(column) for column in zip(*b_t, strict=True)], g


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of Π (x − root), the lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [s - root * c for s, c in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


@cache
def _matrices(tile: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """`minimal_filter`, rounded to `dtype`."""
    return tuple(np.array(matrix, np.float64).astype(dtype) for matrix in minimal_filter(tile))


def _tiles(size: int, tile: int) -> int:
    """The number of tiles that cover `size` outputs."""
    return -(-size // tile)


def _block(padded: Float[np.ndarray, "n h w c"], out_channels: int, tile: int) -> int:
    """Images per block: V has about BLOCK_BYTES, but is not smaller than U, which every block reads."""
    _, h, w, c = padded.shape
    tiles = _tiles(h - 2, tile) * _tiles(w - 2, tile)
    fit = BLOCK_BYTES // ((tile + 2) ** 2 * tiles * c * padded.itemsize)
    return max(1, fit, out_channels // tiles)


def _slices(n: int, block: int) -> list[slice]:
    """The blocks of n images."""
    return [slice(start, start + block) for start in range(0, max(n, 1), block)]


def _overlapping(
    lines: Float[np.ndarray, "*lead size run"], tile: int
) -> Float[np.ndarray, "*lead tiles t run"]:
    """A view of groups of tile + 2 lines; neighbouring groups share two."""
    return sliding_window_view(lines, tile + 2, axis=-2)[..., ::tile, :, :].swapaxes(-1, -2)


def _overlap_add(tiles: Float[np.ndarray, "*lead tiles t run"]) -> Float[np.ndarray, "*lead size run"]:
    """The adjoint of _overlapping: lines that neighbours share add up."""
    *lead, count, t, run = tiles.shape
    tile = t - 2
    lines = np.empty((*lead, count * tile + 2, run), tiles.dtype)
    body = lines[..., :-2, :].reshape(*lead, count, tile, run)  # splits an axis: a view
    body[...] = tiles[..., :tile, :]
    body[..., 1:, :2, :] += tiles[..., :-1, tile:, :]
    lines[..., -2:, :] = tiles[..., -1, tile:, :]
    return lines
