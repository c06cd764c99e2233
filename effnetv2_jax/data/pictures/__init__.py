"""From one encoded picture to an array: decoding, crops, resizing."""
