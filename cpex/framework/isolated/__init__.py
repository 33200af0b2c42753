"""Plugins in a virtual environment and a process of their own: host side, worker, and the lines between them."""
