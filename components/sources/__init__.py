"""Bytes from where data and models live: the web, S3, hubs, package indexes, archives and the disk.

One form of address, pinned and verified. Knows nothing of what the bytes mean, and runs none of them.
"""
