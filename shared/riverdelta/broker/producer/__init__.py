"""How replies are written: `Producer` and `Message`, and what delivers, checks and resends below them."""
