"""The network as a drawing: a block for each shape, to scale, and residual branches as branches."""

from math import log2
from typing import NamedTuple

from markupsafe import Markup, escape

from cnn import Residual, Sequential
from cnn.layers.layer import Layer, Shape
from cnn.layers.trace import trace_shapes
from pipeline.report.facts import layer_in_words, size_in_words

LARGEST, LEAST = 54.0, 3.0  # units, of a block's longer side
DOUBLING = 2.5  # units of depth, right and up, for each doubling of the channels
LANE, TEXT, LINE, GAP = (
    72.0,
    268.0,
    15.0,
    18.0,
)  # widths of a lane and of the texts; heights of a line and a way
COLUMNS = 36  # characters in a line of text, beside a count


class _Line(NamedTuple):
    text: str
    parameters: str


class _Block:
    """Numbers of one shape, and the layers whose outputs have it."""

    def __init__(self, lane: int, shape: Shape, lines: list[_Line]) -> None:
        self.lane, self.shape, self.lines = lane, shape, lines


def network_svg(model: Sequential, input_shape: Shape) -> Markup:
    """The drawing as an SVG element in the colours of the page, with its content in words for screen readers.

    Layers that keep the shape, and have no matrix of weights, share the block of the layer before them.
    Heights and widths are to scale; each doubling of the channels adds as much depth. A vector is a block of
    one pixel. A Residual's shortcut has a lane of its own, which leaves before its layers and ends in a +.
    """
    return _Drawing(model, input_shape).finish()


