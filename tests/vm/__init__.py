"""`scripts/test --vm`: tests on Debian 13 with its own kernel, systemd and cgroup v2, in a virtual machine."""
