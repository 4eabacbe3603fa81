"""Door three: pages for people, at /dashboard."""
