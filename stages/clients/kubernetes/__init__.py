"""A Kubernetes cluster as pipe sees it: apply manifests, judge the rollout, say why it fails.

Pure functions on plain dicts (`manifests`, `images`, `order`, `rollout`, `pods`, `diagnosis`, `refusals`)
below a thin shell that talks to the cluster (`access`, `api`, `apply`, `pull_secret`, `watching`, `waiting`).
"""
