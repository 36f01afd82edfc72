"""Text in pictures: fonts for any script, and warnings where there is none."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image

from tests.conftest import ROOT
from train.reporting.fonts import choice, font_files, typesetter
from train.reporting.fonts.character_map import covered, covers
from train.reporting.fonts.scripts import describe_missing
from train.reporting.fonts.typesetter import Typesetter

INK = (0, 0, 0)
EMOJI = next((path for path in font_files.installed_fonts() if "ColorEmoji" in path), None)


@pytest.fixture(autouse=True)
def forget():
    """Forget the fonts and warnings of other tests."""

    def clear():
        for function in (font_files.primary_font, font_files.installed_fonts):
            function.cache_clear()
        for function in (choice._font_with, choice._has_font, typesetter._width, typesetter._font):
            function.cache_clear()
        choice._chosen.clear()
        choice._warned.clear()

    clear()
    yield
    clear()


def make_font(path, name, characters, width=1000):
    """Write a font with a filled square for each character."""
    names = {ord(c): f"c{ord(c)}" for c in characters}
    pen = TTGlyphPen(None)
    for number, corner in enumerate(((0, 0), (0, 800), (800, 800), (800, 0))):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    glyphs = [".notdef", *names.values()]
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys(glyphs, square))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (width, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def user_fonts(tmp_path, monkeypatch):
    """The user's folder of fonts; the system has none, as in a container."""
    monkeypatch.setattr(font_files, "font_folders", lambda: [str(tmp_path / "fonts")])
    (tmp_path / "fonts").mkdir()
    return tmp_path / "fonts"


def test_characters_of_fonts_are_those_that_fonttools_finds():
    folder = Path(font_files.primary_font()).parent
    rng = np.random.default_rng(0)
    codes = {*range(0x20, 0x3000), *rng.integers(0x3000, 0x1FFFF, 3000).tolist()}
    characters = {chr(code) for code in codes if not 0xD800 <= code < 0xE000}
    checked = 0
    for path in sorted(folder.glob("*.ttf")):
        table = TTFont(path)["cmap"]
        if (best := table.getBestCmap()) is None or path.name.startswith("LastResort"):
            continue
        glyphs = {c for c in characters if best.get(ord(c), ".notdef") != ".notdef"}
        assert covered(str(path), characters) == glyphs, path
        checked += 1
    assert checked > 10


def test_both_forms_of_maps_collections_and_damaged_files(tmp_path):
    small = make_font(tmp_path / "small.ttf", "Small", "ab狗")
    large = make_font(tmp_path / "large.ttf", "Large", "ab\U0001f436")
    assert {table.format for table in TTFont(small)["cmap"].tables} == {4}
    assert 12 in {table.format for table in TTFont(large)["cmap"].tables}
    collection = TTCollection()
    collection.fonts = [TTFont(large), TTFont(small)]
    collection.save(tmp_path / "both.ttc")
    text = "abc狗\U0001f436"
    assert covered(small, text) == {*"ab狗"}
    assert covered(large, text) == covered(str(tmp_path / "both.ttc"), text) == {*"ab\U0001f436"}
    content = Path(large).read_bytes()
    place = TTFont(large).reader.tables["cmap"].offset
    for length in (0, 3, 11, 40, 300, *range(place, place + 80, 3)):
        (tmp_path / f"{length}.ttf").write_bytes(content[:length])
        assert covered(str(tmp_path / f"{length}.ttf"), "\U0001f436") == set()
    assert not covers(str(tmp_path / "missing.ttf"), "a") and covers(large, "")


def test_words_stay_in_one_font_and_letters_fall_back(user_fonts):
    chinese = make_font(user_fonts / "Han.ttf", "Han", "狗猫")
    mixed = make_font(user_fonts / "Mixed.ttf", "Mixed", "Xb猫山")
    latin = font_files.primary_font()
    assert font_files.installed_fonts() == (chinese, mixed)
    assert choice.parts("true: 狗 猫 (98 %)") == [
        ("true:", latin),
        (" ", latin),
        ("狗 猫", chinese),
        (" ", latin),
        ("(98 %)", latin),
    ]
    assert choice.parts("X山") == [("X山", mixed)]  # a word of one font
    assert choice.parts("Q狗\u0301") == [("Q", latin), ("狗\u0301", chinese)]  # no font has both


def test_legible_fonts_come_first(user_fonts):
    for name in ("NotoSansCJK-Bold", "NotoSerifCJK-Regular", "NotoSansCJK-Regular", "A-Italic"):
        make_font(user_fonts / f"{name}.ttf", name, "狗")
    names = [Path(path).stem for path in font_files.installed_fonts()]
    assert names[0] == "NotoSansCJK-Regular" and names[-1] == "A-Italic"
    assert choice.parts("狗")[0].path.endswith("NotoSansCJK-Regular.ttf")


