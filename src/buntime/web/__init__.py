"""HTTP: decodes a request, asks the control plane, encodes the answer. Nothing here touches a sandbox."""
