"""The only place that imports the SDKs of git, docker, registries and Kubernetes."""
