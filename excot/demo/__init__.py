"""What `excot demo` shows on databases of our own, offline: the method with a tiny model, or its data alone."""

from __future__ import annotations

from ..config import DemoConfig


def demo(config: DemoConfig) -> str:
    """``excot demo``. Returns the lines to show.

    Raises:
        ExcotError: the folder holds another run, or what trains is not installed.
    """
    if config.data_only:
        from .tour import tour

        return tour(config)
    from .experiment import experiment

    return experiment(config)
