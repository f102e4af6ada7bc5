"""Files and folders that are there whole or not at all, are read without trust, or hold what is too much for memory.

Knows nothing of what they mean.
"""
