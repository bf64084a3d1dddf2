"""`trillama doctor`: one check per question, each with a level and a fix.

Only looks: nothing is started, changed or downloaded.
"""
