"""The shutdown of a server: the signals that announce it, its grace periods, and the watchdog.

It knows neither pumps nor requests: `_app` registers its callbacks here, and `_pumps` asks how much
time is left.
"""
