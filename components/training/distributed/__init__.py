"""One adapter trained by several processes together, started here and followed.

Knows how they are started and joined. What is trained is the loop's matter.
"""
