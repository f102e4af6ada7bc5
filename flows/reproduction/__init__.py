"""A registered version trained again from what the registry says of it alone, and the verdict on what came out.

Registers nothing and moves nothing.
"""
