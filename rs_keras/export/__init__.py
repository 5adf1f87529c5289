"""Networks for phones and servers: files that run without this package."""
