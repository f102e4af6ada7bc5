"""Tables of text, CSV and TSV: their dialect found, their cells parted, their rows numbered by physical lines.

Knows columns, and nothing of what the cells mean.
"""
