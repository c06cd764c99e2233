"""Picture files made anew: smaller, and turned."""

import io

from PIL import ExifTags, Image

from effnetv2_jax.data.pictures.decode import Scaled, decode, decode_scaled
from effnetv2_jax.data.pictures.limits import MAX_PIXELS


def recode(
    encoded: bytes,
    *,
    short_side: int | None,
    quality: int,
    check: bool,
    exif: bool,
    max_pixels: int = MAX_PIXELS,
) -> bytes:
    """Shrinks a picture file, and turns it as its EXIF data say.

    Args:
      encoded: the file's bytes, which return as they are where nothing has to change.
      short_side: largest number of pixels on the short side; None does not shrink.
      quality: of the JPEG file that a changed picture becomes, 1 to 100.
      check: decode the picture even where nothing has to change.
      exif: whether EXIF data count.
      max_pixels: a larger picture is an error, unless it is a JPEG that is shrunk anyway: libjpeg
        then decodes no more than twice what is wanted.

    Raises:
      DecodeError: it cannot be decoded.
    """
    turned = exif and _is_turned(encoded)
    if not (check or short_side or turned):
        return encoded
    pixels, height, width = _decode(encoded, short_side, exif, max_pixels)
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


def _decode(encoded: bytes, short_side: int | None, exif: bool, max_pixels: int) -> Scaled:
    # Twice as large, so that the filter that shrinks the rest has enough to average.
    least = 2 * (short_side or 0)
    scaled = (
        decode_scaled(encoded, least=least, exif=exif, max_pixels=max_pixels) if least else None
    )
    if scaled is not None:
        return scaled
    pixels = decode(encoded, exif=exif, max_pixels=max_pixels)
    return Scaled(pixels, *pixels.shape[:2])


def _is_turned(encoded: bytes) -> bool:
    """Whether EXIF data turn or mirror a picture."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:
        # Pillow's readers raise nearly anything; whether the picture is sound is decided elsewhere.
        return False
