"""What stands below everything: caches, checksums, cores, errors while reading, the machine."""
