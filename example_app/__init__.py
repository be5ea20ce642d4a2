"""A status board: probes HTTP targets, keeps the results and shows them live.

Run it with `python -m example_app`. Read it in this order: `targets`, `probe` and `status` (what is
watched, and how), `pumps` (what runs as long as the app does), `routes` and `streams` (what runs as
long as a request does), `app` (how it is put together).
"""
