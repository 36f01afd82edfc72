"""The scripts of characters, and which fonts have them."""

import unicodedata
from collections.abc import Iterable

_EMOJI_START = 0x1F000
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "KANGXI", "IDEOGRAPHIC")
_NAMES = {"CJK": "Chinese", "HANGUL": "Korean", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}
# Scripts whose letters change with their neighbors or stand in another order than in the text.
SHAPED = (
    "ARABIC",
    "HEBREW",
    "SYRIAC",
    "NKO",
    "DEVANAGARI",
    "BENGALI",
    "GURMUKHI",
    "GUJARATI",
    "ORIYA",
    "TAMIL",
    "TELUGU",
    "KANNADA",
    "MALAYALAM",
    "SINHALA",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)


def script(character: str) -> str:
    """Return the first word of the character's Unicode name, such as ``"ARABIC"``, or ``""``."""
    return unicodedata.name(character, "").partition(" ")[0].partition("-")[0]


def describe_missing(characters: Iterable[str]) -> str:
    """Return the scripts of characters without a font, and what to install for them."""
    hints: dict[str, list[str]] = {}
    for character in sorted(set(characters)):
        word = script(character)
        if word in _CJK:
            name, hint = _NAMES.get(word, "Chinese"), "Noto Sans CJK (package fonts-noto-cjk)"
        elif ord(character) >= _EMOJI_START and unicodedata.category(character) in ("So", "Sk"):
            name, hint = "emoji", "Noto Color Emoji (package fonts-noto-color-emoji)"
        elif word:
            name = word.capitalize()
            hint = f"Noto Sans {name} (package fonts-noto)"
        else:
            name, hint = f"U+{ord(character):04X}", "one that has it"
        names = hints.setdefault(hint, [])
        if name not in names:
            names.append(name)
    parts = [f"{', '.join(names)}: install {hint}" for hint, names in hints.items()]
    return "; ".join(parts)
