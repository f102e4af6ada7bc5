"""params.yaml as strict records, each fault with its key path, and how one value in it is changed.

Knows what may be written there, and nothing of what is done by it.
"""
