"""State that plugins share: one port, and a store each for one process, one machine and many machines."""
