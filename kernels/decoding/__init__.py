"""Steps of decoding that are one compiled operation per layer, and write the state in place."""