def test_missing_characters_are_one_warning_and_drawn_as_boxes(user_fonts):
    texts = ["狗 dog", "고양이 ᚠᛇᚻ", "\U0001f436"]
    with pytest.warns(choice.GlyphWarning) as warned:
        choice.warn_of_missing(texts, shapes=True)
    [message] = [str(one.message) for one in warned]
    assert "Chinese, Korean: install Noto Sans CJK (package fonts-noto-cjk)" in message
    assert "Runic: install Noto Sans Runic" in message and "emoji: install" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice.warn_of_missing([*texts, "猫"], shapes=True)  # of the same scripts
        choice.warn_of_missing(["Ærø Ψυχή Собака كلب"], shapes=True)  # DejaVu has them
    sheet = Image.new("RGB", (100, 30), "white")
    Typesetter(16).draw(sheet, 5, 20, "狗", INK)
    assert np.asarray(sheet).min() < 64


def test_scripts_that_are_not_shaped_are_one_warning():
    with pytest.warns(choice.GlyphWarning, match="Arabic are not joined .* libfribidi"):
        choice.warn_of_missing(["كلب"], shapes=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice.warn_of_missing(["كلب"], shapes=False)


@pytest.mark.skipif(not typesetter.shapes_scripts(), reason="Pillow finds no libfribidi")
def test_arabic_letters_are_joined_and_ordered_from_the_right():
    """The final letter of a word is the leftmost one, and joined letters are narrower."""
    text = Typesetter(40)
    joined, apart = text.width("ببب"), text.width("ب\u200cب\u200cب")
    assert joined < 0.8 * apart

    def ink(line):
        sheet = Image.new("L", (300, 80), 255)
        text.draw(sheet, 10, 50, line, 0)
        return np.flatnonzero((np.asarray(sheet) < 128).any(axis=0))

    # The vertical stroke of alef is at the right although it is the first letter.
    columns = ink("اب")
    alef = ink("ا")
    assert columns[-1] - columns[0] > 2 * (alef[-1] - alef[0])
    tall = Image.new("L", (300, 80), 255)
    text.draw(tall, 10, 50, "اب", 0)
    heights = (np.asarray(tall) < 128).sum(axis=0)
    assert heights.argmax() > (columns[0] + columns[-1]) / 2


def test_lines_are_broken_between_words_then_characters_but_not_within_a_letter(user_fonts):
    text = Typesetter(12)
    width = text.width("golden retriever")
    lines = text.wrap("golden retriever puppy (98 %)", width)
    assert lines == ["golden retriever", "puppy (98 %)"]
    lines = text.wrap("e\u0301" * 40, width)
    assert len(lines) > 1 and "".join(lines) == "e\u0301" * 40
    assert all(line.startswith("e") and text.width(line) <= width for line in lines)
    assert text.wrap("   ", width) == []


def test_long_names_keep_their_end():
    text = Typesetter(10)
    name = f"{'photos/' * 9}IMG_0001.jpg"
    short = text.shorten(name, 130)
    assert short.startswith("photos/") and short.endswith("IMG_0001.jpg") and "…" in short
    assert 100 < text.width(short) <= 130
    assert text.shorten("a.jpg", 130) == "a.jpg" and text.shorten(name, 1) == "…"


@pytest.mark.skipif(EMOJI is None, reason="no font of colored emoji")
def test_bitmaps_of_emoji_have_the_size_of_the_text(user_fonts):
    """Fonts of colored emoji have bitmaps of a single size."""
    shutil.copy(EMOJI, user_fonts)
    text, sheet = Typesetter(20), Image.new("RGB", (60, 40), "white")
    assert 18 < text.width("\U0001f436") < 32
    text.draw(sheet, 10, 30, "\U0001f436", INK)
    pixels = np.asarray(sheet).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).max() > 60  # colored
    assert (pixels[:, 50:] == 255).all() and (pixels[:8] == 255).all()


def test_pictures_are_drawn_without_matplotlib_and_any_font(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np\n"
        "from train.reporting import plots\n"
        "from train.reporting.fonts import choice, font_files\n"
        "choice.primary_font = font_files.primary_font = lambda: None\n"
        "choice.installed_fonts = lambda: ()\n"
        "images = np.zeros((2, 8, 8, 3), np.uint8)\n"
        "plots.draw_grid(sys.argv[1], plots.Pictures(images, ['dog', '狗'], [], 'a title'))\n"
    )
    path = tmp_path / "a.png"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert path.exists() and done.stderr.count("GlyphWarning") == 1, done.stderr


def test_fonts_to_install():
    assert describe_missing("狗") == "Chinese: install Noto Sans CJK (package fonts-noto-cjk)"
    assert describe_missing("सฉ") == (
        "Devanagari: install Noto Sans Devanagari (package fonts-noto);"
        " Thai: install Noto Sans Thai (package fonts-noto)"
    )
    assert describe_missing("\ue000") == "U+E000: install one that has it"
