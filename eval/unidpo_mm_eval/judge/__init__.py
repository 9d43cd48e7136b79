"""A language model as judge: at an OpenAI-compatible address, or one of our own in this process.

client.py   one request, its retries, and what went wrong by kind
cache.py    what was asked before is not asked again
judges.py   a judge by its address or folder, many requests at once
verdicts.py what a judge's answer says; anything else is an error, never a guess
duel.py     two checkpoints side by side, in both orders
"""
