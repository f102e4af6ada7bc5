"""What is done with data, models and adapters: pure where it can be, and the same on a laptop, a worker or a server.

Knows no registry, no flow and no command.
"""
