"""What a file really is, by its first bytes, and what to type where it is not what was declared.

Unpacks nothing and reads no row.
"""
