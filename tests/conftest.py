"""What holds for every test: asyncio's debug mode, and no help from outside."""

import os

# Read by each event loop when it is made, those of the servers that tests start included.
os.environ["PYTHONASYNCIODEBUG"] = "1"
