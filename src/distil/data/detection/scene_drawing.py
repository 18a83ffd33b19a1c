"""What a scene of handwritten digits shows and how it is painted. All choices are ours."""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

MARGIN = 2
"""Empty pixels put around the 8 x 8 handwriting, so that blur and turns have room."""
OPAQUE = 0.4
"""Opacity from which on a pixel belongs to a digit and to its box."""
COVERED = 0.15
"""Share of a digit's pixels that is hidden from which on it counts as occluded."""
MOST_COVERED = 0.5
"""At most this share of a digit's pixels is hidden."""
TRIES = 12
"""Places that are tried for a digit or a bar before it is left out."""


@dataclass(eq=False)
class Digit:
    """A digit on the canvas.

    ink: opacity of the pixels from `corner` (x, y) on, float32 in [0, 1], blurred if the digit is.
    solid: its pixels on the canvas as if it were sharp and nothing covered it. shown: those that nothing covers.
    box: tight around `solid`, xyxy.
    """

    label: int
    ink: np.ndarray
    corner: tuple[int, int]
    solid: np.ndarray
    shown: np.ndarray
    box: tuple[int, int, int, int]
    blurred: bool

    @property
    def hidden(self) -> float:
        """Share of its pixels that something covers."""
        return 1.0 - np.count_nonzero(self.shown) / np.count_nonzero(self.solid)


@dataclass(eq=False)
class Layout:
    """Digits from the back to the front. bars: each lies over so many of the digits; its pixels on the canvas."""

    digits: list[Digit] = field(default_factory=list)
    bars: list[tuple[int, np.ndarray]] = field(default_factory=list)


def arrange(
    handwriting: np.ndarray,
    labels: np.ndarray,
    *,
    canvas: int,
    objects: tuple[int, int],
    sides: tuple[int, int],
    blurred: float,
    occluded: float,
    draws: np.random.Generator,
) -> Layout:
    """Digits of random size, turn and place, some blurred, some under a bar or another digit.

    handwriting: uint8 (n, 8, 8), 0 to 16. labels: of each. canvas: side in pixels. The rest as in `SceneSettings`.
    Digits keep clear of one another but where one is meant to cover another; none is hidden by more than half.
    """
    layout = Layout()
    for _ in range(int(draws.integers(objects[0], objects[1] + 1))):
        which = int(draws.integers(len(handwriting)))
        side = math.exp(draws.uniform(math.log(sides[0]), math.log(sides[1])))
        sharp = enlarge(handwriting[which], side, draws)
        is_blurred = draws.random() < blurred
        ink = _blur(sharp, side * draws.uniform(0.05, 0.1)) if is_blurred else sharp
        covers = draws.random() < occluded
        over = covers and bool(layout.digits) and draws.random() < 0.5
        digit = _place(layout, int(labels[which]), sharp, ink, is_blurred, over, canvas, draws)
        if digit is None:
            continue
        for other in layout.digits:
            other.shown = other.shown & ~digit.solid
        layout.digits.append(digit)
        if covers and not over:
            _put_bar(layout, digit, side, canvas, draws)
    return layout


def enlarge(handwriting: np.ndarray, side: float, draws: np.random.Generator) -> np.ndarray:
    """Opacity of one digit, float32, its 8 rows enlarged to `side` pixels, turned, slanted and narrowed at random.

    Bicubic, then sharpened about one half in proportion to the enlargement, so that strokes of large digits have edges.
    """
    scale = side / 8
    angle, slant = math.radians(draws.uniform(-12, 12)), draws.uniform(-0.2, 0.2)
    across = scale * draws.uniform(0.8, 1.05)
    cosine, sine = math.cos(angle), math.sin(angle)
    inverse = np.array([[cosine / across, sine / across], [-sine / scale, cosine / scale]])
    inverse = np.array([[1.0, slant], [0.0, 1.0]]) @ inverse
    padded = np.pad(handwriting, MARGIN).astype(np.float32) * (255 / 16)
    middle = len(padded) / 2
    size = math.ceil(side * len(padded) / 8)
    offset = middle - inverse @ np.array([size / 2, size / 2])
    data = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
    source = Image.fromarray(padded.round().astype(np.uint8))
    smooth = source.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    gain = min(max(scale / 1.5, 1.2), 4.0)
    return ((np.asarray(smooth, dtype=np.float32) / 255 - 0.5) * gain + 0.5).clip(0, 1)


