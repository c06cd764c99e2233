"""From encoded pictures to arrays: decoding, crops, resizing."""
