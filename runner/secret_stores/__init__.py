"""Where a team keeps its secrets outside the machine's own variables: SOPS files, HashiCorp Vault, Kubernetes."""
