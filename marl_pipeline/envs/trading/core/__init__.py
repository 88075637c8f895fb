"""The trading game: market, book, orders, limits, costs, what is observed."""
