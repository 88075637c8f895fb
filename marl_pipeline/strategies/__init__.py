"""What can trade a held-out window: the hierarchy, a policy of any algorithm on any engine, a rule."""
