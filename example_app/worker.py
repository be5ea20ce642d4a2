"""The worker of a place, where ``BOARD_PLACE`` says which one, beside the settings of the board.

`python -m quattro_web.jobs worker example_app.worker:jobs` runs it.
"""

from __future__ import annotations

import os

from example_app.places import Place
from example_app.settings import Settings

jobs = Place(os.environ["BOARD_PLACE"], Settings.from_environment()).jobs
