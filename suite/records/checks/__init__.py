"""What is checked when a record is read: that it agrees with its config, its certificate, and itself."""
