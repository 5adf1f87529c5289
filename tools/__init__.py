"""Command lines over the library; nobody imports them."""
