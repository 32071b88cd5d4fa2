"""Photographs from scikit-image's wheel, saved as a camera would: some with EXIF."""

from materials import FILES, photograph, save
from PIL import Image

PHOTOS = FILES / "images" / "photos"

# EXIF tags: 0x10F make, 0x110 model, 0x132 date, 0x10E description, 0x8298 copyright;
# 0x8769 is the sub-directory with the exposure, 0x8825 the one with the place.
MAKE, MODEL, DATE, DESCRIPTION, COPYRIGHT, EXPOSURE, PLACE = (
    0x10F,
    0x110,
    0x132,
    0x10E,
    0x8298,
    0x8769,
    0x8825,
)


def make_photos() -> None:
    """Write twelve photographs under ``files/images/photos``."""
    astronaut = _exif("1992:05:14 10:30:00", "Portrait in the orange launch suit", "Hasselblad")
    save(photograph("astronaut.png"), PHOTOS / "portrait-s92.jpg", quality=90, exif=astronaut)
    coffee = _exif("2013:07:02 15:21:44", "", "Canon", (51.05, "N", 3.72, "E"))
    save(photograph("coffee.png"), PHOTOS / "IMG_0042.jpg", quality=90, exif=coffee)
    cat = _exif("2011:11:20 09:03:10", "Chelsea looking out of the window", "Nikon")
    save(photograph("chelsea.png"), PHOTOS / "chelsea.jpg", quality=90, exif=cat)
    launch = _exif("2015:02:11 18:03:00", "", "Nikon", (28.562, "N", 80.577, "W"))
    save(photograph("rocket.jpg"), PHOTOS / "DSC_7731.jpg", quality=90, exif=launch)
    save(photograph("camera.png"), PHOTOS / "man-with-tripod.jpg", quality=88)
    save(photograph("hubble_deep_field.jpg"), PHOTOS / "deep-field.webp", quality=84)
    save(photograph("retina.jpg").resize((900, 900)), PHOTOS / "fundus_left_eye.jpg", quality=88)
    save(photograph("brick.png"), PHOTOS / "IMG_0107.jpg", quality=80)
    save(photograph("grass.png"), PHOTOS / "IMG_0108.jpg", quality=80)
    save(photograph("gravel.png"), PHOTOS / "IMG_0109.jpg", quality=80)
    save(photograph("cell.png"), PHOTOS / "phase-contrast-04.webp", quality=85)
    save(photograph("clock_motion.png"), PHOTOS / "IMG_0003.jpg", quality=85)


def _exif(
    date: str, about: str, make: str, place: tuple[float, str, float, str] | None = None
) -> bytes:
    """Return EXIF with a date, a maker, a caption and a place (latitude, N, longitude, E)."""
    exif = Image.Exif()
    exif[MAKE], exif[DATE] = make, date
    if about:
        exif[DESCRIPTION] = about
    exif.get_ifd(EXPOSURE)[0x9003] = date
    if place:
        latitude, north, longitude, east = place
        exif.get_ifd(PLACE).update({1: north, 2: _dms(latitude), 3: east, 4: _dms(longitude)})
    return exif.tobytes()


def _dms(degrees: float) -> tuple[float, float, float]:
    """Return degrees, minutes and seconds, as GPS tags keep them."""
    minutes = degrees % 1 * 60
    return float(int(degrees)), float(int(minutes)), round(minutes % 1 * 60, 2)
