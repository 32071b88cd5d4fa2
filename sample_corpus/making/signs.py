"""Text in pictures: signs, labels, tickets and posters, some as a camera would see them."""

from materials import (
    BOLD,
    FILES,
    INK,
    MONO,
    SERIF,
    SERIF_BOLD,
    SERIF_ITALIC,
    canvas,
    font,
    grain,
    photograph,
    save,
)
from PIL import Image, ImageDraw, ImageFilter

SIGNS = FILES / "images" / "signs"


def make_signs() -> None:
    """Write ten pictures of words under ``files/images/signs``."""
    save(_bakery(), SIGNS / "IMG_2290.jpg")
    save(_receipt(), SIGNS / "receipt_hardware_store.jpg", quality=80)
    save(_poster(), SIGNS / "concert-poster.jpg")
    save(_label(), SIGNS / "label-cough-syrup.jpg")
    save(_parking(), SIGNS / "no-parking.webp")
    save(_ticket(), SIGNS / "museum-ticket.jpg")
    save(_menu(), SIGNS / "IMG_2307.jpg")
    save(_timetable(), SIGNS / "bus-stop-timetable.png")
    save(_badge(), SIGNS / "badge.png")
    save(_riding(), SIGNS / "bridle-path-sign.jpg")


def _centred(
    pen: ImageDraw.ImageDraw, x: float, rows: list[tuple[float, str, float, str]], colour: str
) -> None:
    """Print rows of (y, words, size, face) around a middle line."""
    for y, words, size, face in rows:
        pen.text((x, y), words, font=font(size, face), fill=colour, anchor="mm")