class _Drawing:
    def __init__(self, model: Sequential, input_shape: Shape) -> None:
        rows = list(trace_shapes(model, input_shape))
        self.rows = {name: (before, after) for name, _, before, after in rows}
        sides = [side for shape in (input_shape, *(row[3] for row in rows)) for side in _pixels(shape)[:2]]
        self.scale = LARGEST / max(sides)
        self.parts: list[str] = []
        self.words: list[str] = []
        self.y = LINE
        self.tails: dict[int, float] = {}  # lane: where its line goes on
        self.lanes = _width(model)
        self.left = self.lanes * LANE + 4
        self.block: _Block | None = _Block(0, input_shape, [_Line("image", "")])
        self._draw(model, "", 0)
        self._flush()

    def finish(self) -> Markup:
        width, height = self.left + TEXT, self.y + 6
        words = "From the image to the classes: " + "; ".join(self.words) + "."
        return Markup(
            f'<svg class="diagram" role="img" aria-label="Drawing of the network" '
            f'aria-describedby="diagram-words" viewBox="0 0 {width:g} {height:.1f}" '
            f'preserveAspectRatio="xMinYMin" style="max-width:{1.35 * width:.0f}px">'
            "<title>Drawing of the network</title>"
            f'<desc id="diagram-words">{escape(words)}</desc>'
            f'<text class="soft" x="{width - 2:g}" y="11" text-anchor="end">parameters</text>'
            + "".join(self.parts)
            + "</svg>"
        )

    def _draw(self, layer: Layer, name: str, lane: int) -> None:
        if layer.is_list:
            for inner, child in layer.children().items():
                self._draw(child, f"{name}.{inner}".lstrip("."), lane)
        elif isinstance(layer, Residual):
            self._residual(layer, name, lane)
        else:
            before, after = self.rows[name]
            count = layer.count_parameters()
            line = _Line(f"{name} {layer_in_words(layer)}", f"{count:,}" if count else "")
            block = self.block
            if block and (block.lane, block.shape) == (lane, after) and not layer.multiply_adds(before):
                block.lines.append(line)
            else:
                self._flush()
                self.block = _Block(lane, after, [line])

    def _residual(self, layer: Residual, name: str, lane: int) -> None:
        """The layers in this lane; the shortcut in the first lane that they leave free."""
        self._flush()
        other = lane + _width(layer.layers)
        x, x_other = _middle(lane), _middle(other)
        self.y += LINE
        self._line(lane, self.y)
        self.parts.append(f'<circle class="dot" cx="{x:g}" cy="{self.y:.1f}" r="2.5"/>')
        self._text(self.y + 4, f"{name} Residual: two ways, added below", soft=True)
        self.words.append(f"{name} Residual, where the way parts")
        self.parts.append(
            f'<path class="way" d="M{x:g} {self.y:.1f}C{x_other:g} {self.y:.1f} {x_other:g} {self.y:.1f} '
            f'{x_other:g} {self.y + GAP:.1f}"/>'
        )
        self.tails[lane], self.tails[other] = self.y, self.y + GAP
        self._draw(layer.layers, f"{name}.layers", lane)
        self._flush()
        if layer.shortcut is None:
            self.words.append("the other way leaves the numbers as they are")
        else:
            self.words.append("on the other way")
            self.y = max(self.y, self.tails[other])
            self._draw(layer.shortcut, f"{name}.shortcut", other)
            self._flush()
        self.y += GAP + 8
        self._line(other, self.y - GAP)
        self.parts.append(
            f'<path class="way" d="M{x_other:g} {self.y - GAP:.1f}C{x_other:g} {self.y:.1f} {x_other:g} '
            f'{self.y:.1f} {x + 7:g} {self.y:.1f}"/>'
        )
        self._line(lane, self.y - 7)
        self.parts.append(
            f'<circle class="plus" cx="{x:g}" cy="{self.y:.1f}" r="7"/>'
            f'<path class="way" d="M{x - 4:g} {self.y:.1f}h8M{x:g} {self.y - 4:.1f}v8"/>'
        )
        size = size_in_words(self.rows[name][1])
        self._text(self.y + 4, f"their sum: {size}", soft=True)
        self.words.append(f"both are added, {size}")
        self.tails[lane] = self.y + 7
        self.y += 8

    def _flush(self) -> None:
        """Draw the block that is open, with a line to it."""
        if self.block is None:
            return
        lane, shape, lines = self.block.lane, self.block.shape, self.block.lines
        self.block = None
        height, width, channels = _pixels(shape)
        high, wide = (max(LEAST, side * self.scale) for side in (height, width))
        deep = DOUBLING * log2(channels)
        top = self.y + (GAP if lane in self.tails else 2) + deep
        left = _middle(lane) - wide / 2
        if lane in self.tails:
            self._line(lane, top)
        x0, x1, y0, y1 = left, left + wide, top, top + high
        front = f"{x0:.1f},{y0:.1f} {x1:.1f},{y0:.1f} {x1:.1f},{y1:.1f} {x0:.1f},{y1:.1f}"
        if deep:
            above = (
                f"{x0:.1f},{y0:.1f} {x0 + deep:.1f},{y0 - deep:.1f} {x1 + deep:.1f},{y0 - deep:.1f} "
                f"{x1:.1f},{y0:.1f}"
            )
            side = (
                f"{x1:.1f},{y0:.1f} {x1 + deep:.1f},{y0 - deep:.1f} {x1 + deep:.1f},{y1 - deep:.1f} "
                f"{x1:.1f},{y1:.1f}"
            )
            self.parts.append(
                f'<polygon class="top" points="{above}"/><polygon class="side" points="{side}"/>'
            )
        self.parts.append(f'<polygon class="front" points="{front}"/>')
        size = size_in_words(shape)
        text_y = top - deep + 10
        self._text(text_y, size, bold=True)
        for line in lines:
            beginning, colon, rest = line.text.partition(": ")
            if len(line.text) > COLUMNS and colon:
                text_y += LINE
                self._text(text_y, f"{beginning}:")
                line = _Line(f"\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}{rest}", line.parameters)
            text_y += LINE
            self._text(text_y, line.text, line.parameters)
        self.words.append(", ".join(line.text for line in lines) + f": {size}")
        self.tails[lane] = y1
        self.y = max(y1, text_y + 3)

    def _line(self, lane: int, y: float) -> None:
        self.parts.append(f'<path class="way" d="M{_middle(lane):g} {self.tails[lane]:.1f}V{y:.1f}"/>')

    def _text(self, y: float, text: str, count: str = "", *, bold: bool = False, soft: bool = False) -> None:
        kind = ' class="bold"' if bold else ' class="soft"' if soft else ""
        longest = COLUMNS if count else COLUMNS + 6
        text = text if len(text) <= longest else f"{text[: longest - 1]}…"
        self.parts.append(f'<text{kind} x="{self.left:g}" y="{y:.1f}">{escape(text)}</text>')
        if count:
            self.parts.append(
                f'<text x="{self.left + TEXT - 2:g}" y="{y:.1f}" text-anchor="end">{count}</text>'
            )


def _pixels(shape: Shape) -> tuple[int, int, int]:
    """(height, width, channels); a vector is one pixel."""
    height, width, channels = shape if len(shape) == 3 else (1, 1, shape[-1])
    return height, width, channels


def _middle(lane: int) -> float:
    return LARGEST / 2 + 2 + lane * LANE


def _width(layer: Layer) -> int:
    """The number of lanes that a layer needs."""
    if isinstance(layer, Residual):
        return _width(layer.layers) + (1 if layer.shortcut is None else _width(layer.shortcut))
    return max((_width(child) for child in layer.children().values()), default=1) if layer.is_list else 1
