"""Chat backends: one module per provider API; `base` has their interface."""
