"""Environments of other libraries, brought to the protocol: Gymnasium's and PettingZoo's."""
