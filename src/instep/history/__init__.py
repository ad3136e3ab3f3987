"""One id for everything: contents, commits, refs and their operations. Contents are opaque here."""
