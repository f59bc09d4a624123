"""The whole method as one command: its settings, its steps, and how they are run, killed and gone on with."""
