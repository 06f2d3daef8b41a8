"""The campaign of faults: commands that are killed, and inputs that are damaged, by a seed. `make faults`.

A kill is right when the same command then goes on and ends with what an undisturbed one leaves (kills.py). A damaged
input is right when it is used, or refused in one sentence that names it (mutants.py).
"""
