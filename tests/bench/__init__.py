"""What the door costs: loads, a fast provider, a bare proxy to compare with, and the cores they run on."""
