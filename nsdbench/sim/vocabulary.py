"""What scenes are made of: words, colours, and which of them go together."""

from __future__ import annotations

RGB = tuple[int, int, int]

BACKGROUNDS = ("beach", "sea", "field", "forest", "mountain", "snow", "street", "room", "table", "night")
TEXTURES = ("plain", "stripes", "dots", "checks")
TEXTURE_SHARES = (0.55, 0.20, 0.15, 0.10)

COLOURS: dict[str, RGB] = {
    "red": (205, 40, 40),
    "orange": (240, 135, 30),
    "yellow": (245, 215, 40),
    "green": (45, 150, 60),
    "blue": (40, 85, 205),
    "purple": (135, 55, 175),
    "pink": (240, 140, 180),
    "brown": (125, 80, 45),
    "black": (35, 35, 40),
    "white": (242, 242, 238),
}
_ANY = tuple(COLOURS)

CATEGORY_TABLE: dict[str, tuple[str, tuple[str, ...], float]] = {
    # category: super-category, colours, width divided by height
    "person": ("person", ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"), 0.46),
    "dog": ("mammal", ("brown", "black", "white", "orange"), 1.25),
    "cat": ("mammal", ("orange", "black", "white", "brown"), 0.90),
    "cow": ("mammal", ("brown", "white", "black"), 1.45),
    "zebra": ("mammal", ("white",), 1.25),
    "bird": ("bird", ("red", "blue", "yellow", "green", "white", "black"), 1.30),
    "car": ("vehicle", _ANY, 1.90),
    "bus": ("vehicle", ("red", "orange", "yellow", "green", "blue", "purple", "white"), 1.70),
    "boat": ("craft", _ANY, 1.05),
    "airplane": ("craft", ("white", "red", "blue", "yellow", "orange"), 1.90),
    "banana": ("fruit", ("yellow", "green"), 1.50),
    "apple": ("fruit", ("red", "green", "yellow"), 1.00),
    "orange": ("fruit", ("orange",), 1.00),
    "donut": ("snack", ("pink", "brown", "white"), 1.15),
    "cup": ("snack", _ANY, 1.05),
    "chair": ("item", ("red", "orange", "yellow", "green", "blue", "brown", "black", "white"), 0.72),
    "umbrella": ("item", _ANY, 1.10),
    "ball": ("item", _ANY, 1.00),
    "house": ("building", ("red", "orange", "yellow", "blue", "pink", "brown", "white"), 1.05),
    "flower": ("plant", ("red", "orange", "yellow", "blue", "purple", "pink", "white"), 0.80),
}
CATEGORIES = tuple(CATEGORY_TABLE)
SUPERCATEGORIES = tuple(dict.fromkeys(row[0] for row in CATEGORY_TABLE.values()))
NATURAL = frozenset({"person", "dog", "cat", "cow", "bird", "banana", "apple", "orange"})
"""Categories whose surface is mostly plain."""

PLAUSIBLE: dict[str, tuple[str, ...]] = {
    "beach": ("person", "dog", "bird", "umbrella", "ball", "chair", "boat", "airplane"),
    "sea": ("boat", "bird", "airplane", "person", "ball"),
    "field": ("cow", "zebra", "dog", "person", "flower", "house", "airplane", "bird", "car", "apple"),
    "forest": ("bird", "dog", "cat", "zebra", "person", "flower", "house", "orange"),
    "mountain": ("cow", "house", "person", "bird", "airplane", "car", "dog", "zebra"),
    "snow": ("person", "dog", "house", "bird", "car", "bus", "umbrella"),
    "street": ("car", "bus", "person", "dog", "cat", "umbrella", "house", "airplane"),
    "room": ("chair", "cat", "dog", "person", "ball", "flower", "cup", "umbrella", "banana"),
    "table": ("banana", "apple", "orange", "donut", "cup", "flower", "cat"),
    "night": ("house", "car", "bus", "cat", "person", "boat", "airplane", "chair"),
}
FLYING = frozenset({"airplane"})
