"""The no-op, in a module of its own: a fresh process imports what it runs, and nothing else."""


async def nothing() -> None:
    """Do nothing."""
