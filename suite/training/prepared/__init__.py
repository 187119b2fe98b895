"""What is checked and put together before a run trains."""
