"""What a process of ours settles before anything else: project folder, environment, terminal, and how faults end it.

Knows no task, no version and no run.
"""
