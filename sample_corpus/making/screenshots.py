"""Screenshots of programs that do not exist, drawn with PIL."""

from materials import BLUE, BOLD, FILES, GREEN, INK, MONO, RED, SANS, canvas, font, save
from PIL import Image, ImageDraw

SHOTS = FILES / "images" / "screenshots"
LINE = "#d5dbe1"


def make_screenshots() -> None:
    """Write eight screenshots under ``files/images/screenshots``."""
    save(_settings(), SHOTS / "settings-privacy.png")
    save(_terminal(), SHOTS / "Screenshot 2024-03-18 at 09.14.02.png")
    save(_mail(), SHOTS / "mail-inbox.png")
    save(_shop(), SHOTS / "webshop-lamps.webp", quality=82)
    save(_calendar(), SHOTS / "calendar-week-46.png")
    save(_chat(), SHOTS / "Screenshot_20240602-183355.png")
    save(_error(), SHOTS / "error-disk-full.png")
    save(_spreadsheet(), SHOTS / "spreadsheet-budget.png")


def _window(size: tuple[int, int], title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture, pen = canvas(size, "#f7f8fa")
    pen.rectangle((0, 0, size[0], 34), fill="#e3e7ec")
    for k, colour in enumerate(("#e0605a", "#e7b44c", "#6cbf67")):
        pen.ellipse((14 + 22 * k, 11, 26 + 22 * k, 23), fill=colour)
    pen.text((size[0] / 2, 17), title, font=font(14, BOLD), fill=INK, anchor="mm")
    return picture, pen


def _settings() -> Image.Image:
    picture, pen = _window((860, 560), "Settings")
    pen.rectangle((0, 35, 220, 560), fill="#eef1f4")
    for k, name in enumerate(
        ("General", "Network", "Privacy", "Notifications", "Updates", "About")
    ):
        top = 60 + 44 * k
        if name == "Privacy":
            pen.rounded_rectangle((10, top - 8, 210, top + 26), 6, fill="#cfe0ee")
        pen.text((26, top), name, font=font(15), fill=INK)
    pen.text((250, 60), "Privacy", font=font(24, BOLD), fill=INK)
    rows = [
        ("Location services", True), ("Share usage statistics", False),
        ("Allow camera access", True), ("Allow microphone access", False),
        ("Clear history when closing", True), ("Personalised advertising", False),
    ]  # fmt: skip
    for k, (name, on) in enumerate(rows):
        top = 120 + 58 * k
        pen.text((250, top), name, font=font(16), fill=INK)
        pen.rounded_rectangle((760, top, 806, top + 24), 12, fill=GREEN if on else "#b9c1c9")
        x = 784 if on else 762
        pen.ellipse((x, top + 2, x + 20, top + 22), fill="white")
        pen.line((250, top + 42, 820, top + 42), fill=LINE)
    pen.rounded_rectangle((650, 496, 820, 536), 6, fill=BLUE)
    pen.text((735, 516), "Save changes", font=font(15, BOLD), fill="white", anchor="mm")
    return picture


def _terminal() -> Image.Image:
    picture, pen = canvas((880, 470), "#14181d")
    lines = [
        ("$ git push origin main", "#e6edf3"),
        ("To git.example.org:orchard/harvest.git", "#9aa7b4"),
        (" ! [rejected]        main -> main (fetch first)", "#ff7b72"),
        ("error: failed to push some refs", "#ff7b72"),
        ("hint: Updates were rejected because the remote", "#d9c27c"),
        ("hint: contains work that you do not have locally.", "#d9c27c"),
        ("$ git pull --rebase", "#e6edf3"),
        ("Successfully rebased and updated refs/heads/main.", "#7ee787"),
        ("$ pytest -q", "#e6edf3"),
        ("..........................F.....            [100%]", "#9aa7b4"),
        ("FAILED tests/test_ripeness.py::test_pear_is_soft", "#ff7b72"),
        ("1 failed, 31 passed in 2.84s", "#ff7b72"),
        ("$ _", "#e6edf3"),
    ]
    for k, (line, colour) in enumerate(lines):
        pen.text((24, 22 + 33 * k), line, font=font(19, MONO), fill=colour)
    return picture


def _mail() -> Image.Image:
    picture, pen = _window((980, 600), "Mail - Inbox (3 unread)")
    pen.rectangle((0, 35, 170, 600), fill="#e9edf2")
    for k, name in enumerate(("Inbox  3", "Starred", "Sent", "Drafts  1", "Spam", "Bin")):
        pen.text((22, 60 + 38 * k), name, font=font(15, BOLD if k == 0 else SANS), fill=INK)
    mails = [
        ("Dentist Dr. Vane", "Reminder: check-up on Thursday at 10:20", "09:12", True),
        ("Landlord", "Boiler service - who is at home on Monday?", "08:47", True),
        ("Quay Singers", "Score for the Christmas concert attached", "Yesterday", True),
        ("Night train office", "Your sleeper tickets to Lisbon", "Yesterday", False),
        ("Mum", "Plums! Please come and fetch them", "Sun", False),
        ("Orchard Bank", "Your statement for October is ready", "Sat", False),
        ("Parcel service", "We missed you: collect at Tanner's Row", "Fri", False),
    ]
    for k, (sender, subject, when, unread) in enumerate(mails):
        top = 50 + 76 * k
        pen.rectangle((171, top - 15, 980, top + 60), fill="white" if unread else "#f4f6f8")
        face = BOLD if unread else SANS
        pen.text((196, top), sender, font=font(16, face), fill=INK)
        pen.text((196, top + 26), subject, font=font(15), fill="#4a5865")
        pen.text((950, top), when, font=font(13), fill="#6b7884", anchor="ra")
        pen.line((171, top + 60, 980, top + 60), fill=LINE)
    return picture


def _shop() -> Image.Image:
    picture, pen = _window((960, 640), "lumen-lamps.example - Desk lamps")
    pen.rectangle((0, 35, 960, 96), fill="#2b2f3a")
    pen.text((28, 52), "LUMEN", font=font(26, BOLD), fill="#f7d774")
    pen.text((930, 56), "Basket (2)   144.00", font=font(16), fill="white", anchor="ra")
    lamps = [
        ("Heron", "79.00", RED),
        ("Mushroom", "45.00", "#e0b04f"),
        ("Architect", "65.00", BLUE),
    ]
    for k, (name, price, colour) in enumerate(lamps):
        left = 40 + 305 * k
        pen.rounded_rectangle((left, 130, left + 270, 600), 10, fill="white", outline=LINE)
        x, top = left + 135, 200
        pen.polygon(
            [(x - 70, top + 70), (x + 70, top + 70), (x + 34, top), (x - 34, top)], fill=colour
        )
        pen.line((x, top + 70, x, top + 190), fill=INK, width=6)
        pen.ellipse((x - 55, top + 180, x + 55, top + 204), fill=INK)
        pen.text((x, 446), name, font=font(20, BOLD), fill=INK, anchor="mm")
        pen.text((x, 480), price, font=font(18), fill=INK, anchor="mm")
        pen.rounded_rectangle((left + 45, 520, left + 225, 566), 8, fill=GREEN)
        pen.text((x, 543), "Add to basket", font=font(16, BOLD), fill="white", anchor="mm")
    return picture


def _calendar() -> Image.Image:
    picture, pen = _window((960, 620), "Calendar - week 46, November")
    days = ["Mon 11", "Tue 12", "Wed 13", "Thu 14", "Fri 15"]
    for k, day in enumerate(days):
        left = 70 + 176 * k
        pen.text((left + 88, 58), day, font=font(16, BOLD), fill=INK, anchor="mm")
        pen.line((left, 80, left, 610), fill=LINE)
    for hour in range(8, 18):
        top = 86 + 52 * (hour - 8)
        pen.text((60, top), f"{hour}:00", font=font(12), fill="#6b7884", anchor="ra")
        pen.line((70, top, 950, top), fill=LINE)
    events = [
        (0, 9, 10, "Stand-up", BLUE), (0, 14, 16, "Interview\nwith Noor", "#8a5a9e"),
        (1, 10, 12, "Budget review", RED), (2, 8, 9, "Dentist", "#8a97a3"),
        (2, 13, 17, "Workshop:\nfirst aid", GREEN), (3, 9, 10, "Stand-up", BLUE),
        (3, 12, 13, "Lunch with\nthe new team", "#c98a2b"), (4, 15, 17, "Demo and cake", GREEN),
    ]  # fmt: skip
    for day, start, end, name, colour in events:
        box = (74 + 176 * day, 88 + 52 * (start - 8), 242 + 176 * day, 84 + 52 * (end - 8))
        pen.rounded_rectangle(box, 6, fill=colour)
        pen.multiline_text((box[0] + 8, box[1] + 6), name, font=font(14), fill="white")
    return picture


def _chat() -> Image.Image:
    picture, pen = canvas((480, 900), "#e8efe9")
    pen.rectangle((0, 0, 480, 70), fill="#24623f")
    pen.text((24, 24), "Boat share group", font=font(20, BOLD), fill="white")
    said = [
        ("Lena", "Who left the oars at the jetty??", False),
        ("Me", "Not me, I had the kayak", True),
        ("Otto", "Guilty. Fetching them tonight", False),
        ("Lena", "The tide takes them first :)", False),
        ("Me", "Saturday still on? High water\nis at ten past eleven", True),
        ("Otto", "Yes! I bring sandwiches", False),
        ("Lena", "And life jackets, all FOUR", False),
    ]
    top = 96
    for name, words, mine in said:
        width = max(pen.textlength(line, font=font(17)) for line in words.splitlines()) + 34
        height = 56 + 22 * words.count("\n") + (0 if mine else 22)
        left = 460 - width if mine else 20
        colour = "#cdeccf" if mine else "white"
        pen.rounded_rectangle((left, top, left + width, top + height - 8), 12, fill=colour)
        if not mine:
            pen.text((left + 16, top + 8), name, font=font(14, BOLD), fill=RED)
        at = (left + 16, top + (12 if mine else 30))
        pen.multiline_text(at, words, font=font(17), fill=INK)
        top += height + 14
    pen.rounded_rectangle((16, 838, 464, 884), 22, fill="white")
    pen.text((38, 850), "Message", font=font(17), fill="#9aa7b4")
    return picture


def _error() -> Image.Image:
    picture, pen = canvas((900, 560), "#31566e")
    for k in range(56):  # a wallpaper that grows lighter downwards
        pen.rectangle((0, 10 * k, 900, 10 * k + 10), fill=(49 + k, 86 + k, 110 + k))
    pen.rounded_rectangle((190, 150, 710, 410), 12, fill="#f3f4f6")
    pen.ellipse((220, 190, 290, 260), fill=RED)
    pen.text((255, 225), "!", font=font(46, BOLD), fill="white", anchor="mm")
    pen.text((316, 190), "Disk almost full", font=font(22, BOLD), fill=INK)
    words = "Only 212 MB are left on \u201cBackup\u201d.\nThe last backup could not be finished."
    pen.multiline_text((316, 228), words, font=font(16), fill=INK, spacing=8)
    for left, name, colour in ((330, "Ignore", "#b9c1c9"), (510, "Delete old files", BLUE)):
        pen.rounded_rectangle((left, 340, left + 165, 384), 8, fill=colour)
        pen.text((left + 82, 362), name, font=font(15, BOLD), fill="white", anchor="mm")
    return picture


def _spreadsheet() -> Image.Image:
    picture, pen = _window((900, 480), "village-fete-budget.xlsx")
    rows = [
        ("Item", "Planned", "Actual", "Difference"),
        ("Brass band", "350", "350", "0"), ("Marquee hire", "800", "940", "-140"),
        ("Sausages", "420", "388", "32"), ("Toilets", "260", "260", "0"),
        ("Raffle prizes", "150", "95", "55"), ("Fireworks", "600", "720", "-120"),
        ("Total", "2580", "2753", "-173"),
    ]  # fmt: skip
    for r, row in enumerate(rows):
        top = 50 + 50 * r
        if r in (0, 7):
            pen.rectangle((50, top, 880, top + 50), fill="#dfe9e2")
        pen.text((26, top + 25), str(r + 1), font=font(14), fill="#6b7884", anchor="mm")
        for c, value in enumerate(row):
            left = 50 + (0, 320, 500, 680)[c]
            face = BOLD if r in (0, 7) else SANS
            colour = RED if value.startswith("-") else INK
            pen.text((left + 14, top + 15), value, font=font(17, face), fill=colour)
            pen.rectangle((left, top, left + (320, 180, 180, 200)[c], top + 50), outline=LINE)
    return picture
