"""Door two: /api, for those who run an organization or the instance."""
