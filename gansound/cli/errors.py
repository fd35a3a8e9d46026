"""What the command line may refuse before any work begins."""


class UsageError(ValueError):
    """Something knowable from the command line alone is wrong: exit code 2."""
