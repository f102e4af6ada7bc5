"""An adapter as the model sees it: keys and values of virtual tokens, the pass behind them, and answers.

Knows how a method makes a prefix, and nothing of how one is trained.
"""
