"""The paper's five challenging tasks, and three more, for any scorer on any prepared log.

A task says which passes over users it needs and how their results are cut into groups; `runner` runs every pass once
per scorer, whichever tasks share it.
"""
