"""Images for tests of copies: photo-like ones, and emoji for the canvases of the quick-start."""

import io
import random
from pathlib import Path

import numpy
from PIL import Image, ImageDraw
from unidpo_mm_quickstart.images import Emoji

SIZE = (320, 240)


def photo(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return smooth shades, shapes and noise, as in a photo."""
    generator = numpy.random.default_rng(seed)
    width, height = size
    coarse = generator.integers(0, 256, size=(5, 6, 3), dtype=numpy.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = generator.integers(0, width), generator.integers(0, height)
        w, h = (
            generator.integers(width // 30, width // 3),
            generator.integers(height // 30, height // 3),
        )
        color = tuple(generator.integers(0, 256, size=3).tolist())
        shape = draw.ellipse if generator.random() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x + w), int(y + h)), fill=color)
    noise = generator.normal(0, 6, size=(height, width, 3))
    pixels = numpy.asarray(image, dtype=float) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    """Return an image as the bytes of a file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def emoji_of(kind: str, number: int, folder: Path) -> Emoji:
    """Draw an emoji of a kind; those of one kind differ in small parts only."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(f"{kind}-{number}")
    image = Image.new("RGBA", (72, 72), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    {"face": _face, "flag": _flag, "hand": _hand}[kind](draw, generator)
    file = folder / f"{kind}-{number}.png"
    image.save(file)
    return Emoji(concept=f"{kind}-{number}", kind=kind, file=file)


def _color(generator: random.Random) -> tuple[int, int, int]:
    return generator.randrange(256), generator.randrange(256), generator.randrange(256)


def _face(draw: ImageDraw.ImageDraw, generator: random.Random) -> None:
    draw.ellipse((2, 2, 69, 69), fill=(255, 204, 77))
    for x in (24, 48):
        size, y = generator.randint(3, 8), generator.randint(22, 32)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=(102, 69, 0))
    left, top = generator.randint(16, 30), generator.randint(42, 54)
    draw.ellipse((left, top, 72 - left, top + generator.randint(3, 14)), fill=_color(generator))


def _flag(draw: ImageDraw.ImageDraw, generator: random.Random) -> None:
    for stripe in range(3):
        draw.rectangle((0, 12 + 16 * stripe, 71, 27 + 16 * stripe), fill=_color(generator))


def _hand(draw: ImageDraw.ImageDraw, generator: random.Random) -> None:
    draw.ellipse((18, 30, 54, 68), fill=(255, 220, 93))
    for finger in range(5):
        x, top = 16 + 9 * finger, generator.randint(2, 32)
        draw.rectangle((x, top, x + 6, 46), fill=(255, 220, 93))
