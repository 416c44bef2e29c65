"""The dashboards, as lists of panels. `python -m grafana` writes them as the JSON that Grafana loads."""
