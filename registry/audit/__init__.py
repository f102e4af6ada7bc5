"""Whether what is registered still holds together: each version's chain of evidence, and the whole registry's.

Reads and reports. Nothing is repaired here.
"""
