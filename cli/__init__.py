"""What a person types: the command line, its options, and how answers are shown.

Reads arguments, asks the flows and the registry, prints. Decides nothing, and nobody imports it.
"""
