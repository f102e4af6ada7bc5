"""What an adapter follows from, as one fingerprint, and the reasons to train a task again.

Pure: facts are brought by whoever asks.
"""
