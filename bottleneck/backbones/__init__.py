"""From a name to a frozen network: its layer, its preprocessing, its spec."""