def _on_wall(sign: Image.Image, wall: str, size: tuple[int, int], seed: int) -> Image.Image:
    """Hang a sign on a photographed wall, slightly turned, with the grain of a camera."""
    back = photograph(wall).resize(size).filter(ImageFilter.GaussianBlur(1))
    shape = Image.new("L", sign.size, 255).rotate(2, expand=True)
    turned = sign.rotate(2, Image.Resampling.BICUBIC, expand=True)
    at = ((size[0] - turned.width) // 2, (size[1] - turned.height) // 2)
    back.paste(turned, at, shape)
    return grain(back, 6, seed)


def _bakery() -> Image.Image:
    sign, pen = canvas((560, 250), "#27472f")
    pen.rectangle((10, 10, 550, 240), outline="#e7d49a", width=4)
    rows = [
        (80.0, "Stroh & Daughters", 46.0, SERIF_BOLD),
        (142.0, "BAKERY", 52.0, SERIF),
        (205.0, "since 1931 \u00b7 open from 6", 26.0, SERIF_ITALIC),
    ]
    _centred(pen, 280, rows, "#e7d49a")
    return _on_wall(sign, "brick.png", (800, 560), 1)


def _receipt() -> Image.Image:
    lines = [
        "     NAIL & SON HARDWARE", "      12 Kiln Road", "", "14/09/2024          10:41",
        "-------------------------", "Wood screws 4x40    6.20", "Hinge brass x2     11.80",
        "Sandpaper P120      3.45", "Linseed oil 1 l    14.90", "Paint brush 50mm    7.25",
        "-------------------------", "TOTAL              43.60", "CASH               50.00",
        "CHANGE              6.40", "", "  Returns within 14 days", "  Thank you, come again",
    ]  # fmt: skip
    picture, pen = canvas((520, 760), "#fbfaf5")
    for k, line in enumerate(lines):
        pen.text((52, 48 + 39 * k), line, font=font(26, MONO), fill="#33373b")
    paper = grain(picture.rotate(-1.5, Image.Resampling.BICUBIC, fillcolor="#fbfaf5"), 5, 2)
    table = photograph("coffee.png").crop((0, 0, 180, 100)).resize((640, 860))
    table.paste(paper, (60, 50))
    return table


def _poster() -> Image.Image:
    picture, pen = canvas((600, 840), "#1b2440")
    for k in range(14):  # the keys of a piano, fanned
        pen.rectangle((20 + 40 * k, 520, 56 + 40 * k, 720), fill="#f2ead8")
        if k % 7 not in (2, 6):
            pen.rectangle((44 + 40 * k, 520, 68 + 40 * k, 640), fill="#111522")
    rows = [
        (90.0, "JAZZ ON THE QUAY", 52.0, BOLD),
        (170.0, "The Mara Ellison Trio", 36.0, SERIF_ITALIC),
        (270.0, "Saturday 21 June", 40.0, SERIF_BOLD),
        (330.0, "doors 19:30, music 20:15", 28.0, SERIF),
        (420.0, "Old Customs House", 34.0, SERIF),
        (470.0, "tickets 12 crowns, children free", 24.0, SERIF),
        (780.0, "Bring a cushion", 26.0, SERIF_ITALIC),
    ]
    _centred(pen, 300, rows, "#f7d774")
    return picture


def _label() -> Image.Image:
    picture, pen = canvas((640, 480), "#6b3d1e")
    pen.rounded_rectangle((50, 50, 590, 430), 16, fill="#f4f1e6")
    pen.rectangle((50, 96, 590, 170), fill="#a83232")
    pen.text((320, 133), "COUGH SYRUP", font=font(44, BOLD), fill="white", anchor="mm")
    rows = [
        (205.0, "with thyme and ivy", 28.0, SERIF_ITALIC),
        (256.0, "Adults: 10 ml three times a day", 24.0, SERIF),
        (292.0, "Children 6-12: 5 ml twice a day", 24.0, SERIF),
        (340.0, "Shake well. Keep below 25 \u00b0C.", 24.0, SERIF),
        (384.0, "Lot 7K214    Use by 08/2026    150 ml", 20.0, MONO),
    ]
    _centred(pen, 320, rows, INK)
    return grain(picture, 4, 3)


def _parking() -> Image.Image:
    sign, pen = canvas((360, 480), "#f6f6f2")
    pen.ellipse((80, 30, 280, 230), fill="#1f4e9c", outline="#c22d2d", width=22)
    pen.line((118, 68, 242, 192), fill="#c22d2d", width=22)
    rows = [
        (275.0, "NO PARKING", 42.0, BOLD), (330.0, "fire brigade access", 26.0, SERIF),
        (380.0, "Vehicles will be", 26.0, SERIF), (415.0, "towed away", 26.0, SERIF),
    ]  # fmt: skip
    _centred(pen, 180, rows, INK)
    return _on_wall(sign, "gravel.png", (640, 640), 4)


def _ticket() -> Image.Image:
    picture, pen = canvas((760, 320), "#e9dcc0")
    cat = photograph("chelsea.png").resize((270, 180)).convert("L").convert("RGB")
    picture.paste(cat, (30, 100))
    pen.text((30, 40), "MUSEUM OF DOMESTIC ANIMALS", font=font(26, SERIF_BOLD), fill="#5b2d2d")
    rows = ["Admit one adult", "Valid 03 May 2024", "Price 9.50", "No. 004871"]
    for k, row in enumerate(rows):
        pen.text((340, 108 + 44 * k), row, font=font(25, SERIF), fill=INK)
    for k in range(20):
        pen.ellipse((715, 6 + 16 * k, 723, 14 + 16 * k), fill="#b9a680")
    return grain(picture, 4, 5)


def _menu() -> Image.Image:
    picture, pen = canvas((640, 800), "#20272b")
    pen.rectangle((0, 0, 639, 799), outline="#7a5230", width=24)
    _centred(pen, 320, [(90.0, "Today", 60.0, SERIF_ITALIC)], "#f4f1e6")
    dishes = [
        ("Pumpkin soup", "5"), ("Cheese dumplings", "9"), ("Trout with almonds", "14"),
        ("Mushroom stew", "11"), ("Plum crumble", "6"), ("Elderflower fizz", "4"),
    ]  # fmt: skip
    for k, (dish, price) in enumerate(dishes):
        pen.text((80, 180 + 88 * k), dish, font=font(38, SERIF), fill="#f4f1e6")
        pen.text((560, 180 + 88 * k), price, font=font(38, SERIF), fill="#f2b880", anchor="ra")
    return grain(picture.rotate(1, Image.Resampling.BICUBIC, fillcolor="#20272b"), 9, 6)


def _timetable() -> Image.Image:
    picture, pen = canvas((700, 560), "white")
    pen.rectangle((0, 0, 700, 90), fill="#8a1f4b")
    pen.text((30, 24), "27  Harbour - Aldermoor", font=font(34, BOLD), fill="white")
    times = {
        6: "12 42", 7: "02 17 32 47", 8: "02 17 32 47", 9: "05 25 45", 12: "05 35",
        16: "02 22 42", 17: "02 17 32 47", 19: "10 40", 22: "15", 23: "15 N",
    }  # fmt: skip
    for k, (hour, minutes) in enumerate(times.items()):
        top = 108 + 38 * k
        pen.rectangle((20, top, 680, top + 36), fill="#f6eaf0" if k % 2 else "white")
        pen.text((50, top + 5), f"{hour:02d}", font=font(22, BOLD), fill=INK)
        pen.text((140, top + 5), minutes, font=font(22, MONO), fill=INK)
    pen.text((30, 508), "N = night bus, ends at Hillcrest. Mon-Fri only.", font=font(20), fill=INK)
    return picture


def _badge() -> Image.Image:
    picture, pen = canvas((460, 640), "#ffffff")
    pen.rectangle((0, 0, 460, 170), fill="#0d6e6e")
    pen.rounded_rectangle((190, 20, 270, 40), 10, fill="white")
    head = [(84.0, "SOIL SCIENCE DAYS", 32.0, BOLD), (128.0, "Ghent, 4-6 March", 24.0, SERIF)]
    _centred(pen, 230, head, "white")
    rows = [
        (290.0, "Dr. Amina", 52.0, BOLD), (354.0, "Haddad", 52.0, BOLD),
        (430.0, "University of Oran", 28.0, SERIF), (560.0, "SPEAKER", 44.0, BOLD),
    ]  # fmt: skip
    _centred(pen, 230, rows, INK)
    return picture


def _riding() -> Image.Image:
    sign, pen = canvas((420, 430), "#f3efe2")
    pen.rectangle((8, 8, 412, 422), outline="#24623f", width=8)
    sign.paste(photograph("horse.png").resize((260, 213)), (80, 40))
    rows = [(295.0, "BRIDLE PATH", 42.0, BOLD), (350.0, "Riders give way to walkers", 24.0, SERIF)]
    _centred(pen, 210, rows, "#24623f")
    return _on_wall(sign, "grass.png", (680, 640), 7)
