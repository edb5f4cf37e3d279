"""How replies are written: `Producer`, `Message`, and what sends and resends their entries."""
