"""What the process runs on: its clock, its timeouts, and which form of the modules it uses."""
