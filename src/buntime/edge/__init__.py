"""The edge: nginx in front of the control plane."""
