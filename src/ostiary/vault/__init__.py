"""Keys that go out."""