def _blur(ink: np.ndarray, radius: float) -> np.ndarray:
    soft = Image.fromarray((ink * 255).round().astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(soft, dtype=np.float32) / 255


def _place(
    layout: Layout,
    label: int,
    sharp: np.ndarray,
    ink: np.ndarray,
    blurred: bool,
    over: bool,
    canvas: int,
    draws: np.random.Generator,
) -> Digit | None:
    """The digit where it is clear of the others or, if `over`, covers one of them in part; None if there is no room."""
    opaque = sharp > OPAQUE
    columns, rows = np.flatnonzero(opaque.any(0)), np.flatnonzero(opaque.any(1))
    if not len(columns):
        return None
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
    if max(width, height) > canvas:
        return None
    for _ in range(TRIES):
        if over:
            under = layout.digits[int(draws.integers(len(layout.digits)))].box
            angle, near = draws.uniform(0, 2 * math.pi), draws.uniform(0.25, 0.6)
            x = (under[0] + under[2] - width) / 2 + near * math.cos(angle) * (under[2] - under[0] + width) / 2
            y = (under[1] + under[3] - height) / 2 + near * math.sin(angle) * (under[3] - under[1] + height) / 2
            x, y = round(x), round(y)
            if not (0 <= x <= canvas - width and 0 <= y <= canvas - height):
                continue
        else:
            x, y = int(draws.integers(canvas - width + 1)), int(draws.integers(canvas - height + 1))
        box = x, y, x + width, y + height
        if not over and any(_touch(box, other.box) for other in layout.digits):
            continue
        solid = np.zeros((canvas, canvas), dtype=bool)
        solid[y : y + height, x : x + width] = opaque[top : top + height, left : left + width]
        if over and not _covers_in_part(layout, solid):
            continue
        return Digit(label, ink, (x - left, y - top), solid, solid, box, blurred)
    return None


def _touch(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Do two boxes meet, or come closer than two pixels?"""
    apart = box[0] >= other[2] + 2 or other[0] >= box[2] + 2 or box[1] >= other[3] + 2 or other[1] >= box[3] + 2
    return not apart


def _covers_in_part(layout: Layout, pixels: np.ndarray) -> bool:
    """Do these pixels hide a share of some digit, and of none too much?"""
    hidden, newly = [], []
    for digit in layout.digits:
        total = np.count_nonzero(digit.solid)
        gone = np.count_nonzero(digit.shown & pixels)
        newly.append(gone / total)
        hidden.append(digit.hidden + gone / total)
    return max(hidden) <= MOST_COVERED and max(newly) >= COVERED


def _put_bar(layout: Layout, digit: Digit, side: float, canvas: int, draws: np.random.Generator) -> None:
    """A bar over a part of a digit; none if no place is found."""
    for _ in range(TRIES):
        angle = draws.uniform(0, math.pi)
        across, along = draws.uniform(0.15, 0.35) * side, draws.uniform(0.6, 1.0) * side
        x = (digit.box[0] + digit.box[2]) / 2 + draws.uniform(-0.25, 0.25) * side
        y = (digit.box[1] + digit.box[3]) / 2 + draws.uniform(-0.25, 0.25) * side
        dx, dy = along * math.cos(angle), along * math.sin(angle)
        drawing = Image.new("L", (canvas, canvas))
        ImageDraw.Draw(drawing).line((x - dx, y - dy, x + dx, y + dy), fill=1, width=max(2, round(across)))
        bar = np.asarray(drawing).astype(bool)
        if _covers_in_part(layout, bar):
            for other in layout.digits:
                other.shown = other.shown & ~bar
            layout.bars.append((len(layout.digits), bar))
            return


def paint(layout: Layout, *, canvas: int, clutter: int, draws: np.random.Generator) -> np.ndarray:
    """The scene as uint8 (3, canvas, canvas).

    Behind: a color that wanders over the canvas, texture, strokes and shapes. Digits are lighter or darker than what
    lies behind them by a random contrast, and tinted. Then brightness and noise of the whole.
    """
    image = _background(canvas, clutter, draws)
    bars = list(layout.bars)
    for place in range(len(layout.digits) + 1):
        while bars and bars[0][0] == place:
            _, pixels = bars.pop(0)
            shade = draws.uniform(0.1, 0.9, 3).astype(np.float32)
            image[pixels] = shade + draws.uniform(-0.08, 0.08) * (np.argwhere(pixels)[:, :1] / canvas)
        if place < len(layout.digits):
            _ink(image, layout.digits[place], draws)
    image *= draws.uniform(0.75, 1.15)
    image += draws.standard_normal(image.shape, dtype=np.float32) * np.float32(draws.uniform(0.0, 0.035))
    return (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(2, 0, 1)


def _ink(image: np.ndarray, digit: Digit, draws: np.random.Generator) -> None:
    x1, y1, x2, y2 = digit.box
    behind = float(image[y1:y2, x1:x2].mean())
    contrast = draws.uniform(0.25, 0.65)
    lighter = behind < 0.5 if abs(behind - 0.5) > 0.25 else draws.random() < 0.5
    grey = behind + contrast if lighter else behind - contrast
    color = (grey + draws.uniform(-0.2, 0.2, 3)).clip(0.02, 0.98).astype(np.float32)
    (x, y), (height, width) = digit.corner, digit.ink.shape
    low_x, low_y = max(x, 0), max(y, 0)
    high_x, high_y = min(x + width, image.shape[1]), min(y + height, image.shape[0])
    opacity = digit.ink[low_y - y : high_y - y, low_x - x : high_x - x, None]
    part = image[low_y:high_y, low_x:high_x]
    part += opacity * (color - part)


def _background(canvas: int, clutter: int, draws: np.random.Generator) -> np.ndarray:
    color = draws.uniform(50, 205) + draws.uniform(-30, 30, 3)
    wandering = (color + draws.uniform(-45, 45, (4, 4, 3))).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(wandering).resize((canvas, canvas), Image.Resampling.BICUBIC)
    pencil = ImageDraw.Draw(picture)
    for _ in range(int(draws.integers(clutter + 1))):
        shade = tuple(int(value) for value in (color + draws.uniform(-90, 90, 3)).clip(0, 255))
        x, y = draws.uniform(-0.1, 1.1, 2) * canvas
        width, height = draws.uniform(0.05, 0.4, 2) * canvas
        line = max(1, round(draws.uniform(0.006, 0.04) * canvas))
        around = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        kind = int(draws.integers(5))
        start = draws.uniform(0, 360)
        if kind == 0:
            rising = draws.random() < 0.5
            ends = (around[0], around[3], around[2], around[1]) if rising else around
            pencil.line(ends, shade, 2 * line)
        elif kind == 1:
            pencil.arc(around, start, start + draws.uniform(60, 240), shade, line)
        elif kind == 2:
            pencil.ellipse(around, fill=shade)
        elif kind == 3:
            pencil.rectangle(around, outline=shade, width=line)
        else:
            corners = [(x + width * a, y + height * b) for a, b in draws.uniform(-0.7, 0.7, (3, 2))]
            pencil.polygon(corners, fill=shade)
    image = np.asarray(picture, dtype=np.float32) / 255
    for cells in (canvas // 16, canvas // 4):
        grain = Image.fromarray(draws.integers(0, 256, (cells, cells), dtype=np.uint8))
        enlarged = np.asarray(grain.resize((canvas, canvas), Image.Resampling.BICUBIC), dtype=np.float32)
        image += (enlarged / 255 - 0.5)[..., None] * np.float32(draws.uniform(0, 0.18))
    return image
