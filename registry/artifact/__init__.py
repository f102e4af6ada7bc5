"""An adapter as a folder of files: its tensor, manifest and model card, written whole and read without trust.

Ours, PEFT's, and the wheel of our own code. Knows no store and no stage.
"""
