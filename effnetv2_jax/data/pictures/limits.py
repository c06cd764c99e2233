"""What is refused, so that no file can take unbounded memory or time."""

from effnetv2_jax.config.experiment import DataConfig

MAX_PIXELS = DataConfig.max_pixels
"""Larger pictures are refused by what their header says, 67 megapixels being the largest, unless
the caller says otherwise. Of JPEG 2000, whose decoder takes up to twice the memory of others for a
pixel, half as many are allowed."""
MAX_BYTES = 2**29
"""Larger files are refused."""
MAX_SCANS = 100
"""A JPEG with more is refused: a scan can be empty, and take as long as a whole one."""
PEAK_BYTES_PER_PIXEL = 20
"""What decoding takes at its worst, beside three times the file, thus 1.3 GB for `MAX_PIXELS`: a
transparent WebP, of which libwebp keeps two frames and Pillow two copies. Baseline JPEG takes 3, a
progressive one 9 (CMYK: 12), and the rest at most 9."""
