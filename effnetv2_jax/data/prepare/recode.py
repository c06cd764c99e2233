"""Picture files made anew: smaller, and turned."""

import io

from PIL import ExifTags, Image

from effnetv2_jax.data.pictures.decode import decode


def recode(
    encoded: bytes, *, short_side: int | None, quality: int, check: bool, exif: bool
) -> bytes:
    """Shrinks a picture file, and turns it as its EXIF data say.

    Args:
      encoded: the file's bytes, which return as they are where nothing has to change.
      short_side: largest number of pixels on the short side; None does not shrink.
      quality: of the JPEG file that a changed picture becomes, 1 to 100.
      check: decode the picture even where nothing has to change.
      exif: whether EXIF data count.

    Raises:
      DecodeError: it cannot be decoded.
    """
    turned = exif and _is_turned(encoded)
    if not (check or short_side or turned):
        return encoded
    pixels = decode(encoded, exif=exif)
    height, width, _ = pixels.shape
    factor = min(1.0, short_side / min(height, width)) if short_side else 1.0
    if factor == 1 and not turned:
        return encoded
    image = Image.fromarray(pixels)
    if factor < 1:
        size = (round(factor * width), round(factor * height))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _is_turned(encoded: bytes) -> bool:
    """Whether EXIF data turn or mirror a picture."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:
        # Pillow's readers raise nearly anything; whether the picture is sound is decided elsewhere.
        return False
