"""What runs will take before they are started: time, memory per device and GPU hours, from counted work."""
