"""Networks over the agents of a group, the distributions of their actions, and value normalisation."""
