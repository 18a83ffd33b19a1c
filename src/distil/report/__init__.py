"""Pictures and reports of distilled sets and of their scores."""
